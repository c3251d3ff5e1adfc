"""What is saved for use: the adapter in PEFT's format, the model as a Hugging Face folder; with either, in a file of
its own that other programs do not read, the template of the prompts it was trained on.
"""

import json
import os
import shutil
from pathlib import Path

from adapter_files import save_adapter
from adapters import adapter_of, install_adapter
from atomic_file import write_atomically
from finetune_model import load_base
from finetune_settings import TEMPLATES, InputError, Settings, run_folder, shareable
from packed_attention import own_attention

from lora import convert_lora_to_linear_layer, merge_lora

TEMPLATE = "prompt_template.json"


def check_places(s: Settings):
    """Refuses, before anything is trained, an output that would take the place of something else or cannot be made."""
    for name in ("adapter_out", "model_out"):
        if getattr(s, name):
            writable_parent(Path(getattr(s, name)), f"--{name}")
    if s.adapter_out and Path(s.adapter_out).exists() and not Path(s.adapter_out).is_dir():
        raise InputError(f"--adapter_out {s.adapter_out} is a file; give a folder")
    if s.adapter_out and Path(s.adapter_out, "config.json").exists():  # transformers would load both at once
        raise InputError(f"--adapter_out {s.adapter_out} holds a model; give another folder")
    if not s.model_out:
        return
    place = Path(s.model_out).resolve()
    others = {"the base model": s.model_name_or_path, "--adapter_out": s.adapter_out, "the run": run_folder(s, "")}
    for name, other in others.items():  # a new model replaces its folder, with all that is in it
        if other and Path(other).resolve().is_relative_to(place):
            raise InputError(f"--model_out {s.model_out} is the folder of {name} itself, or around it; give another")
    names = {path.name for path in place.iterdir()} if place.is_dir() else set()
    ours = {"config.json", TEMPLATE} <= names and not any(path.is_dir() for path in place.iterdir())
    if place.exists() and not ours and not (place.is_dir() and not names):
        raise InputError(f"--model_out {s.model_out} holds something else than a model of lora/train.py; give another")


def writable_parent(path: Path, flag: str):
    """Makes the folder that a result is to lie in; refuses one that cannot be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(f"{flag} {path}: its folder cannot be made: {reason}") from None
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{flag} {path}: {path.parent} cannot be written to; give another place")


def save_results(s: Settings, model, tokenizer, folder: Path, base_hash: str, template: str):
    """The adapter in the run folder and in adapter_out; the whole model in model_out (in full fine-tuning always)."""
    if not s.use_lora:
        save_model(model, tokenizer, s.model_out or folder / "model", template)
        return
    adapter = adapter_of(model, shareable(s.model_name_or_path), base_hash)
    for place in filter(None, (folder / "adapter", s.adapter_out)):
        save_adapter(adapter, place, model)
        save_template(Path(place), template)
    if s.model_out:  # into the base as it is stored, not as it was rounded for training
        base = load_base(s.model_name_or_path, "auto", trust_remote_code=s.trust_remote_code)
        merged = convert_lora_to_linear_layer(merge_lora(install_adapter(base, adapter)))
        save_model(merged, tokenizer, s.model_out, template)


def save_template(folder: Path, template: str):
    """Writes down which template a model or adapter was trained with."""
    write_atomically(folder / TEMPLATE, (json.dumps({"template": template}) + "\n").encode())


def load_template(folder) -> str | None:
    """The template that a model or adapter was trained with; None where its folder does not say."""
    path = Path(folder) / TEMPLATE
    if not path.exists():
        return None
    try:
        template = json.loads(path.read_text(encoding="utf-8"))["template"]
    except (ValueError, KeyError, TypeError, RecursionError):
        template = None
    if template not in TEMPLATES:
        raise InputError(f"{path}: names no template; expected {{\"template\": one of {', '.join(TEMPLATES)}}}")
    return template


def save_model(model, tokenizer, place, template: str):
    """A Hugging Face folder: written beside, then renamed; an earlier one goes when the new one stands. Raises OSError
    naming the folder.
    """
    place = Path(place).resolve()
    beside, old = place.with_name(f".{place.name}.tmp"), place.with_name(f".{place.name}.old")
    shutil.rmtree(beside, ignore_errors=True)
    model.config.use_cache = True
    try:
        with own_attention(model):  # packed attention has a name that nobody else knows
            model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        save_template(beside, template)
    except Exception as error:  # safetensors and tokenizers have errors of their own for a full disk
        shutil.rmtree(beside, ignore_errors=True)
        raise OSError(f"{place} could not be written: {error}") from error
    model.config.use_cache = False
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
    beside.rename(place)
    shutil.rmtree(old, ignore_errors=True)
