"""The machine code of the CPU's loops: kept on the disk, made by a process of its own.

    prepare(torch.bfloat16)       # before a run: what is not there yet is compiled

A process that compiles a parallel loop does not run the code that it writes to numba's cache. It runs the loop's body
as first optimised, while whoever reads the cache runs it as optimised once more with its caller, where sums round
differently (numba 0.68: one number in some thousands, in its last bit). A run whose first process compiles would differ
from one that finds the code there, and so from itself once it is resumed. Hence a child process compiles, and all
others load the same code.

numba tells by path, time and size whether a file has changed, and looks at the one that holds the loop only, not at a
function that it calls from another: the name of the cache's folder is a hash of all that, for all the files, and of
the versions of Python and numba.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import llvmlite.binding
import numba

SOURCES = ("cpu_loops.py", "loop_cache.py")


def cache_folder() -> Path | None:
    """The first that can be written to: in $NUMBA_CACHE_DIR, beside this file, in the user's cache; or None."""
    here = Path(__file__).resolve().parent
    files = [(str(here / name), (here / name).stat()) for name in SOURCES]
    key = [sys.implementation.cache_tag, numba.__version__, llvmlite.binding.get_host_cpu_name(),
           *((path, stat.st_mtime_ns, stat.st_size) for path, stat in files)]
    name = f"numba-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
    chosen, user = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    for base in [chosen] if chosen else [here / "__pycache__", Path(user) / "lora"]:
        folder = Path(base) / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return None


FOLDER = cache_folder()
# Reorder sums and contract to fused multiply-add, but keep NaN and infinity: the loss must show them.
FAST = {"reassoc", "contract", "arcp", "nsz"}
# prange is the only parallel construct meant; not looking for others halves the time of compiling.
PRANGE = dict.fromkeys(("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion"), False)


def loop(function, parallel=PRANGE):
    """Decorator: compile at the first call, for the types of its arguments, and keep the code in FOLDER."""
    if FOLDER is not None:
        numba.config.CACHE_DIR = str(FOLDER)  # read now; another folder's loops may have set it meanwhile
    return numba.njit(parallel=parallel, fastmath=FAST, cache=FOLDER is not None, nogil=True)(function)


def prepare(dtype):
    """See to it that the loops for this dtype lie in the cache. Where none can be written each process has its own."""
    if FOLDER is None:
        return
    name = str(dtype).removeprefix("torch.")
    done = FOLDER / f"{name}.done"
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of a run compile once
        if done.exists():
            return
        print("compiling the loops for this CPU, once: some ten seconds", file=sys.stderr, flush=True)
        child = subprocess.run([sys.executable, __file__, name], stderr=subprocess.DEVNULL, check=False)
        if child.returncode == 0:  # else this process compiles too, and shows what is wrong
            done.touch()


def run_all(dtype):
    """Run every loop on a few numbers, as training does."""
    import torch
    from cpu_loops import Gate, RMSNorm, add_rows_, causal_softmax_, causal_softmax_backward_, cross_entropy_

    x, weight = torch.ones(2, 8, dtype=dtype, requires_grad=True), torch.ones(8, dtype=dtype, requires_grad=True)
    RMSNorm.apply(Gate.apply(x, 1.0, 0.0), weight, 1e-6).backward(torch.ones_like(x))
    places = torch.zeros(2, dtype=torch.long)
    cross_entropy_(torch.ones(2, 8, dtype=dtype), places, True)
    if dtype == torch.bfloat16:  # attention in fp32 is PyTorch's
        scores, grad = torch.ones(2, 4, 4, dtype=dtype), torch.ones(2, 4, 4, dtype=dtype)
        causal_softmax_(scores, 1.0, None)
        causal_softmax_backward_(scores, grad, 1.0, None)
        add_rows_(torch.zeros(2, 4, 4, dtype=dtype), places, grad[:, :2].contiguous())
        Gate.apply(torch.ones(1, 8), 1.0, 0.0)  # fused_operations.py tries it out in fp32


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    run_all(getattr(torch, sys.argv[1]))
