"""account.py against published parameter counts, the model itself, PyTorch's FLOP counter and measured peak memory."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from account import (
    BATCHES,
    DEVICES,
    RESERVE,
    Settings,
    forward_flops,
    largest_batch,
    measure,
    memory,
    padding,
    parameters,
    parse,
    report,
    show,
)
from model import GPT
from presets import PRESETS, GPTConfig, InputError
from pretrain_tiny import layers_of_pytorch

SMALL = {"n_layer": 3, "n_head": 4, "n_embd": 64, "block_size": 64, "vocab_size": 500}
LLAMA = {"norm": "rmsnorm", "position": "rope", "mlp": "swiglu", "bias": False}
SHAPES = {"gpt2": {}, "no-bias": {"bias": False}, "llama": LLAMA | {"qk_norm": True, "n_kv_head": 2, "tied": False},
          "post": {"norm_place": "post", "mlp": "relu2", "mlp_hidden": 100}, "wide": LLAMA | {"head_size": 32},
          "bare": {"norm": "none", "position": "none", "mlp": "silu"}}


@pytest.mark.parametrize(("preset", "count"), [  # transformers' GPT2LMHeadModel of the hub's configurations
    ("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200)])
def test_published_counts(preset, count):
    assert sum(parameters(PRESETS[preset].model).values()) == count


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_equal_the_model(name):
    config = GPTConfig(**SMALL | SHAPES[name])
    assert sum(parameters(config).values()) + padding(config) == GPT(config).parameter_count()


@pytest.mark.parametrize("name", SHAPES)
def test_flops_equal_pytorchs_counter(name):
    config = GPTConfig(**SMALL | SHAPES[name] | {"block_size": 300})
    counted = measure(config, 3, 300, "adamw", "float32")["flops"]  # more than one block of a CPU's attention
    assert counted == 3 * sum(forward_flops(config, 3, 300).values())


def test_model_and_account_agree_on_flops_per_token():
    """Exactly: only matrices count, biases and norms do not."""
    config = GPTConfig(**SMALL | {"n_embd": 256})
    counted = 3 * sum(forward_flops(config, 1, 64).values()) / 64
    assert GPT(config).flops_per_token(64) == counted


@pytest.mark.parametrize("B", [2, 16])
def test_memory_equals_a_measured_peak(B, monkeypatch):
    layers_of_pytorch(monkeypatch)
    config = GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=128, vocab_size=1000)
    measured = measure(config, B, 128, "adamw", "float32")["bytes"]
    assert sum(memory(config, B, 128, "adamw", "float32").values()) == pytest.approx(measured, rel=0.1)


def test_activations_equal_what_autograd_keeps(monkeypatch):
    """Bytes per block and token, from the difference between two and one blocks."""
    def kept(layers):
        model, sizes = GPT(dataclasses.replace(config, n_layer=layers)), {}
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        alive = []  # else the address of a freed tensor may come again

        def pack(tensor):
            alive.append(tensor)
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(tokens, tokens)
        return sum(sizes.values())

    layers_of_pytorch(monkeypatch)
    config = GPTConfig(**SMALL)
    tokens = torch.randint(500, (2, 64))
    shapes = [dataclasses.replace(config, n_layer=n) for n in (1, 2)]
    one, two = (memory(shape, 2, 64, "adamw", "float32")["activations"] for shape in shapes)
    assert two - one == pytest.approx(kept(2) - kept(1), rel=0.02)


def test_largest_batch_is_the_largest():
    config = PRESETS["gpt2-xl"].model
    for _, gigabytes in DEVICES.values():
        B = largest_batch(config, 1024, gigabytes, "adamw", "bfloat16")
        room = gigabytes * 1e9 * (1 - RESERVE)
        assert sum(memory(config, B + 1, 1024, "adamw", "bfloat16").values()) > room
        assert not B or sum(memory(config, B, 1024, "adamw", "bfloat16").values()) <= room


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_largest_batch_by_brute_force(optimizer):
    """Also where the chunk of logits is not yet full at the largest batch: GPT-2 large on 24 GB holds 5."""
    for preset, settings in PRESETS.items():
        config = dataclasses.replace(settings.model, vocab_size=settings.model.vocab_size or 4096)
        for _, gigabytes in DEVICES.values():
            room, B = gigabytes * 1e9 * (1 - RESERVE), 0
            while sum(memory(config, B + 1, 1024, optimizer, "bfloat16").values()) <= room:
                B += 1
            assert largest_batch(config, 1024, gigabytes, optimizer, "bfloat16") == B, (preset, gigabytes)
    assert largest_batch(PRESETS["gpt2-large"].model, 1024, 24, "adamw", "bfloat16") == 5


@pytest.mark.parametrize(("change", "message"), [
    ({"devices": 0}, "--devices 0"), ({"sequence": -5}, "--sequence -5"), ({"tokens": -1.0}, "--tokens -1"),
    ({"tokens": float("nan")}, "--tokens nan"), ({"mfu": 1.5}, "--mfu 1.5"),
    ({"sequence": 1025}, "--sequence 1025 is longer than --block_size 1024")])
def test_refusals(change, message):
    with pytest.raises(InputError, match=message):
        report(Settings(model=PRESETS["gpt2"].model, **change))


def test_the_last_preset_counts():
    assert parse(["--preset", "gpt2", "--preset=gpt2-large"]).model == PRESETS["gpt2-large"].model


def test_days():
    """6.6 x 1.56e9 FLOPs per token at T = 1024, by hand."""
    result = report(Settings(preset="gpt2-xl", model=PRESETS["gpt2-xl"].model, tokens=1e10, device="H100", devices=8))
    assert result["days"] == pytest.approx(1e10 * 1.0274e10 / (8 * 989e12 * 0.4) / 86400, rel=1e-3)
    with pytest.raises(InputError, match="--device TPU is unknown"):
        report(Settings(model=PRESETS["gpt2"].model, device="TPU"))


@pytest.mark.parametrize("preset, time", [("gpt2-xl", "9.4 days"), ("gpt2", "1.49 hours"), ("stories", "2.6 seconds")])
def test_time_in_a_unit_that_shows_it(capsys, preset, time):
    model = dataclasses.replace(PRESETS[preset].model, vocab_size=PRESETS[preset].model.vocab_size or 4096)
    settings = Settings(preset=preset, model=model)
    show(settings, report(settings))
    assert f" FLOPs: {time} on 1 x H100 at 40%" in capsys.readouterr().out


def test_command_line():
    script = Path(__file__).parents[2] / "pretrain" / "account.py"

    def run(*flags):
        return subprocess.run([sys.executable, script, *flags], capture_output=True, text=True)

    table = run().stdout
    assert "gpt2-xl: 1,557,611,200 parameters" in table
    assert "largest micro-batch" in table
    result = json.loads(run("--preset", "gpt2", "--n_layer", "6", "--json").stdout)
    assert result["total"] == 124_439_808 - 6 * 7_087_872
    assert list(map(int, result["memory"])) == list(BATCHES)
    failed = run("--preset", "stories")
    assert failed.returncode == 2
    assert "give --vocab_size" in failed.stderr


def test_gpt2_xl_fits_a_24_gb_gpu_with_an_optimizer_in_8_bits():
    config = PRESETS["gpt2-xl"].model
    assert [largest_batch(config, 1024, 24, "adamw", "bfloat16", bits) for bits in (32, 8)] == [0, 1]
    parts = {bits: memory(config, 1, 1024, "adamw", "bfloat16", bits)["optimizer"] for bits in (32, 8)}
    assert parts[8] / parts[32] == pytest.approx(0.2539, abs=1e-4)
