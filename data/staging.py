"""Writing files so that nothing half-written is ever seen: into a hidden folder first, moved into place at the end.

    with staging(root, "text/tinystories") as folder:      # folder = root/text/.tinystories.tmp
        (folder / "text/tinystories/train.txt").write_text("...")

After the block every file below `folder` lies below `root` under the same relative path. An exception, Ctrl-C or
a full disk inside the block leaves `root` as it was. The folder is locked: a second run for the same output is
refused. What a killed run left behind is removed by the next one.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARKER = "<|endoftext|>"  # the line that ends a document in data/text


class InputError(ValueError):
    """A user's mistake: the message names the file or value and what to do about it."""


@contextmanager
def staging(root: Path, output: str) -> Iterator[Path]:
    """Give an empty folder beside `output` ("kind/name", relative to `root`); publish its files on success.

    Raises InputError when another run holds the folder, OSError when a file cannot be written.
    """
    folder = root / Path(output).parent / f".{Path(output).name}.tmp"
    lock = _lock(folder, output)
    try:
        for left_over in folder.iterdir():
            shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
        yield folder
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in files:
            _to_disk(path)
        for path in files:
            _move(path, root / path.relative_to(folder))
    except OSError as error:
        error.filename = error.filename or str(root / output)  # a full disk does not say where
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path, output: str) -> int:
    """Open and lock `folder`, made if need be. Another run may remove it between the two: then try again."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = -1
        try:
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(folder)):
                return handle
            os.close(handle)
        except FileNotFoundError:
            if handle >= 0:
                os.close(handle)
        except BlockingIOError:
            os.close(handle)
            raise InputError(f"another run is writing {output} just now (it holds {folder}); wait for it") from None


def _to_disk(path: Path) -> None:
    path.chmod(0o644)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _move(source: Path, target: Path) -> None:
    """Rename, also where data/models or so is a link to another disk (then: copied beside the target, renamed)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{target.name}.tmp")
        try:
            shutil.copyfile(source, beside)
            _to_disk(beside)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
