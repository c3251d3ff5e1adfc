"""Runs that end early: kill -9 at any moment, also in a write, SIGTERM, Ctrl-C; the same numbers to the last bit."""

import json
import os
import random
import shutil
import signal
import time

import pytest
from pretrain_tiny import checkpoint_bytes, make_shards, metrics, run, start, tiny_settings

# bf16 too: the same path as the presets take on a CPU that has it
SETTINGS = {"max_steps": 60, "save_every": 7, "eval_every": 20, "dtype": "bfloat16", "z_loss": 1e-4,
            "dropout": 0.1}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The uninterrupted run, and its data."""
    folder = tmp_path_factory.mktemp("reference")
    data = make_shards(folder / "data")
    settings = tiny_settings(data, folder / "run", **SETTINGS)
    run(settings)
    return data, metrics(settings.out), checkpoint_bytes(settings.out)


def wait_for_step(out, step, process):
    """Wait until the run's log has this step."""
    deadline = time.time() + 120
    while time.time() < deadline:
        if (out / "metrics.jsonl").exists() and f'{{"step": {step},' in (out / "metrics.jsonl").read_text():
            return
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1][-2000:])
        time.sleep(0.002)
    raise AssertionError("the run is too slow")


@pytest.mark.parametrize("kills", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_kill_at_random_moments(reference, tmp_path, kills):
    data, losses, weights = reference
    settings = tiny_settings(data, tmp_path / "run", **SETTINGS)
    moments = random.Random(kills)
    for number in range(kills):
        process = start(settings)
        wait_for_step(settings.out, min(55, 10 + 50 * number // kills), process)
        time.sleep(moments.random() * 0.05)
        process.kill()
        process.communicate()
    run(settings)
    assert metrics(settings.out) == losses
    assert checkpoint_bytes(settings.out) == weights


def test_a_start_before_the_first_checkpoint_leaves_nothing_in_the_log(reference, tmp_path):
    data, losses, _ = reference
    settings = tiny_settings(data, tmp_path / "run", **SETTINGS)
    settings.out.mkdir()
    (settings.out / "metrics.jsonl").write_text('{"step": 0, "time": 0.0, "val_loss": 9.0}\n')
    run(settings)
    lines = [json.loads(line) for line in (settings.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["val_loss"] < 9 for line in lines if line["step"] == 0] == [True]
    assert metrics(settings.out) == losses


def test_kill_during_a_checkpoint_write(reference, tmp_path):
    data, losses, weights = reference
    settings = tiny_settings(data, tmp_path / "run", **SETTINGS)
    folder = settings.out / "checkpoints"
    process = start(settings)
    while not (folder / "step_00000007").exists() or not list(folder.glob("*.tmp")):
        assert process.poll() is None
        time.sleep(0.0005)
    process.kill()
    process.communicate()
    if not list(folder.glob("*.tmp")):  # too late by a hair: make what the kill would have left
        newest = sorted(folder.glob("step_*"))[-1]
        shutil.copytree(newest, folder / "step_00000099.tmp")
        (folder / "step_00000099.tmp" / "model.safetensors").write_bytes(b"half")
    run(settings)
    assert metrics(settings.out) == losses
    assert checkpoint_bytes(settings.out) == weights
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_finish_the_step_and_save(reference, tmp_path, number, status):
    data, losses, weights = reference
    settings = tiny_settings(data, tmp_path / "run", **SETTINGS)
    process = start(settings)
    wait_for_step(settings.out, 10, process)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors[-2000:]
    assert f"stopped by signal {int(number)} after step" in errors
    stopped_at = max(metrics(settings.out))
    assert (settings.out / "checkpoints" / f"step_{stopped_at:08d}").exists()
    run(settings)
    assert metrics(settings.out) == losses
    assert checkpoint_bytes(settings.out) == weights
