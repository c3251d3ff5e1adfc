"""The cores that a process takes for itself beside others, and how commands end."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import loop
import pytest
import torch
import torch.distributed as dist
from presets import InputError
from world import failed_exchange, peak_flops, provenance

PRETRAIN = Path(__file__).resolve().parents[2] / "pretrain"
SHOW_THREADS = """
import sys
sys.path.insert(0, sys.argv[1])
import loop
assert "numba" not in sys.modules
world = loop.World("cpu", "float32", threads=int(sys.argv[2]), timeout=60)
import numba, torch
sys.stdout.write(f"{torch.get_num_threads()} {numba.config.NUMBA_NUM_THREADS}\\n")  # at once: two processes write
world.close()
"""


@pytest.mark.parametrize(("threads", "own", "expected"), [
    (2, None, "2 2"), (1, None, "1 1"), pytest.param(2, "3", "2 3", marks=pytest.mark.slow)])
def test_numba_takes_no_more_threads_than_pytorch(tmp_path, threads, own, expected):
    script = tmp_path / "show_threads.py"
    script.write_text(SHOW_THREADS)
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_NUM_THREADS"}
    environment |= {} if own is None else {"NUMBA_NUM_THREADS": own}
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script,
                           PRETRAIN, str(threads)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n")[:2] == [expected, expected]


@pytest.mark.parametrize("script", ["model.py", "account.py", "plot.py"])
def test_a_reader_that_leaves_early_ends_the_command_quietly(script):
    process = subprocess.Popen([sys.executable, PRETRAIN / script, "--help"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_the_measured_peak_is_not_the_first_product_that_makes_its_kernel(monkeypatch):
    clock = iter([0, 0, 1, 1, 1.002, 1.002, 1.003, 1.003, 1.005, 1.005, 1.007, 1.007])  # s; a product takes 1 ms
    monkeypatch.setattr("world.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    before = torch.get_rng_state()
    assert peak_flops(torch.device("cpu"), torch.float32) == pytest.approx(2 * 1024**3 / 1e-3)
    assert torch.equal(torch.get_rng_state(), before)  # which a resumed run has just set


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA A100-SXM4-80GB", 312),
                                            ("NVIDIA L4", 121), ("NVIDIA L40", None), ("NVIDIA RTX A1000", None)])
def test_the_peak_of_a_known_gpu_is_found_by_whole_words(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: 1 / 0)  # where the measurement would begin
    if peak:
        assert peak_flops(torch.device("cuda"), torch.bfloat16) == peak * 1e12
    else:
        with pytest.raises(ZeroDivisionError):
            peak_flops(torch.device("cuda"), torch.bfloat16)


def test_a_failed_exchange_is_told_from_other_errors():
    assert failed_exchange(RuntimeError("Connection closed by peer")) == "lost another one, whose own message tells why"
    assert "--timeout" in failed_exchange(RuntimeError("Timed out waiting 20000ms for send operation to complete"))
    assert failed_exchange(dist.DistBackendError("Duplicate GPU")).endswith("NCCL's is: Duplicate GPU")
    assert failed_exchange(RuntimeError("shape '[3]' is invalid")) is None


def test_nodes_that_see_different_folders_do_not_start():
    loop.same_step(4, 4.0)
    for step in (0, 4):
        with pytest.raises(InputError, match="--out must be one folder that every node sees"):
            loop.same_step(step, 2.0)


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance()["commit"] is None
