"""A program that starts itself again as the same process, once; memory that malloc keeps and gives back."""

import ctypes
import os
import subprocess
import sys

import malloc
import pytest

SCRIPT = """
import malloc, os, sys
malloc.restart_with_tunables()
print(os.getpid(), os.environ["GLIBC_TUNABLES"], os.environ.get("THP_MEM_ALLOC_ENABLE"), sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux" or os.path.exists("/dev/nvidiactl"), reason="on Linux without a GPU only")
@pytest.mark.parametrize("chosen", [None, "glibc.malloc.tcache_count=3"])
def test_the_program_starts_again_as_it_was_called(chosen):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment |= {"PYTHONPATH": os.path.dirname(malloc.__file__), "THP_MEM_ALLOC_ENABLE": "1"}
    environment |= {"GLIBC_TUNABLES": chosen} if chosen else {}
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", SCRIPT, "--out", "a b"], env=environment,
                          stdout=subprocess.PIPE, text=True) as process:
        text, _ = process.communicate(timeout=60)
    tunables, huge_pages = chosen or "glibc.malloc.tcache_count=0", "1"
    if not chosen and malloc.glibc_version() >= (2, 35):
        tunables, huge_pages = f"{tunables}:glibc.malloc.hugetlb=1", "0"
    assert text == f"{process.pid} {tunables} {huge_pages} ['--out', 'a b']\n"


def test_a_program_that_runs_it_is_not_started_again(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "argv", ["model.py"])  # as runpy does
    malloc.restart_with_tunables()
    assert "GLIBC_TUNABLES" not in os.environ


HOLES = """
import malloc, os
def held():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20  # MB
malloc.keep_freed_memory()
blocks = [b"x" * 2**20 for _ in range(100)]
before = held()
del blocks[::2]
kept = held()
malloc.return_freed_memory()
print(before - kept, before - held())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc's malloc only")
def test_freed_memory_is_kept_until_it_is_given_back():
    result = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True, timeout=60,
                            env={**os.environ, "PYTHONPATH": os.path.dirname(malloc.__file__)})
    kept, given = map(float, result.stdout.split())
    assert kept < 5
    assert 45 < given < 60
