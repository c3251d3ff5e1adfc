"""Replace a folder as a whole: whoever looks, and whenever the writer is killed, sees the old one or the new one."""

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from vocabulary import InputError


@contextlib.contextmanager
def replacing(folder: Path, is_ours: Callable[[str], bool], last: str) -> Iterator[Path]:
    """Hands out an empty folder beside `folder`; when the block ends without error the two change places.

    Files in the old folder that are not ours (`is_ours(name)`) move into the new one. `last` is the file that makes
    the others count: where a system cannot exchange two folders, files are replaced one by one, that one last.
    After an error the old folder is as it was.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; a folder is needed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.parent / f".{folder.name}.tmp"
    if beside.exists():  # a writer was killed
        _keep_others(beside, folder, is_ours)
    beside.mkdir()
    try:
        yield beside
        names = sorted(os.listdir(beside), key=lambda name: name == last)
        for path in (*(beside / name for name in names), beside):
            fsync(path)
        if not folder.exists():
            os.rename(beside, folder)
        elif not _exchange(beside, folder):
            for name in names:
                os.replace(beside / name, folder / name)
        fsync(folder.parent)
    finally:
        if beside.exists():
            _keep_others(beside, folder, is_ours)


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep_others(beside: Path, folder: Path, is_ours: Callable[[str], bool]) -> None:
    for entry in list(beside.iterdir()) if folder.is_dir() else ():
        if not is_ours(entry.name) and not (folder / entry.name).exists():
            os.rename(entry, folder / entry.name)
    shutil.rmtree(beside)


def _exchange(a: Path, b: Path) -> bool:
    """Let two paths change places, atomically; False where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform.startswith("linux") else None
    at_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of man 2 renameat2; glibc >= 2.28
    return renameat2 is not None and renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), exchange) == 0
