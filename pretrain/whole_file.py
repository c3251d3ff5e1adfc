"""Small files that a crash leaves whole: the old one or the new one."""

import os
from pathlib import Path


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
