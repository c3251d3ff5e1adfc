"""What each part of the model and of its training is worth: runs of equal length that differ in one thing.

    python pretrain/ablate.py --preset text --data data/tokens/mine               # every variant beside the preset
    python pretrain/ablate.py --list                                              # the variants, with their flags
    python pretrain/ablate.py --only no_norm post_norm --seeds 1 2 3 --max_steps 1000
    python pretrain/ablate.py --add "deep=--n_layer 8 --n_embd 128" --only deep
    python pretrain/ablate.py --vary lr 1e-3 3e-3 1e-2 3e-2 1e-1 --optimizer adamw --out data/runs/pretrain/rates

Other flags go to model.py (its --help lists them), for every run alike. A variant that the preset has anyway is left
out. --vary tries values of one setting instead, e.g. learning rates until training diverges. The same command continues
after an interruption. --out receives a folder for each run, named after its variant, its seed and a hash of its
settings and data, and the comparison, a table and a picture named after itself: ablations.md, ablations.png.
"""

import dataclasses
import hashlib
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from ablation_report import Result, draw, table
from account import parameters
from plot import read_run, save
from presets import AS_GPT2, DATA, GPTConfig, InputError, Settings, check, parse, run_command
from whole_file import write_text

MODEL = Path(__file__).resolve().parent / "model.py"
COMMON = ["--max_steps=400", "--eval_every=100", "--eval_tokens=0", "--save_every=0", "--sample_every=0", "--prompt="]
VARIANTS = {  # name: flags, of which the first makes the difference
    "no_norm": "--norm none",
    "post_norm": "--norm_place post",
    "layernorm": "--norm layernorm",
    "rmsnorm": "--norm rmsnorm",
    "qk_norm": "--qk_norm",
    "no_qk_norm": "--no_qk_norm",
    "no_positions": "--position none",
    "learned_positions": "--position learned",
    "rope": "--position rope",
    "gelu": "--mlp gelu",
    "silu": "--mlp silu",
    "relu2": "--mlp relu2",
    "swiglu": "--mlp swiglu",
    "one_kv_head": "--n_kv_head 1",
    "biases": "--bias",
    "no_biases": "--no_bias",
    "untied_head": "--no_tied",
    "embeddings_0.02": "--embedding_std 0.02",
    "embeddings_0.2": "--embedding_std 0.2",
    "zero_projections": "--zero_init",
    "random_projections": "--no_zero_init",
    "document_mask": "--document_mask",
    "no_document_mask": "--no_document_mask",
    "dropout": "--dropout 0.1",
    "no_z_loss": "--z_loss 0",
    "no_weight_decay": "--weight_decay 0",
    "no_clipping": "--clip 0",
    "no_warmup": "--warmup 0",
    "cosine": "--schedule cosine --min_lr 0.1",
    "linear": "--schedule linear --min_lr 0",
    "wsd": "--schedule wsd --min_lr 0",
    "adamw": "--optimizer adamw --lr 4e-3",
    "muon": "--optimizer muon",
    "gpt2": f"{AS_GPT2} --lr 2e-3",
}


@dataclass
class Ablation:
    """What to compare; flags that are not listed here go to model.py."""

    only: tuple[str, ...] = ()  # variants to run beside the base; empty = all
    add: tuple[str, ...] = ()  # variants of your own, each "NAME=FLAGS"
    vary: tuple[str, ...] = ()  # a setting of model.py and its values, in place of the variants
    seeds: tuple[int, ...] = (1,)  # of every variant
    base_seeds: tuple[int, ...] = (1, 2, 3)  # of the base: how far they lie apart is what chance does
    out: Path = DATA / "runs" / "pretrain" / "ablations"  # folder of the runs, the table and the figure
    figures: Path | None = None  # also write the picture into this folder, e.g. imgs
    list: bool = False  # print the variants and end
    debug: bool = False  # show tracebacks of input errors


def variants(s: Ablation, common: list[str]) -> dict[str, list[str]]:
    """Flags of each variant that differs from the base, by name; the base first, unless one setting is varied."""
    if s.vary:
        if len(set(s.vary[1:])) < max(2, len(s.vary) - 1):
            raise InputError(f"--vary {' '.join(s.vary)}: give a setting and two values or more, each once")
        return {f"{s.vary[0]}_{value}": [f"--{s.vary[0]}", value] for value in s.vary[1:]}
    own = dict(item.partition("=")[::2] for item in s.add)
    for name, flags in own.items():
        if not flags.startswith("--") or name in VARIANTS or name == "base" or not name.replace("_", "a").isalnum():
            raise InputError(f"--add {name}={flags}: give a new NAME of letters, digits and _, and flags of model.py")
    there = VARIANTS | own
    unknown = set(s.only) - set(there)
    if unknown:
        raise InputError(f"--only {' '.join(sorted(unknown))}: there are {', '.join(there)}")
    base, chosen = parse(__doc__, common), {"base": []}
    for name in s.only or there:
        first = there[name].split(" --")[0].split()
        if parse(__doc__, [*common, *first]) != base:
            chosen[name] = there[name].split()
        elif s.only:
            raise InputError(f"--only {name}: the base has {' '.join(first)} already")
    return chosen


def planned(s: Ablation, common: list[str], chosen: dict[str, list[str]]) -> dict[tuple[str, int], tuple]:
    """(flags, Settings) of each run, by variant and seed; a mistake in any is found here, before the first run."""
    if any(word.partition("=")[0] == "--seed" for word in common):
        raise InputError("--seed: a run takes its seed from --seeds, the base from --base_seeds")
    if not s.seeds or not s.base_seeds:
        raise InputError("--seeds and --base_seeds: give each at least one number")
    runs = {}
    for name, own in chosen.items():
        for seed in s.base_seeds if name == "base" else s.seeds:
            flags = [*common, *own, f"--seed={seed}"]
            runs[name, seed] = flags, parse(__doc__, flags)
            check(runs[name, seed][1])
    return runs


def run_name(name: str, seed: int, settings: Settings) -> str:
    """A readable name that ends in a hash of all settings and of the data: no_norm-seed1-1a2b3c4d."""
    manifest = settings.data / "manifest.json"
    if not manifest.exists():
        raise InputError(f"{manifest} does not exist; name a folder of shards with --data")
    decided = dataclasses.replace(settings, data=hashlib.sha256(manifest.read_bytes()).hexdigest(), out=None)
    return f"{name}-seed{seed}-{hashlib.sha256(repr(decided).encode()).hexdigest()[:8]}"


def run(flags: list[str], folder: Path) -> Result:
    """Train one model in that folder, or go on with it; its result is kept there, its checkpoints are not."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen([sys.executable, MODEL, *flags, "--out", folder], stdout=log, stderr=log)
        try:
            status = process.wait()
        finally:  # on Ctrl-C or SIGTERM: it ends its step, and saves
            process.terminate()
            process.wait()
    if status < 0:
        raise InputError(f"{' '.join(flags)} was killed by signal {-status}; is the batch too large for the memory?")
    if status not in (0, 3):
        last = (folder / "log.txt").read_text("utf-8").strip().rpartition("\n")[2]
        raise InputError(f"{' '.join(flags)} ended with status {status}: {last or folder / 'log.txt'}")
    metrics = read_run(folder)
    speeds = [line["tokens_per_s"] for line in metrics.lines if "tokens_per_s" in line]
    evaluated = [line for line in metrics.lines if "val_loss" in line]
    last = evaluated[-1] if status == 0 else {"val_loss": None, "val_bpb": None}
    result = Result(sum(parameters(GPTConfig(**metrics.args["model"])).values()), metrics.lines[-1]["step"],
                    statistics.median(speeds) if speeds else 0.0,
                    [[line["step"], line["val_loss"]] for line in evaluated], last["val_loss"], last["val_bpb"])
    write_text(folder / "result.json", json.dumps(vars(result)))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return result


def kept_result(folder: Path) -> Result | None:
    """The result of a run that is over."""
    path = folder / "result.json"
    try:
        return Result(**json.loads(path.read_bytes())) if path.exists() else None
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); delete {folder}, and the same command makes it again") from None


def main(arguments: tuple[Ablation, list[str]]):
    """Run what is missing, then compare."""
    s, model_flags = arguments
    if s.list:
        print("\n".join(f"{name:20} {flags}" for name, flags in VARIANTS.items()))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by an exception, which ends the run that was started
    common = [*COMMON, *model_flags]
    chosen = variants(s, common)
    runs, groups = planned(s, common, chosen), {}
    folders = {key: s.out / run_name(*key, settings) for key, (_, settings) in runs.items()}
    results = {key: kept_result(folder) for key, folder in folders.items()}
    missing = [key for key, result in results.items() if result is None]
    print(f"{len(runs)} runs in {s.out}, {len(runs) - len(missing)} of them finished before", flush=True)
    began = time.monotonic()
    for number, key in enumerate(missing):
        results[key] = result = run(runs[key][0], folders[key])
        left = (time.monotonic() - began) / (number + 1) * (len(missing) - number - 1) / 60
        outcome = "diverged" if result.val_loss is None else f"{result.val_loss:.3f} nats per token"
        print(f"{key[0]}, seed {key[1]}: {outcome}; {left:.1f} minutes left", flush=True)
    for (name, _), result in results.items():
        groups.setdefault(name, []).append(result)
    text = table(groups, chosen)
    write_text(s.out / f"{s.out.name}.md", text + "\n")
    for folder in filter(None, (s.out, s.figures)):
        folder.mkdir(parents=True, exist_ok=True)
        save(draw(groups, s.vary), folder / f"{s.out.name}.png")
    print(f"\n{text}\n\n{s.out}/{s.out.name}.png")


def read_arguments(argv: list[str] | None = None) -> tuple[Ablation, list[str]]:
    """The command line: our own flags, and those for model.py."""
    return tyro.cli(Ablation, args=argv, description=__doc__, return_unknown_args=True, use_underscores=True)


if __name__ == "__main__":
    run_command(main, read_arguments)
