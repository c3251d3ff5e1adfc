"""Byte pair encoding, from text to tokens.

Without a command: train on a default text, verify the round trip, compare with GPT-2; needs no network, takes seconds.

python bpe/run.py COMMAND --help says what each command takes.
"""

import signal
import sys
from typing import Annotated

import tyro
from command_bench import Bench
from command_compare import Compare, Show
from command_demo import Demo
from command_encode import Decode, Encode
from command_train import Train
from tyro.conf import subcommand
from vocabulary import InputError

Command = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Encode, subcommand("encode")]
    | Annotated[Decode, subcommand("decode")]
    | Annotated[Compare, subcommand("compare")]
    | Annotated[Show, subcommand("show")]
    | Annotated[Bench, subcommand("bench")]
)


def main() -> None:
    """Run the command; a user's mistake is one line on standard error and status 2."""
    command = tyro.cli(Command, default=Demo(), description=__doc__, use_underscores=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that half-written files are removed
    try:
        sys.modules[type(command).__module__].run(command)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
