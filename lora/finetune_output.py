"""What is saved for use: the adapter in PEFT's format, the model as a Hugging Face folder."""

import shutil
from pathlib import Path

from adapters import adapter_of, install_adapter, save_adapter
from finetune_model import load_base
from finetune_settings import Settings, shareable

from lora import convert_lora_to_linear_layer, merge_lora


def save_results(s: Settings, model, tokenizer, folder: Path, base_hash: str):
    """The adapter in the run folder and in adapter_out; the whole model in model_out (in full fine-tuning always)."""
    if not s.use_lora:
        save_model(model, tokenizer, s.model_out or folder / "model")
        return
    adapter = adapter_of(model, shareable(s.model_name_or_path), base_hash)
    for place in filter(None, (folder / "adapter", s.adapter_out)):
        save_adapter(adapter, place, model)
    if s.model_out:  # into the base as it is stored, not as it was rounded for training
        base = load_base(s.model_name_or_path, "auto", trust_remote_code=s.trust_remote_code)
        merged = convert_lora_to_linear_layer(merge_lora(install_adapter(base, adapter)))
        save_model(merged, tokenizer, s.model_out)


def save_model(model, tokenizer, place):
    """A Hugging Face folder; complete or absent, because it is written beside and then renamed."""
    place = Path(place)
    beside = place.with_name(f"{place.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    attention, model.config.use_cache = model.config._attn_implementation, True
    model.set_attn_implementation("sdpa")  # not the name of our own, which nobody else has
    model.save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    model.set_attn_implementation(attention)
    model.config.use_cache = False
    if place.exists():
        shutil.rmtree(place)
    beside.rename(place)
