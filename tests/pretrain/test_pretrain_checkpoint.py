"""Checkpoints: exact round trip, nothing half-written after a full disk, pruning, damaged and hostile files."""

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import checkpoint
import pytest
import torch
from model import GPT
from optim import make_optimizers
from presets import InputError, Settings
from pretrain_tiny import ROOT, tiny_model


class Alone:
    """A world of one process."""

    main = True

    def agree(self, check, *args):
        return check(*args)


def trained(optimizer="muon", seed=0):
    torch.manual_seed(seed)
    model = GPT(tiny_model(vocab_size=61))
    optimizers = make_optimizers(model, Settings(optimizer=optimizer))
    for _ in range(2):
        model(torch.randint(61, (2, 16)), torch.randint(61, (2, 16))).backward()
        for o in optimizers:
            o.step()
        model.zero_grad()
    return model, optimizers


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_round_trip_is_exact(tmp_path, optimizer):
    model, optimizers = trained(optimizer)
    random = torch.get_rng_state()
    path = checkpoint.save(tmp_path, model, optimizers, {"step": 2, "progress": {}, "identity": {"x": 0.1}}, Alone())
    assert checkpoint.listing(tmp_path) == [path]
    assert checkpoint.read_state(path) == {"step": 2, "progress": {}, "identity": {"x": 0.1}}
    other, others = trained(optimizer, seed=5)
    checkpoint.load(path, other, others)
    assert torch.equal(torch.get_rng_state(), random)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    for one, two in zip(optimizers, others, strict=True):
        states = zip(one.state.values(), two.state.values(), strict=True)
        assert all(torch.equal(a[key], b[key]) for a, b in states for key in a)
    checkpoint.load(path, GPT(model.config), [])  # weights alone


def test_a_full_disk_leaves_the_last_good_one(tmp_path, monkeypatch):
    model, optimizers = trained()
    good = checkpoint.save(tmp_path, model, optimizers, {"step": 1}, Alone())
    before = {path.name: path.read_bytes() for path in good.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("flush", "write_text", "save_file"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, name, full)
            with pytest.raises(OSError, match="No space"):
                checkpoint.save(tmp_path, model, optimizers, {"step": 2}, Alone())
        assert os.listdir(tmp_path) == [good.name]
    assert {path.name: path.read_bytes() for path in good.iterdir()} == before


def test_a_disk_that_is_really_full(tmp_path):
    """A limit on the size of files makes the write itself fail, in the library that does it."""
    code = f"""
import sys, resource; sys.path[:0] = [{str(ROOT / "pretrain")!r}, {str(ROOT / "tests" / "pretrain")!r}]
import checkpoint, test_pretrain_checkpoint as t
from pathlib import Path
model, optimizers = t.trained()
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    checkpoint.save(Path({str(tmp_path / "c")!r}), model, optimizers, {{"step": 1}}, t.Alone())
except OSError as error:
    print("refused:", error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "refused: cannot write" in result.stdout, result.stderr[-2000:]
    assert os.listdir(tmp_path / "c") == []


def test_pruning_keeps_the_last_and_the_best(tmp_path):
    for step in (1, 2, 3, 4, 5):
        (tmp_path / f"step_{step:08d}").mkdir()
    for name in ("step_00000001.tmp", "step_00000006.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
    checkpoint.prune(tmp_path, keep=2, best="step_00000002")
    assert [path.name for path in checkpoint.listing(tmp_path)] == [f"step_{n:08d}" for n in (2, 4, 5)]
    assert len(os.listdir(tmp_path)) == 3


def test_damaged_and_hostile_checkpoints_are_refused(tmp_path):
    model, optimizers = trained()
    path = checkpoint.save(tmp_path, model, optimizers, {"step": 1}, Alone())
    weights = path / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-10])
    with pytest.raises(InputError, match="is damaged"):
        checkpoint.load(path, model, optimizers)

    marker = tmp_path / "executed"

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    weights.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(InputError, match="is damaged"):
        checkpoint.load(path, model, optimizers)
    torch.save({"model": Hostile()}, weights)
    with pytest.raises(InputError, match="is damaged"):
        checkpoint.load(path, model, optimizers)
    assert not marker.exists()
    weights.write_bytes(data)
    with pytest.raises(InputError, match=r"other parameters than this model: transformer.h.2"):
        checkpoint.load(path, GPT(tiny_model(vocab_size=61, n_layer=3)), [])


def test_differences_are_listed():
    assert checkpoint.differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == ["b: 2 -> 3", "c: None -> 4"]


def test_a_crash_while_a_checkpoint_is_replaced_leaves_one(tmp_path, monkeypatch):
    model, optimizers = trained()
    good = checkpoint.save(tmp_path, model, optimizers, {"step": 1, "progress": {}, "identity": 1}, Alone())
    rename, interrupted = Path.rename, OSError("at the rename")

    def fail(path, target):
        if path.suffix == ".tmp" and target.name == good.name:
            raise interrupted
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="at the rename"):
            checkpoint.save(tmp_path, model, optimizers, {"step": 1, "progress": {}, "identity": 2}, Alone())
    assert os.listdir(tmp_path) == [good.name]
    assert checkpoint.read_state(good)["identity"] == 1

    good.rename(good.with_suffix(".old"))  # the machine went down between the renames
    assert checkpoint.listing(tmp_path) == []
    checkpoint.recover(tmp_path)
    assert checkpoint.listing(tmp_path) == [good]
    good.with_suffix(".old").mkdir()  # and after them
    checkpoint.save(tmp_path, model, optimizers, {"step": 1, "progress": {}, "identity": 3}, Alone())
    checkpoint.recover(tmp_path)
    assert os.listdir(tmp_path) == [good.name]
    assert checkpoint.read_state(good)["identity"] == 3
