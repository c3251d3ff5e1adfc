"""The command in one process: losses that must not change, refusals, what it writes, side effects it must not have."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time

import evaluate
import loop
import pytest
import torch
import torch.nn.functional as F
from model import GPT
from pretrain_tiny import MODEL, flags, make_shards, metrics, tiny_model, tiny_settings
from shards import Split


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data with a space"))


class Alone:
    rank, size, main, device = 0, 1, True, torch.device("cpu")

    def sum(self, *numbers):
        return list(numbers)


def main(settings, capsys):
    """Exit status and standard error of the command, run in this process."""
    status = loop.main(settings)
    return status, capsys.readouterr().err


# First, fifth and tenth loss in fp32; a refactoring must not change them.
GOLDEN = {"llama muon": [4.14542, 3.83009, 3.65650], "gpt2 adamw": [4.13262, 3.87054, 3.71068]}


@pytest.mark.parametrize("name", ["llama muon", "gpt2 adamw"])
def test_golden_losses(name, data, tmp_path, capsys):
    model = tiny_model() if "llama" in name else tiny_model(mlp="gelu", norm="layernorm", position="learned",
                                                            qk_norm=False, bias=True, zero_init=False)
    settings = tiny_settings(data, tmp_path / "run", model, optimizer=name.split()[1])
    status, _ = main(settings, capsys)
    assert status == 0
    losses = metrics(tmp_path / "run")
    assert [losses[step] for step in (1, 5, 10)] == pytest.approx(GOLDEN[name], abs=2e-3)
    assert losses[1] == pytest.approx(4.11, abs=0.05)  # ln(61)
    validation = metrics(tmp_path / "run", "val_loss")
    assert list(validation) == [0, 4, 5, 8, 10]
    assert validation[10] < validation[0] - 0.1


def test_what_a_run_leaves(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", max_steps=9)
    status, text = main(settings, capsys)
    assert status == 0
    assert "128 tokens per step = 2 sequences x 16 tokens x 4 micro-steps x 1 processes" in text
    arguments = json.loads((settings.out / "args.json").read_text())
    assert arguments["model"]["vocab_size"] == 61
    assert arguments["torch"] == torch.__version__
    assert {"commit", "seed", "total_batch"} <= arguments.keys()
    names = {path.name for path in (settings.out / "checkpoints").iterdir()}
    assert names == {"step_00000008", "step_00000009"}
    line = json.loads((settings.out / "metrics.jsonl").read_text().splitlines()[1])
    assert {"step", "time", "loss", "lr", "norm", "tokens_per_s", "mfu", "epoch"} <= line.keys()
    assert list(settings.out.glob("events.out.tfevents*"))
    again = main(settings, capsys)  # nothing left to do
    assert again[0] == 0
    assert list(metrics(settings.out)) == list(range(1, 10))


def test_settings_are_saved_without_home_paths(monkeypatch, tmp_path):
    from runlog import plain

    monkeypatch.setenv("HOME", str(tmp_path))
    saved = plain({"out": tmp_path / "runs", "data": MODEL.parents[1] / "data" / "tokens"})
    assert saved == {"out": "~/runs", "data": "data/tokens"}


def test_validation_is_complete_and_exact(data):
    torch.manual_seed(0)
    model = GPT(tiny_model(vocab_size=61))
    split = Split(data, "val")
    tokens = torch.from_numpy(split.read(0, split.tokens))
    for limit in (0, 77, 16):
        targets = (limit or split.tokens - 1)
        nats = 0.0
        for start in range(0, targets, 16):
            x, y = tokens[start:start + 16], tokens[start + 1:min(start + 17, targets + 1)]
            nats += F.cross_entropy(model(x[None, :len(y)])[0], y, reduction="sum").item()
        for micro_batch in (1, 3):
            state = torch.get_rng_state()
            result = evaluate.validation_loss(model, split, 16, micro_batch, limit, Alone())
            assert torch.equal(state, torch.get_rng_state())
            assert result["val_tokens"] == targets
            assert result["val_loss"] == pytest.approx(nats / targets, rel=1e-5)
            assert result["val_bpb"] == pytest.approx(nats / targets / 0.6931472 / 3, rel=1e-5)


REFUSALS = [
    ({"total_batch": 100}, "nearest that are: 96 or 128"),
    ({"total_batch": 2048}, r"split 'train' holds 1,600 tokens, one step takes 2,048"),
    ({"model": tiny_model(vocab_size=60)}, "--vocab_size 60 is below the data's 61"),
    ({"max_steps": 0}, "--max_steps 0 needs --minutes"),
    ({"dropout": 1.0}, "a share from 0 to below 1"),
    ({"keep_activations": 1.5}, "a share from 0 to 1"),
    ({"keep_activations": 0.5}, "below 1 with --compile"),  # the tiny settings do not compile
    ({"device": "cuda"}, "PyTorch sees no CUDA device"),
    ({"fsdp": True}, "torchrun"),
    ({"prompt": "Once"}, r"tokenizer.json, the tokenizer of .* is missing"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSALS, ids=[next(iter(c)) for c, _ in REFUSALS])
def test_mistakes_are_refused(data, tmp_path, capsys, changes, message):
    if "device" in changes and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    status, text = main(tiny_settings(data, tmp_path / "run", **changes), capsys)
    assert status == 2
    assert re.search(message, text), text
    assert "Traceback" not in text
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_damaged_shard_is_refused_before_the_first_step(tmp_path, capsys):
    folder = make_shards(tmp_path / "data")
    shard = folder / "val_000000.npy"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    status, text = main(tiny_settings(folder, tmp_path / "run"), capsys)
    assert status == 2
    assert "val_000000.npy has another sha256" in text
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_resume_with_other_settings_lists_the_differences(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", max_steps=2)
    assert main(settings, capsys)[0] == 0
    other = tiny_settings(data, tmp_path / "run", tiny_model(n_layer=3), total_batch=64)
    status, text = main(other, capsys)
    assert status == 2
    assert "model.n_layer: 2 -> 3" in text
    assert "total_batch: 128 -> 64" in text
    elsewhere = make_shards(tmp_path / "other data", seed=9)
    status, text = main(dataclasses.replace(settings, data=elsewhere), capsys)
    assert status == 2
    assert "data: [" in text
    status, text = main(dataclasses.replace(settings, resume="never"), capsys)
    assert status == 2
    assert "--resume auto" in text


def test_two_runs_in_one_folder(data, tmp_path, capsys):
    from world import claim

    lock = claim(tmp_path / "run")
    status, text = main(tiny_settings(data, tmp_path / "run"), capsys)
    assert status == 2
    assert "another run is writing to" in text
    lock.close()
    assert main(tiny_settings(data, tmp_path / "run", max_steps=1), capsys)[0] == 0


def test_a_loss_that_is_not_finite_stops_before_the_update(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", save_every=1, lr=1e38, optimizer="adamw", clip=0.0, warmup=0.0)
    status, text = main(settings, capsys)
    assert status == 3
    assert "no update was made. Sequences 8 to 15" in text
    assert [path.name for path in (settings.out / "checkpoints").iterdir()] == ["step_00000001"]


def test_spikes_are_reported_and_skipped_on_demand(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop, "spike", lambda loss, losses, deviations: len(losses) == 3)
    for name, skip in (("reported", 0.0), ("skipped", 5.0)):
        settings = tiny_settings(data, tmp_path / name, max_steps=6, skip_spikes=skip)
        status, text = main(settings, capsys)
        assert status == 0
        assert "step 4: loss" in text
        assert "is a spike, sequences 24 to 31" in text
        assert ("update skipped" in text) == bool(skip)
    reported, skipped = metrics(tmp_path / "reported"), metrics(tmp_path / "skipped")
    assert reported[4] == skipped[4]
    assert reported[5] != skipped[5]


def test_what_counts_as_a_spike():
    losses = [3.0 + 0.1 * (-1) ** i for i in range(30)]
    assert not loop.spike(3.3, losses, 6.0)
    assert loop.spike(3.7, losses, 6.0)
    assert not loop.spike(9.0, losses[:10], 6.0)


def test_time_budget(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", max_steps=0, minutes=0.02, eval_every=0, save_every=0)
    began = time.perf_counter()
    assert main(settings, capsys)[0] == 0
    assert 1.0 < time.perf_counter() - began < 30
    lines = [json.loads(line) for line in (settings.out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["time"] >= 1.2
    assert loop.fraction(settings, loop.Progress(step=7), seconds=0.3) == pytest.approx(0.25)  # the schedule's clock
    both = dataclasses.replace(settings, max_steps=10)
    assert loop.fraction(both, loop.Progress(step=7), seconds=0.3) == pytest.approx(0.8)


@pytest.mark.parametrize("document_mask", [False, True])
def test_the_switches_train_in_bfloat16(data, tmp_path, capsys, document_mask):
    model = tiny_model(document_mask=document_mask, n_kv_head=1)
    settings = tiny_settings(data, tmp_path / "run", model, dtype="bfloat16", z_loss=1e-4, schedule="wsd")
    assert main(settings, capsys)[0] == 0
    losses = metrics(settings.out)
    assert losses[10] < losses[1] - 0.1


def test_help_is_quick_and_complete():
    before = os.times()
    result = subprocess.run([sys.executable, str(MODEL), "--preset", "gpt2", "--help"], capture_output=True, text=True,
                            check=True)
    after = os.times()  # CPU seconds, not those of the clock: the machine may be busy
    assert after.children_user + after.children_system - before.children_user - before.children_system < 2
    assert "524288" in result.stdout
    assert "learning rate" in result.stdout
    bad = subprocess.run([sys.executable, str(MODEL), "--preset", "gpt3"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "--preset gpt3 is unknown; there are gpt2" in bad.stderr


def test_flags_reach_the_settings(tmp_path):
    from presets import parse

    settings = tiny_settings(tmp_path / "d", tmp_path / "o", skip_spikes=2.5)
    assert dataclasses.replace(parse("", flags(settings)), preset="tiny") == settings
