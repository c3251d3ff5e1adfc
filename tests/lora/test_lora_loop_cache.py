"""Who compiles the loops of fine-tuning: another process, once for each dtype."""

import subprocess

import loop_cache
import pytest
import torch


@pytest.fixture
def children(monkeypatch, tmp_path):
    """An empty cache, and a list of the dtypes that children were started for; each ends with the status in `ends`."""
    started, ends = [], [0]
    monkeypatch.setattr(loop_cache, "FOLDER", tmp_path)

    def run(command, **_):
        started.append(command[-1])
        return subprocess.CompletedProcess(command, ends[0])

    monkeypatch.setattr(subprocess, "run", run)
    return started, ends


def test_each_dtype_is_compiled_once_by_a_child(children, capsys):
    started, _ = children
    for dtype in (torch.bfloat16, torch.bfloat16, torch.float32, torch.bfloat16):
        loop_cache.prepare(dtype)
    assert started == ["bfloat16", "float32"]
    assert capsys.readouterr().err.count("compiling") == 2


def test_a_child_that_fails_is_started_again_next_time(children):
    started, ends = children
    for ends[0] in (1, 0, 0):
        loop_cache.prepare(torch.float32)
    assert started == ["float32", "float32"]


def test_without_a_folder_to_write_to_nothing_is_prepared(children, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert loop_cache.cache_folder() is None
    monkeypatch.setattr(loop_cache, "FOLDER", None)
    loop_cache.prepare(torch.float32)
    assert children[0] == []


def test_other_sources_or_another_numba_or_python_mean_another_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    folders = {loop_cache.cache_folder()}
    monkeypatch.setattr(loop_cache.numba, "__version__", "0")
    folders.add(loop_cache.cache_folder())
    monkeypatch.setattr(loop_cache, "SOURCES", loop_cache.SOURCES[:1])
    folders.add(loop_cache.cache_folder())
    monkeypatch.setattr(loop_cache.sys.implementation, "cache_tag", "cpython-39")
    folders.add(loop_cache.cache_folder())
    assert len(folders) == 4
