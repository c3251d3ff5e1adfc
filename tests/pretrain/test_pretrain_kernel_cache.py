"""Who compiles the loops of pretraining: another process, once for each dtype."""

import subprocess

import kernel_cache
import pytest
import torch
from pretrain_tiny import checkpoint_bytes, make_shards, metrics, run, tiny_settings


@pytest.fixture
def children(monkeypatch, tmp_path):
    """An empty cache, and a list of the dtypes that children were started for; each ends with the status in `ends`."""
    started, ends = [], [0]
    monkeypatch.setattr(kernel_cache, "FOLDER", tmp_path)

    def run(command, **_):
        started.append(command[-1])
        return subprocess.CompletedProcess(command, ends[0])

    monkeypatch.setattr(subprocess, "run", run)
    return started, ends


def test_each_dtype_is_compiled_once_by_a_child(children, capsys):
    started, _ = children
    for dtype in (torch.bfloat16, torch.bfloat16, torch.float32, torch.bfloat16):
        kernel_cache.prepare(dtype)
    assert started == ["bfloat16", "float32"]
    assert capsys.readouterr().err.count("compiling") == 2


def test_a_child_that_fails_is_started_again_next_time(children):
    started, ends = children
    for ends[0] in (1, 0, 0):
        kernel_cache.prepare(torch.float32)
    assert started == ["float32", "float32"]


def test_without_a_folder_to_write_to_nothing_is_prepared(children, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert kernel_cache.cache_folder() is None
    monkeypatch.setattr(kernel_cache, "FOLDER", None)
    kernel_cache.prepare(torch.float32)
    assert children[0] == []


def test_other_sources_or_another_numba_or_python_mean_another_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    folders = {kernel_cache.cache_folder()}
    monkeypatch.setattr(kernel_cache.numba, "__version__", "0")
    folders.add(kernel_cache.cache_folder())
    monkeypatch.setattr(kernel_cache, "SOURCES", kernel_cache.SOURCES[:1])
    folders.add(kernel_cache.cache_folder())
    monkeypatch.setattr(kernel_cache.sys.implementation, "cache_tag", "cpython-39")
    folders.add(kernel_cache.cache_folder())
    assert len(folders) == 4


@pytest.mark.slow
def test_the_run_that_compiles_gives_the_same_bits(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    data, results = make_shards(tmp_path / "data"), []
    for name in ("compiles", "finds"):
        settings = tiny_settings(data, tmp_path / name, max_steps=60, dtype="bfloat16", z_loss=1e-4)
        run(settings)
        results.append((metrics(settings.out), checkpoint_bytes(settings.out)))
    assert results[0] == results[1]
