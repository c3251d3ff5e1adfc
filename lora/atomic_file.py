"""A file that is there whole or not at all."""

import os
from pathlib import Path


def write_atomically(path: Path, data):
    """Writes beside, flushes to disk, renames: the old file or the new one, never half of one.

    data: bytes, or a function that writes into the open file. Raises OSError naming the path.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            data(file) if callable(data) else file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save makes a RuntimeError of the disk's own
        reason = error.__context__ if isinstance(error, RuntimeError) else error
        if not isinstance(reason, OSError):
            raise
        raise OSError(reason.errno, reason.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
