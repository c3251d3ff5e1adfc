"""Replace a folder or a file as a whole: whoever looks, whenever the writer is killed, sees the old or the new one."""

import contextlib
import ctypes
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vocabulary import InputError


@contextlib.contextmanager
def replacing(folder: Path, is_ours: Callable[[str], bool], last: str) -> Iterator[Path]:
    """Hands out an empty folder beside `folder`; when the block ends without error the two change places.

    Files in the old folder that are not ours (`is_ours(name)`) are in the new one too, and at no moment in neither.
    `last` is the file that makes the others count: where folders cannot change places, files are replaced one by one,
    that one last. After an error the old folder is as it was. InputError while another process replaces it.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; a folder is needed")
    refuse_unwritable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.parent / f".{folder.name}.tmp"
    with _only_writer(folder):
        if beside.exists():  # a writer was killed
            _keep_others(beside, folder, is_ours)
        beside.mkdir()
        try:
            yield beside
            names = sorted(os.listdir(beside), key=lambda name: name == last)
            alike = folder.exists() and _make_alike(beside, folder, is_ours)
            for path in (*(beside / name for name in names), beside):
                fsync(path)
            if not folder.exists():
                os.rename(beside, folder)
            elif not (alike and _exchange(beside, folder)):
                for name in names:
                    os.replace(beside / name, folder / name)
                for entry in folder.iterdir():
                    if is_ours(entry.name) and entry.name not in names:
                        entry.unlink()
            fsync(folder.parent)
        finally:
            if beside.exists():
                _keep_others(beside, folder, is_ours)


@contextlib.contextmanager
def replacing_file(path: Path, inputs: Iterable[Path] = ()) -> Iterator[Path]:
    """Hands out the name of a file beside `path`; when the block ends without error it takes the place of `path`.

    InputError for a device, pipe or folder, for one of the `inputs`, where nothing can be written, and while another
    process writes it.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no file that could be replaced; choose another name")
    if path.resolve() in (other.resolve() for other in inputs):
        raise InputError(f"{path}: is one of the inputs; choose another file to write")
    refuse_unwritable(path)
    path = path.resolve()  # not the link, but what it leads to
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    with _only_writer(path):
        try:
            yield beside
            fsync(beside)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def refuse_unwritable(path: Path) -> None:
    """InputError if nothing can be written in the place of a file or folder. Tried, for permissions are not all."""
    path = path.resolve()
    if path.is_dir() and not os.access(path, os.W_OK):  # it could be exchanged, but not taken away then
        raise InputError(f"{path}: is read-only; make it writable, or choose another folder")
    parent = next((parent for parent in path.parents if parent.exists()), path)
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise InputError(f"{path}: {parent} cannot be written to ({error.strerror}); choose another place") from None


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _only_writer(output: Path) -> Iterator[None]:
    """InputError if another process is here for the same output. One that is killed leaves a file, but no lock."""
    path = output.parent / f".{output.name}.lock"
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = os.path.samestat(os.fstat(file.fileno()), path.stat())  # not one that its writer has just removed
        except (BlockingIOError, FileNotFoundError):
            locked = False
        if not locked:
            raise InputError(f"{output}: another run is writing it just now; wait for it, or choose another one")
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(output)  # a full disk does not say where
            raise
        finally:
            path.unlink()


def _make_alike(beside: Path, folder: Path, is_ours: Callable[[str], bool]) -> bool:
    """Give `beside` the folder's permissions and links to the files that are not ours; whether it can take its place.

    It cannot where a subfolder is to stay, or where we stand: a shell would go on in a folder that is no more.
    """
    if Path.cwd().is_relative_to(folder):
        return False
    try:
        for entry in folder.iterdir():
            if not is_ours(entry.name):
                os.link(entry, beside / entry.name, follow_symlinks=False)
    except OSError:  # a folder, another's file, or a file system without links
        return False
    shutil.copystat(folder, beside)
    return True


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
