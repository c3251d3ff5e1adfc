"""How every command here begins and ends: a user's mistake is one line on standard error and exit status 2."""

import os
import sys
from collections.abc import Callable

from staging import InputError


def status_of(command: Callable[[], object]) -> int:
    """Run a command; its exit status."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller; else the next file that is opened would take its place
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (for as long as we run)
    sys.stdout.reconfigure(errors="surrogateescape")  # names of files that are not UTF-8 are printed as they are
    try:
        try:
            command()
        finally:
            sys.stdout.flush()  # here, where it is known what to do if nobody reads on
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the files are as they were before", file=sys.stderr)
        return 130
    return 0
