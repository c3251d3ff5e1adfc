"""The C library's malloc, set for training on a CPU: it keeps what a step frees, in few holes (glibc; NOTES.md).

Elsewhere these functions do nothing.
"""

import ctypes
import os
import sys


def restart_without_caches():
    """Begin this program again, once, without malloc's cache for each thread, which can be chosen before a start only.

    Every freed block of some bytes that lies in the cache keeps its free neighbours apart, and a tensor fits into
    neither of them: a tenth of a run's peak. Where there is an NVIDIA GPU tensors lie elsewhere, and the cache stays.
    """
    on_cpu = sys.platform == "linux" and not os.path.exists("/dev/nvidiactl")
    called = bool(sys.executable) and sys.argv[0] in sys.orig_argv  # and not run by another program, within it
    if on_cpu and called and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.tcache_count=0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


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
