"""Tiny models, a tokenizer and records, made once per session: nothing comes from the network."""

import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import finetune_model  # noqa: F401  (silences transformers)
import loop_cache
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

torch.set_num_threads(1)
NAMES, ANIMALS = ["Tom", "Mia", "Ben", "Lily"], ["cat", "dog", "fox", "bear", "owl"]
RECORDS = [
    {
        "instruction": f"Write about a {animal}.",
        "input": f"{name} is here" if i % 3 else "",
        "output": f"{name} saw a {animal}. " * (1 + i % 4) + "The end.",
    }
    for i, (name, animal) in enumerate((name, animal) for name in NAMES for animal in ANIMALS)
] * 2


def build_model(kind: str, vocabulary: int = 320, seed: int = 0, bias: bool = False):
    """A random model, two blocks of width 32: gpt2 (Conv1D, tied head), llama (Linear, free head) or qwen3 (tied)."""
    torch.manual_seed(seed)
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary,
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=128,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
    options = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attention_bias": bias,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**options, mlp_bias=bias, tie_word_embeddings=False))
    return Qwen3ForCausalLM(Qwen3Config(**options, head_dim=8, tie_word_embeddings=True))


def randomise_adapter(model, seed: int = 1):
    """B is zero at the start: give it values, so that a test sees the branch."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_left" in name or "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.fixture(scope="session", autouse=True)
def compiled_loops():
    """Compiled by another process, as in a run: the tests here and the commands that they start round alike."""
    loop_cache.prepare(torch.float32)


@pytest.fixture
def make_model():
    return build_model


@pytest.fixture
def randomise():
    return randomise_adapter


@pytest.fixture(scope="session")
def tokenizer():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(
        (" ".join(record.values()) for record in RECORDS),
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory, tokenizer):
    """A folder per kind, as AutoModelForCausalLM reads it."""
    root = tmp_path_factory.mktemp("models")
    for kind in ("gpt2", "qwen3"):
        build_model(kind, len(tokenizer)).save_pretrained(root / kind)
        tokenizer.save_pretrained(root / kind)
    return root


@pytest.fixture(scope="session")
def records_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "records.json"
    path.write_text(json.dumps(RECORDS))
    return path


@pytest.fixture
def records():
    return [dict(record) for record in RECORDS]
