"""Byte pair encoding, from text to tokens.

Without a command: train on a default text, verify the round trip, compare with GPT-2; needs no network, takes seconds.

python bpe/run.py COMMAND --help says what each command takes.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Annotated

from vocabulary import InputError


def parsed():
    """The command's settings. Imports take a moment: they are here so that Ctrl-C is understood meanwhile."""
    import tyro
    from command_bench import Bench
    from command_compare import Compare, Show
    from command_demo import Demo
    from command_encode import Decode, Encode
    from command_export import Export
    from command_train import Train
    from tyro.conf import subcommand

    command = (
        Annotated[Demo, subcommand("demo")]
        | Annotated[Train, subcommand("train")]
        | Annotated[Encode, subcommand("encode")]
        | Annotated[Decode, subcommand("decode")]
        | Annotated[Export, subcommand("export")]
        | Annotated[Compare, subcommand("compare")]
        | Annotated[Show, subcommand("show")]
        | Annotated[Bench, subcommand("bench")]
    )
    return tyro.cli(command, default=Demo(), description=__doc__, use_underscores=True)


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """How every command begins and ends: a user's mistake is one line on standard error and status 2."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller; else the next file that is opened would take its place
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (for as long as we run)
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="surrogateescape")  # names of files that are not UTF-8 are printed as they are
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, where it is known what to do if nobody reads on
    except InputError as error:
        sys.exit(_complain(str(error)))
    except ModuleNotFoundError as error:
        sys.exit(_complain(f"{error}; first `source .venv/bin/activate`, or `pip install -r requirements.txt`"))
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        sys.exit(_complain(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
    except MemoryError as error:
        sys.exit(_complain(": ".join(filter(None, ("not enough memory", str(error))))))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def main() -> None:
    """Run the command."""
    with orderly():
        command = parsed()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that half-written files are removed
        sys.modules[type(command).__module__].run(command)


if __name__ == "__main__":
    main()
