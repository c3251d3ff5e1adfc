"""The C library's malloc, set for training on a CPU: it keeps what a step frees, in few holes (glibc; NOTES.md).

Elsewhere these functions do nothing.
"""

import ctypes
import os
import platform
import sys


def restart_with_tunables():
    """Begin this program again, once, with what malloc can be told before a start only.

    No cache for each thread: every freed block of some bytes that lies there keeps its free neighbours apart, and a
    tensor fits into neither of them, a tenth of a run's peak. And huge pages for the whole heap (glibc 2.35): PyTorch's
    own way to them begins each tensor at one, and what lies before it is lost, another 4%. Where there is an NVIDIA GPU
    tensors lie elsewhere, and nothing is changed.
    """
    on_cpu = sys.platform == "linux" and not os.path.exists("/dev/nvidiactl")
    called = bool(sys.executable) and sys.argv[0] in sys.orig_argv  # and not run by another program, within it
    if on_cpu and called and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.tcache_count=0"
        if glibc_version() >= (2, 35):
            os.environ["GLIBC_TUNABLES"] += ":glibc.malloc.hugetlb=1"
            os.environ["THP_MEM_ALLOC_ENABLE"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def glibc_version() -> tuple[int, ...]:
    """E.g. (2, 36); () where the C library is another."""
    name, version = platform.libc_ver()
    return tuple(map(int, version.split("."))) if name == "glibc" else ()


def keep_freed_memory():
    """Let malloc keep what is freed: what a step gives back, the next would ask the system for, page by page."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # the numbers are from glibc's malloc.h
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for a large block
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never shrink the heap


def return_freed_memory():
    """Once, after the first pass: it left holes that no later one fills, 2 to 8% of a run's peak."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
