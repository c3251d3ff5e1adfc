"""One screen at the end of `bash train.sh`: what was made, where it lies, how good it is.

    python data/summary.py stories
    python data/summary.py stories full lora      # but these two were made from another base than is there now

Reads only what the stages left in data/: manifests, metrics, scores. What is not there yet is left out.
"""

import json
import sys
from pathlib import Path

from orderly import status_of

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"


def read(path: Path) -> dict:
    """A JSON file, or {} where there is none."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def last_values(metrics: Path) -> dict:
    """The last value of every name in a metrics.jsonl, and the step of the last validation: {"val_loss": 1.2, ...}."""
    values: dict = {}
    if metrics.exists():
        for line in metrics.read_text("utf-8").splitlines():
            if line.endswith("}"):  # not one that is being written, or whose process was killed
                values |= (now := json.loads(line))
                values |= {"val_step": now["step"]} if "val_loss" in now else {}
    return values


def size(path: Path) -> str:
    """Size of a file or of all files below a folder, in MB."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"


def tokenizer_lines(name: str) -> list[str]:
    """Bytes per token on the validation text, beside GPT-2's: both of the whole file, as `compare` counts them."""
    row = read(DATA / "runs" / "bpe" / f"{name}-compare.json").get("val.txt", {})
    ours, gpt2 = row.get(f"data/tokenizer/{name}") or row.get(name), row.get("gpt2")  # a path where NAME is gpt2
    if ours and gpt2:
        of_gpt2 = f"   GPT-2's {gpt2['bytes'] / gpt2['tokens']:.2f} (50,257 tokens)"
        return [f"bytes per token on val.txt   ours {ours['bytes'] / ours['tokens']:.2f}{of_gpt2}"]
    val = read(DATA / "tokens" / name / "manifest.json").get("shards", {}).get("val", [])
    tokens = sum(shard["tokens"] for shard in val)
    if not tokens:
        return []
    return [f"bytes per token on val.txt   ours {sum(shard['bytes'] for shard in val) / tokens:.2f}"]


def base_lines(name: str) -> list[str]:
    """Losses and multiple-choice accuracy of the base model."""
    values = last_values(DATA / "runs" / "pretrain" / name / "metrics.jsonl")
    lines = []
    if "val_loss" in values:
        lines.append(f"validation loss              {values['val_loss']:.3f} nats per token, "
                     f"{values['val_bpb']:.3f} bits per byte, after {values['val_step']:,} steps")
    if "choices_acc_token_mean" in values:
        lines.append(f"multiple choice (4 endings)  {values['choices_acc_token_mean']:.1%}")
    return lines


def tuned_lines(name: str, kinds: list[str]) -> list[str]:
    """Losses of the fine-tuned models on held-out instructions, and (of all) the share of replies that pass."""
    lines = []
    for kind in kinds:
        values = last_values(DATA / "runs" / "lora" / f"{name}-{kind}" / "metrics.jsonl")
        if "eval_loss" in values:
            lines.append(f"loss on held-out answers     {kind} {values['eval_loss']:.3f} nats per token")
    scores = read(DATA / "runs" / "lora" / f"{name}-scores.json") if len(kinds) == 2 else {}
    if scores:
        shares = "   ".join(f"{model} {result['macro_average']:.1%}" for model, result in scores.items())
        lines.append(f"held-out instructions solved {shares}")
    return lines


def main(name: str = "stories", *old: str) -> None:
    """Print the screen. `old` are those of pretrain, full and lora that train.sh would make anew: they are left out."""
    def there(*paths: Path) -> list[Path]:
        return [path for path in paths if path.exists()]

    models = {"pretrain": DATA / "models" / name, "lora": DATA / "adapters" / f"{name}-lora",
              "full": DATA / "models" / f"{name}-full"}
    kinds = [kind for kind in ("lora", "full") if kind not in old]
    made = there(DATA / "text" / name, DATA / "tokenizer" / name, DATA / "tokens" / name,
                 *(path for step, path in models.items() if step not in old))
    runs = {DATA / "runs" / "pretrain" / name: "pretrain", **{DATA / "runs" / "lora" / f"{name}-{k}": k for k in kinds}}
    pictures = [picture for folder, step in runs.items() if step not in old for picture in sorted(folder.glob("*.png"))]
    print("\n== made")
    for path in made:
        print(f"  {path.relative_to(ROOT)!s:<32}{size(path):>12}")
    of_base = [] if "pretrain" in old else base_lines(name)
    for title, lines in (("measured", tokenizer_lines(name) + of_base + tuned_lines(name, kinds)),
                         ("pictures", [str(picture.relative_to(ROOT)) for picture in pictures])):
        if lines:
            print(f"== {title}")
            print("\n".join(f"  {line}" for line in lines))
    flag = "" if name == "stories" else f" --name {name}"
    step = "generate.sh" if (DATA / "models" / name).exists() else "train.sh"
    print("== next")
    if left := [str(models[step].relative_to(ROOT)) for step in old if models[step].exists()]:
        print(f"  bash train.sh{flag}   makes anew what was made from other files or settings: {', '.join(left)}")
    print(f"  bash {step}{flag}")


if __name__ == "__main__":
    if not {*sys.argv[2:]} <= {"pretrain", "full", "lora"} or sys.argv[-1].startswith("-"):
        print(f"usage: python data/summary.py [NAME]\n\n{__doc__}")
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 2)
    sys.exit(status_of(lambda: main(*sys.argv[1:])))
