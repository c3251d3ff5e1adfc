"""From files to data/text, data/instructions or data/choices: reading, splitting, writing, reporting."""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kinds import (
    CHOICE_EXTRAS,
    CHOICE_FIELDS,
    INSTRUCTION_FIELDS,
    OTHER_FIELDS,
    WANTED,
    WHOLE_CHAT,
    TextSplit,
    as_instruction,
    choice_of,
    instruction_of,
    kind_of,
    text_of,
    write_array,
    write_lines,
    wrong_fields,
)
from readers import TEXT_SUFFIXES, Reading, records, suffix_of, text_documents
from staging import InputError, staging

OUTPUTS = {
    "text": ["text/{}"],
    "instructions": ["instructions/{}_train.json", "instructions/{}_val.json"],
    "choices": ["choices/{}.jsonl"],
}  # files, or folders of them


@dataclass
class Options:
    """What to make of the files; the flags of `prepare.py file` say what each means."""

    text_field: str = "text"
    val_share: float = 0.01
    val_records: int | None = None
    shuffle: bool = False
    marker_in_text: str = "refuse"
    bad_records: str = "refuse"
    chats: str = "first"
    max_bytes: float = float("inf")  # of training text; instructions and choices are taken whole
    reading: Reading = field(default_factory=Reading)


def detect_kind(path: Path, text_field: str) -> str:
    """Tell the kind by the file's first record; .txt files are text."""
    if suffix_of(path) in TEXT_SUFFIXES:
        return "text"
    columns = [text_field, *CHOICE_FIELDS, *sum(INSTRUCTION_FIELDS, ()), *OTHER_FIELDS]
    where, record = next(records(path, Reading(errors="replace"), columns), (None, None))
    if record is None:
        raise InputError(f"{path}: no record in it")
    kind = kind_of(record, text_field)
    if kind is None:
        wanted = "; or ".join(f"{fields} ({kind})" for kind, fields in WANTED.items())
        raise wrong_fields(where, record, f"{wanted}. If another field is the text: --text_field NAME")
    return kind


def refuse_own_outputs(kind: str, name: str, files: Iterable[Path], root: Path) -> None:
    """Raise InputError for a file that converting would replace: after that, what it was made from is gone."""
    outputs = [(root / output.format(name)).resolve() for output in OUTPUTS[kind]]
    for path in files:
        if any(path.resolve().is_relative_to(output) for output in outputs):
            raise InputError(f"{path}: --name {name} is written there itself; choose another --name")


def convert(
    kind: str, name: str, files: Iterable[Path], val_files: Iterable[Path], size: int, root: Path, options: Options
) -> None:
    """Write root/KIND/NAME... from `files` (iterated once, so they may be downloads) and print what was made.

    Given `val_files` are the validation side, and nothing else is; otherwise it is split off. `size`: bytes of all
    files, for the progress bar. Raises InputError for what is wrong in the files, OSError for a full disk and the
    like; then nothing has been written.
    """
    started = time.perf_counter()
    write = {"text": _write_text, "instructions": _write_instructions, "choices": _write_choices}[kind]
    with staging(root, f"{kind}/{name}") as folder, _progress_bar(size, name) as bar:
        options.reading.progress = bar.update
        counts = write(folder / kind / name, files, val_files, options)
        read = bar.n
    for path, count in counts.items():
        print(f"{root / path.relative_to(folder)}: {count}")
    for what, count in options.reading.noticed.items():
        print(f"note: {what}: {count:,}")
    seconds = time.perf_counter() - started
    print(f"{seconds:.1f} s, {read / 1e6 / seconds:.0f} MB/s of files read")


def _progress_bar(total: int, label: str):
    """Bytes read, on stderr; without a terminal at most a line in ten seconds."""
    from tqdm import tqdm

    interval = 0.2 if sys.stderr.isatty() else 10
    return tqdm(total=total, desc=label, unit="B", unit_scale=True, mininterval=interval, delay=interval)


def _write_text(base: Path, files: Iterable[Path], val_files: Iterable[Path], options: Options) -> dict[Path, str]:
    split = TextSplit(base, options.val_share, options.reading.noticed)
    held_out, trained_on = Counter(), set()  # hashes of documents of --val
    with split:
        side = path = None
        for path in val_files:
            side = "train"
            for document in _documents(path, options):
                split.add(document, "val")
                held_out[hash(document.strip())] += 1
        if side:
            split.require("val", path)
        for path in files:
            for document in _documents(path, options):
                split.add(document, side)
                if held_out and hash(document.strip()) in held_out:
                    trained_on.add(hash(document.strip()))
                if split.bytes["train"] >= options.max_bytes:
                    break
            if split.bytes["train"] >= options.max_bytes:
                break  # before the next file is downloaded
        if side:
            split.require("train", path)
        else:
            split.settle(str(path))
            held, wanted = split.bytes["val"] / split.bytes.total(), options.val_share
            if held > max(0.1, 3 * wanted) or held < wanted / 4:  # of few documents a book, or a note
                share = f"{100 * held:.2g}% of the text is held out, as documents stay whole"
                what = f"{share} (--separator '\\n\\n' makes shorter ones); documents held out"
                options.reading.noticed[what] = split.documents["val"]
    held_out.pop(hash(b""), None)  # nothing is the same as nothing
    if count := sum(held_out[n] for n in trained_on):
        options.reading.noticed["validation documents that are trained on as well"] = count
    return {
        base / f"{side}.txt": f"{split.documents[side]:,} documents, {split.bytes[side]:,} bytes"
        for side in ("train", "val")
    }


def _documents(path: Path, options: Options) -> Iterator[bytes]:
    reading, treat = options.reading, (options.text_field, options.marker_in_text, options.reading.noticed)
    if suffix_of(path) not in TEXT_SUFFIXES:
        for where, record in records(path, reading, [options.text_field]):
            yield from text_of(where, record, *treat)
    elif reading.separator == Reading.separator:
        yield from text_documents(path, reading)
    else:
        for number, document in enumerate(text_documents(path, reading), 1):
            yield from text_of(f"{path} document {number}", {options.text_field: document.decode()}, *treat)


def _records(
    paths: Iterable[Path], columns: tuple[str, ...], options: Options, check: Callable[[str, dict], dict]
) -> Iterator[dict]:
    """Records as `check` gives them. Of those that it refuses the first is named, the others counted."""
    count, bad, first = 0, 0, None
    for path in paths:
        if suffix_of(path) in TEXT_SUFFIXES:
            raise InputError(f"{path} is plain text; records come as .jsonl, .json or .parquet")
        for where, record in records(path, options.reading, list(columns)):
            count += 1
            try:
                checked = check(where, record)
            except InputError as error:
                bad, first = bad + 1, first or error
            else:
                yield checked
    if first and (bad == count or options.bad_records == "refuse"):
        some = f" ({bad:,} of {count:,} records are bad; --bad_records skip leaves them out)" if bad < count else ""
        raise InputError(f"{first}{some}")
    if first:
        options.reading.noticed[f"bad records left out, the first: {first}"] = bad


def _write_instructions(
    base: Path, files: Iterable[Path], val_files: Iterable[Path], options: Options
) -> dict[Path, str]:
    schema, left_out = None, Counter()

    def check(where: str, record: dict) -> dict:
        nonlocal schema
        seen = Counter()
        record = as_instruction(where, record, seen, whole_chats=options.chats == "whole")
        schema, kept = instruction_of(where, record, schema)
        options.reading.noticed.update(seen)
        left_out.update(name for name, value in record.items() if name not in kept and value not in (None, "", [], {}))
        return kept

    columns = ("input", "family", "check", *sum(INSTRUCTION_FIELDS, ()), *OTHER_FIELDS)
    val_files = list(val_files)
    val = list(_records(val_files, columns, options, check))
    train = list(_records(files, columns, options, check))
    if not train:
        raise InputError("no record in these files")
    if val_files and not val:
        raise InputError(f"{val_files[-1]}: no record in it to validate with")
    if options.shuffle:
        for records_of_a_side in (train, val):
            random.Random(0).shuffle(records_of_a_side)
    if val:
        val = val[: options.val_records]
    else:
        held_out = min(1000, max(1, len(train) // 10)) if options.val_records is None else options.val_records
        if not 0 < held_out < len(train):
            sizes = f"{len(train)} record(s) in all, {held_out} to hold out"
            raise InputError(f"{sizes}: training and validation need one each at least; --val_records N")
        train, val = train[:-held_out], train[-held_out:]
    _compare_sides(train, val, schema, options.reading.noticed)
    if left_out:  # of Parquet only the columns that are asked for are read
        names = ", ".join(f"{name} of {count:,}" for name, count in left_out.items())
        options.reading.noticed[f"fields of records, left out ({names})"] = len(left_out)
    sides = {base.with_name(f"{base.name}_{side}.json"): items for side, items in (("train", train), ("val", val))}
    for path, items in sides.items():
        write_array(path, items)
    return {path: f"{len(items):,} records ({' + '.join(items[0])})" for path, items in sides.items()}


def _compare_sides(train: list[dict], val: list[dict], schema: tuple[str, ...], noticed: Counter) -> None:
    """Notice validation questions that are trained on, and labels missing on one side (a file sorted by label)."""

    def question(record: dict) -> tuple[str, str]:
        if schema == WHOLE_CHAT:
            return json.dumps(record["messages"][:-1]), ""
        return record[schema[0]], record.get("input", "")

    known = {question(record) for record in train}
    noticed["validation records whose question is trained on as well"] += sum(question(r) in known for r in val)
    if schema[-1] == "label" and {r["label"] for r in train} != {r["label"] for r in val}:
        noticed["sides that lack a label (is the file sorted by label? --shuffle mixes it)"] += 1
    noticed += Counter()  # drops zeros


def _write_choices(base: Path, files: Iterable[Path], val_files: Iterable[Path], options: Options) -> dict[Path, str]:
    if list(val_files):
        raise InputError("a choices set is one file, all of it validation; leave --val out")
    path = base.with_name(f"{base.name}.jsonl")
    count = write_lines(path, _records(files, ("ind", *CHOICE_FIELDS, *CHOICE_EXTRAS), options, choice_of))
    if not count:
        raise InputError("no record in these files")
    return {path: f"{count:,} records"}
