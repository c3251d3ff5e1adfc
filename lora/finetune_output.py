"""What is saved for use: the adapter in PEFT's format, the model as a Hugging Face folder; with either, in a file of
its own that other programs do not read, the template of the prompts it was trained on.
"""

import json
import shutil
from pathlib import Path

from adapters import adapter_of, install_adapter, save_adapter, write_atomically
from finetune_model import load_base
from finetune_settings import TEMPLATES, InputError, Settings, shareable

from lora import convert_lora_to_linear_layer, merge_lora

TEMPLATE = "prompt_template.json"


def save_results(s: Settings, model, tokenizer, folder: Path, base_hash: str):
    """The adapter in the run folder and in adapter_out; the whole model in model_out (in full fine-tuning always)."""
    if not s.use_lora:
        save_model(model, tokenizer, s.model_out or folder / "model", s.template)
        return
    adapter = adapter_of(model, shareable(s.model_name_or_path), base_hash)
    for place in filter(None, (folder / "adapter", s.adapter_out)):
        save_adapter(adapter, place, model)
        save_template(Path(place), s.template)
    if s.model_out:  # into the base as it is stored, not as it was rounded for training
        base = load_base(s.model_name_or_path, "auto", trust_remote_code=s.trust_remote_code)
        merged = convert_lora_to_linear_layer(merge_lora(install_adapter(base, adapter)))
        save_model(merged, tokenizer, s.model_out, s.template)


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
    except (ValueError, KeyError, TypeError):
        template = None
    if template not in TEMPLATES:
        raise InputError(f"{path}: names no template; expected {{\"template\": one of {', '.join(TEMPLATES)}}}")
    return template


def save_model(model, tokenizer, place, template: str):
    """A Hugging Face folder; complete or absent, because it is written beside and then renamed."""
    place = Path(place)
    beside = place.with_name(f"{place.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    attention, model.config.use_cache = model.config._attn_implementation, True
    model.set_attn_implementation("sdpa")  # not the name of our own, which nobody else has
    model.save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    save_template(beside, template)
    model.set_attn_implementation(attention)
    model.config.use_cache = False
    if place.exists():
        shutil.rmtree(place)
    beside.rename(place)
