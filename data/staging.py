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
    lock, ready = _lock(folder, output), []
    try:
        for left_over in folder.iterdir():
            shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
        yield folder
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in files:
            _to_disk(path)
        targets = [root / path.relative_to(folder) for path in files]
        for path, target in zip(files, targets, strict=True):  # all, before the first is replaced
            ready.append(_beside(path, target))
        for path, target in zip(ready, targets, strict=True):
            path.replace(target)
    except OSError as error:
        error.filename = error.filename or str(root / output)  # a full disk does not say where
        raise
    finally:
        for path in ready:
            path.unlink(missing_ok=True)
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


def _beside(source: Path, target: Path) -> Path:
    """Move a file beside its target, or copy it where that is another disk (data/models is a link, or so)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.tmp")
    try:
        source.replace(beside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        try:
            shutil.copyfile(source, beside)
            _to_disk(beside)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    return beside
