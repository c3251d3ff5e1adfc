"""Hugging Face folders in and out: GPT-2, Llama, Qwen2 (with biases of q, k, v) and Qwen3 (with QK-norm).

Mistral without a sliding window is read too, and written as the Llama that it is.

    python pretrain/convert.py data/runs/pretrain/stories data/models/stories    # a run's newest checkpoint -> a folder
    python pretrain/convert.py gpt2 data/models/gpt2                             # a model of the hub -> a folder
    python pretrain/convert.py data/models/stories /tmp/copy                     # a folder, read and written again

A folder holds config.json, generation_config.json, model.safetensors, the tokenizer's files and a model card, and is
what `AutoModelForCausalLM.from_pretrained` loads. Weights are read from safetensors only: a pickle can run any code.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from account import parameters
from hf_format import architecture, copy_tensors, hf_config, hf_tensors, our_config
from presets import DATA, GPTConfig, InputError, read_settings, run_command
from whole_file import flush


@dataclass
class Settings:
    """What to convert."""

    source: Annotated[str, tyro.conf.Positional]  # run folder or one of its checkpoints, exported folder, or hub name
    out: Annotated[Path, tyro.conf.Positional]  # folder to write
    tokenizer: Path | None = None  # folder with the tokenizer's files; default: the source's own
    debug: bool = False  # show tracebacks of input errors


TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                   "chat_template.jinja", "vocab.json", "merges.txt"]
EXPORTED = {"config.json", "generation_config.json", "model.safetensors", "README.md", *TOKENIZER_FILES}
DOCUMENT_MASK = ("trained with --document_mask: no token looked beyond an end-of-text; transformers computes the same "
                 "within one document, but looks back across them")


def load(source: str | Path, dtype=None):
    """GPT with the weights of a Hugging Face folder or hub name (gpt2, HuggingFaceTB/SmolLM2-135M, ...), fp32.

    `dtype` is that of the forward pass (default fp32). Raises InputError for architectures and files we do not read.
    """
    import torch
    from model import GPT
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = locate(source)
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} has no config.json; expected a Hugging Face folder")
    config, tensors = read_config(folder), {}
    for name in weight_files(folder):
        if not (folder / name).exists():
            pickles = [p.name for p in folder.glob("*.bin")] + [p.name for p in folder.glob("*.pt")]
            note = f"; {pickles[0]} is a pickle, which can run any code, and is not read" if pickles else ""
            raise InputError(f"{folder} has no {name}{note}")
        try:
            tensors.update(load_file(folder / name))
        except SafetensorError as error:
            raise InputError(f"{folder / name} is damaged: {error}") from None
    needed, held = sum(parameters(config).values()), sum(tensor.numel() for tensor in tensors.values())
    if needed > 2 * held:  # before memory is taken for it; up to 2, the tensor that is missing can be named
        raise InputError(f"{folder}: config.json describes {needed:,} parameters, the weights are {held:,}")
    model = GPT(config, dtype or torch.float32)
    copy_tensors(model, tensors, str(folder))
    return model


def weight_files(folder: Path) -> list[str]:
    """Names of the files that hold a folder's weights, one or several."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return ["model.safetensors"]
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{index} has no weight_map from tensors to files")
    return sorted(set(places.values()))


def locate(source: str | Path) -> Path:
    """The folder of this path, or of the hub model of this name."""
    return Path(source) if Path(source).exists() else download(str(source))


def download(name: str) -> Path:
    """Folder of a hub model in the local cache, without pickles."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        wanted = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "*.model"]
        twice = ["*consolidated*"]  # Mistral's weights once more, under names of their own
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=twice))
    except HFValidationError:
        raise InputError(f"{name} is neither a folder nor a model that the hub gives (names there: NAME, OWNER/NAME)\n"
                         "`bash train.sh` makes data/models/stories") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name} is neither a folder nor a model that the hub gives: {reason}\n"
                         "without a network, copy a Hugging Face folder here and name its path") from None


def read_json(path: Path) -> dict:
    """Parsed file; InputError if it is not a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {str(value)[:40]}, not an object in braces")
    return value


def generation_settings(folder: Path) -> dict:
    """What generation_config.json says, its bos and eos ids or else config.json's; eos may be a list. {} for a run."""
    settings = {}
    for name in ("config.json", "generation_config.json"):
        if (folder / name).exists():
            settings |= {key: value for key, value in read_json(folder / name).items() if value is not None
                         and (name == "generation_config.json" or key in ("bos_token_id", "eos_token_id"))}
    ends = settings.get("eos_token_id", [])
    if not all(type(end) is int for end in (ends if isinstance(ends, list) else [ends])):
        raise InputError(f"{folder}: eos_token_id = {ends!r} must be a token's id or a list of them")
    return settings


def model_card(config: GPTConfig, parameters: int, card: str | dict) -> str:
    """README.md of an exported folder; `card`, text or named values, says how it was trained and how well it does."""
    text = card if isinstance(card, str) else "\n".join(f"- {name}: {value}" for name, value in card.items())
    if config.document_mask:
        text = f"{text.strip()}\n\nIt was {DOCUMENT_MASK}."
    ends = ("No token ends a document." if config.end_of_text is None else "Every document of the training data ended "
            f"with\ntoken {config.end_of_text}, at which generation stops.")
    return f"""---
library_name: transformers
pipeline_tag: text-generation
---

# {architecture(config)}, {parameters:,} parameters

{config.n_layer} layers, {config.n_head} heads ({config.kv_heads} for keys and values), {config.n_embd} channels,
vocabulary {config.vocab_size:,}, up to {config.block_size:,} tokens. {ends}

{text.strip()}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
```
"""


def check_target(out: Path):
    """Raise InputError if an export may not take the place of `out`: only of nothing, an empty folder or an export.

    The folder that it is to lie in is made, and must be one that can be written to.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(f"{out}: its folder cannot be made: {reason}") from None
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"{out.parent} cannot be written to; give another folder")
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    foreign = sorted(names - EXPORTED)
    if not out.is_dir() or foreign or (names and "config.json" not in names):
        reason = f" (it holds {foreign[0]})" if foreign else ""
        raise InputError(f"{out} exists and is no exported model{reason}; give another folder")


def export(model, tokenizer_dir: str | Path | None, out_dir: str | Path, card: str | dict = "",
           generation: dict | None = None):
    """Write `model` (a GPT) as a Hugging Face folder that appears at once and whole.

    Logits equal ours to 1e-4 in fp32. `generation` is what generation_config.json says beside the end-of-text as bos
    and eos, or instead, as generation_settings gives it.
    An earlier export is replaced; any other non-empty folder is refused (check_target).
    """
    from safetensors.torch import save_file

    config, out = model.config, Path(out_dir).resolve()  # a link keeps leading to it
    tensors = hf_tensors(config, model.state_dict())  # refuses before anything is written
    check_target(out)
    part, old = out.with_name(f".{out.name}.tmp"), out.with_name(f".{out.name}.old")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / "config.json").write_text(json.dumps(hf_config(config), indent=2) + "\n")
        generation = {"bos_token_id": config.end_of_text, "eos_token_id": config.end_of_text} | (generation or {})
        (part / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
        text = model_card(config, sum(t.numel() for t in tensors.values()), card)
        (part / "README.md").write_text(text, encoding="utf-8")
        for name in TOKENIZER_FILES if tokenizer_dir else ():
            if (Path(tokenizer_dir) / name).exists():
                shutil.copyfile(Path(tokenizer_dir) / name, part / name)
        save_file(tensors, part / "model.safetensors", metadata={"format": "pt"})
        for path in [*part.iterdir(), part]:
            flush(path)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        part.rename(out)
        flush(out.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def read_config(source: str | Path) -> GPTConfig:
    """The architecture of a Hugging Face folder, hub name or run."""
    folder = locate(source)
    path = folder / "config.json"
    return our_config(read_json(path), str(path)) if path.exists() else run_settings(run_of(folder))[0]


def run_of(source: Path) -> Path:
    """The run that a checkpoint's folder belongs to; the folder itself where it is none."""
    return source.resolve().parents[1] if (source / "state.json").exists() else source


def run_settings(run: Path) -> tuple[GPTConfig, Path]:
    """Architecture and data folder of a run, from its args.json."""
    if not (run / "args.json").exists():
        raise InputError(f"{run} is neither a run (no args.json) nor a Hugging Face folder (no config.json)")
    args = read_json(run / "args.json")
    try:
        return GPTConfig(**args["model"]), Path(args["data"]).expanduser()
    except (KeyError, TypeError) as error:
        raise InputError(f"{run}/args.json is not that of a pretraining run: {error}") from None


def load_run(source: Path, dtype=None):
    """(GPT, tokenizer folder or None) of a run's newest checkpoint, or of the checkpoint whose folder this is."""
    import checkpoint
    import torch
    from model import GPT
    from shards import fingerprint, read_manifest, tokenizer_folder

    run = run_of(source)
    config, data = run_settings(run)
    saved = checkpoint.listing(run / "checkpoints") if run == source else [source]
    if not saved:
        raise InputError(f"{run} has no checkpoint yet; train longer or lower --save_every")
    model = GPT(config, dtype or torch.float32)
    checkpoint.load(saved[-1], model, [])
    data = data if data.is_absolute() else DATA.parent / data
    if not (data / "manifest.json").exists():
        return model, None
    manifest = read_manifest(data)
    if fingerprint(manifest, "train") != checkpoint.read_state(saved[-1])["identity"]["data"]:
        print(f"note: {data} has been encoded anew since {run} was trained, so its tokenizer may be another",
              file=sys.stderr)
        return model, None
    return model, tokenizer_folder(manifest)


def load_any(source: str | Path, dtype=None):
    """(GPT, folder with its tokenizer or None) of a run folder, a Hugging Face folder or a hub name."""
    folder = locate(source)
    if not (folder / "config.json").exists():
        return load_run(folder, dtype)
    return load(folder, dtype), folder if (folder / "tokenizer.json").exists() else None


def read_tokenizer(folder: Path | None, source: str | Path):
    """tokenizers.Tokenizer of the folder that load_any found for this source."""
    from tokenizers import Tokenizer

    if folder is None:
        raise InputError(f"{source} has no tokenizer.json beside it; convert.py --tokenizer adds one")
    path = folder / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the only type that tokenizers raises
        raise InputError(f"{path} cannot be read: {error}") from None


def main(settings: Settings):
    """Read one, write the other."""
    source = locate(settings.source)
    model, tokenizer = load_any(source)
    tokenizer = settings.tokenizer or tokenizer
    if tokenizer is not None and not (tokenizer / "tokenizer.json").exists():
        raise InputError(f"{tokenizer} has no tokenizer.json; give the tokenizer's folder with --tokenizer")
    tokens = read_tokenizer(tokenizer, settings.source).get_vocab_size() if settings.tokenizer else 0
    if tokens > model.config.vocab_size:
        raise InputError(f"--tokenizer {tokenizer} has {tokens:,} tokens, the model only {model.config.vocab_size:,}")
    export(model, tokenizer, settings.out, f"Converted from `{Path(settings.source).name}`.",
           generation=generation_settings(source))
    print(f"{architecture(model.config)} with {model.parameter_count():,} parameters -> {settings.out}"
          + ("" if tokenizer else "; no tokenizer found, give one with --tokenizer")
          + (f"; {DOCUMENT_MASK}" if model.config.document_mask else ""))


if __name__ == "__main__":
    run_command(main, lambda: read_settings(Settings, __doc__))
