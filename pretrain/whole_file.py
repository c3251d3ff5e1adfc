"""Small files, written so that a crash leaves the old one or the new one, and read, packed ones too."""

import gzip
import os
import zlib
from pathlib import Path

from presets import InputError


def write_text(path: Path, text: str):
    """Write a small file so that a crash leaves the old or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, "utf-8")
    flush(temporary)
    temporary.rename(path)


def flush(path: Path):
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked if its name ends in .gz; InputError for one that is damaged."""
    content = path.read_bytes()
    try:
        return gzip.decompress(content) if path.suffix.lower() == ".gz" else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}") from None
