"""How the loops of this folder are compiled: by numba, for one fixed signature each, kept on disk afterwards.

`kernel(signature)` compiles a function when its module is imported (seconds the first time, then milliseconds from
the cache; a line on standard error says so), without the GIL so that threads run side by side. `helper`s are called by
kernels, `inlined` functions become part of them. The cache lies in the first writable of $NUMBA_CACHE_DIR, this
folder's __pycache__, the user's cache directory; without any, kernels are compiled in memory each time.

numba counts the references to an array, with two atomic instructions for each function that it is handed to: three
fifths of the time of counting pieces, four fifths of merging. Functions that make no array do without (`_nrt=False`);
those that do, or take a str, are `counted`.

numba notices a change of the file that holds a kernel but not of a function it calls from another file, so the
directory's name carries a hash of all files below.
"""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import numba

SOURCES = ("compiled.py", "bit_masks.py", "utf8.py", "scanner.py", "scanner_o200k.py", "word_table.py", "merging.py",
           "ranked_merges.py", "coding.py")
SECONDS = {"scanner": 4, "word_table": 4, "merging": 6, "coding": 5}  # to compile on a 2024 core, for the message


def writable_cache() -> Path | None:
    """First cache directory that can be written to, made if need be; None if there is none."""
    folder = Path(__file__).resolve().parent
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in SOURCES)).hexdigest()
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for base in [Path(chosen)] if chosen else [folder / "__pycache__", user / "bpe"]:
        directory = base / f"numba-{digest[:16]}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=directory):
                return directory
        except OSError:
            continue
    return None


CACHE = writable_cache()
if CACHE is not None:
    numba.config.CACHE_DIR = str(CACHE)
announced: set[str] = set()
READ_ONLY_BYTES = "Array(uint8, 1, 'C', readonly=True)"  # in signatures: takes any uint8[::1], also a view of `bytes`


def announce(module: str) -> None:
    """Say once for each module that compiling takes a while, unless it is in the cache."""
    if module in announced:
        return
    announced.add(module)
    if CACHE is None or not any(CACHE.rglob(f"{module}.*.nbi")):
        where = "kept on disk" if CACHE else "no writable cache directory, set NUMBA_CACHE_DIR to keep it"
        print(
            f"bpe: compiling {module}.py for this machine, about {SECONDS.get(module, 1)} s ({where})",
            file=sys.stderr,
            flush=True,
        )


def kernel(signature: str, counted: bool = False):
    """Decorator: compile for this signature at once, run without the GIL, cache on disk."""

    def compile_now(function):
        announce(function.__module__)
        options = {"nogil": True, "error_model": "numpy", "_nrt": counted, "cache": CACHE is not None}
        return numba.njit(signature, **options)(function)

    return compile_now


inlined = numba.njit(forceinline=True, error_model="numpy", _nrt=False)
helper = numba.njit(nogil=True, error_model="numpy", _nrt=False)
counted_helper = numba.njit(nogil=True, error_model="numpy")
