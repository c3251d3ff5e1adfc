"""Reading text and records from local files: .txt, .jsonl, .json (each also .gz), Parquet, and folders of them.

Everything streams: memory is bounded by the largest document (512 MB at most), or by the file for a .json array.
A fault stops the reading with an InputError that names the file and the byte, line or row.

    for where, record in records(Path("a.jsonl"), Reading()): ...       # where = "a.jsonl line 1"
    for document in text_documents(Path("b.txt.gz"), Reading()): ...    # bytes, valid UTF-8, without the separator
"""

import codecs
import gzip
import json
import os
import shlex
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from staging import MARKER, InputError

TEXT_SUFFIXES = (".txt", ".txt.gz")
RECORD_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz", ".parquet")
_RENAME = " (rename plain text, such as Markdown, to .txt)"
LINE_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")  # a record a line, nothing else
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
CHUNK = 2**20  # bytes per read: 1 MiB
LARGEST_DOCUMENT = 512 * 10**6  # bytes
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass
class Reading:
    """How to read, and what was noticed on the way."""

    separator: str = MARKER  # what ends a document in .txt files
    errors: str = "strict"  # bytes that are not UTF-8: "strict" refuses them, "replace" writes U+FFFD
    progress: Callable[[int], Any] = lambda bytes_read: None  # called with the bytes of file read since the last call
    noticed: Counter = field(default_factory=Counter)  # what, in words -> how many


def suffix_of(path: Path) -> str:
    """Return the suffix by which the format is told: "a.b/C.TXT.gz" -> ".txt.gz"."""
    parts = path.name.lower().rsplit(".", 2)
    return "." + ".".join(parts[-2:]) if parts[-1] == "gz" and len(parts) == 3 else path.suffix.lower()


def find_files(paths: list[Path], noticed: Counter | None = None) -> list[Path]:
    """Expand folders (sorted by path, hidden files left out), each file once; refuse what is missing, empty or of no
    known format. Files of other formats in folders are left out, and counted in `noticed`.
    """
    known = TEXT_SUFFIXES + RECORD_SUFFIXES
    files = []
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(_files_below(path)) if p.is_file()]
            others = [p for p in inside if suffix_of(p) not in known]
            if len(others) == len(inside):
                raise InputError(f"{path}: no file in this folder ends in {', '.join(known)}{_RENAME}")
            if others and noticed is not None:
                what = f"files of other endings in {path}, left out; the first is {others[0].name}{_RENAME}"
                noticed[what] = len(others)
            files += [p for p in inside if suffix_of(p) in known]
        elif not path.exists():
            raise InputError(f"no such file: {path}")
        elif suffix_of(path) in TABLES:
            raise InputError(f"{path}: is a table; make JSON lines of its rows first: {_rows_of(path)} >rows.jsonl")
        elif suffix_of(path) not in known:
            raise InputError(f"{path}: the format is told by the ending, one of {', '.join(known)}{_RENAME}")
        else:
            files.append(path)
    files = list({path.resolve(): path for path in files}.values())  # in the order in which they came first
    for path in files:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty")
    return files


def _rows_of(path: Path) -> str:
    """A command line that prints the rows of a table as JSON, with the fields that its first line names."""
    show = f"{'gzip -dc' if path.name.lower().endswith('.gz') else 'cat'} {shlex.quote(str(path))}"
    head = next(_chunks(path, Reading()), b"").split(b"\n")[0].decode(errors="replace")
    between = max(",;\t", key=head.count)  # Excel writes semicolons where the comma is a decimal one, and a BOM
    given = "" if between == "," else f", delimiter={json.dumps(between)}"
    return (
        f"{show} | python -c 'import csv, json, sys; sys.stdin.reconfigure(encoding=\"utf-8-sig\", newline=\"\"); "
        f"[print(json.dumps(row)) for row in csv.DictReader(sys.stdin{given})]'"
    )


def _files_below(folder: Path) -> Iterator[Path]:
    """Give what lies in a folder and its subfolders, linked ones as well, each once; nothing hidden."""
    seen = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in names if not name.startswith("."))


def _chunks(path: Path, reading: Reading) -> Iterator[bytes]:
    """Bytes of a file, unpacked if it is gzip, a mebibyte at a time."""
    with path.open("rb") as raw:
        stream: BinaryIO = gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw
        position = 0
        try:
            while chunk := stream.read(CHUNK):
                reading.progress(raw.tell() - position)
                position = raw.tell()
                yield chunk
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged gzip file ({error}); get it again") from None


def _pieces(path: Path, separator: bytes, reading: Reading) -> Iterator[tuple[int, bytes]]:
    """Cut a file at each separator: (offset in the file, bytes). Blanks after the last one are nothing."""
    rest, offset = bytearray(), 0  # what is not cut yet, and where in the file it begins
    for chunk in _chunks(path, reading):
        searched = max(0, len(rest) - len(separator) + 1)
        rest += chunk
        while (end := rest.find(separator, searched)) >= 0:
            yield offset, bytes(rest[:end])
            del rest[: end + len(separator)]  # cheap: CPython moves the start of a bytearray
            offset += end + len(separator)
            searched = 0
        if len(rest) > LARGEST_DOCUMENT:
            raise InputError(
                f"{path}: no {separator.decode()!r} in {LARGEST_DOCUMENT // 10**6} MB from byte {offset:,} on; "
                "name what separates documents, for example --separator '\\n\\n'"
            )
    if rest.strip():
        yield offset, bytes(rest)


def _decode(piece: bytes, path: Path, offset: int, reading: Reading) -> str:
    """Decode UTF-8; `offset` is where in the (unpacked) file the piece begins."""
    try:
        return piece.decode()
    except UnicodeDecodeError as error:
        if reading.errors == "strict":
            unpacked = " of the unpacked text" if path.name.lower().endswith(".gz") else ""
            utf16 = piece[:2] in UTF16_MARKS
            advice = "convert it: iconv -f UTF-16 -t UTF-8" if utf16 else "--errors replace writes U+FFFD"
            byte = f"byte {offset + error.start:,}{unpacked} is 0x{piece[error.start]:02X}"
            raise InputError(f"{path}: not UTF-8, {byte}; {advice}") from None
    faults = 0

    def replace(error: UnicodeError) -> tuple[str, int]:
        nonlocal faults
        faults += 1
        return "\ufffd", error.end

    codecs.register_error("counted", replace)
    text = piece.decode("utf-8", "counted")
    reading.noticed["faults in UTF-8, now U+FFFD"] += faults
    return text


def text_documents(path: Path, reading: Reading) -> Iterator[bytes]:
    """Documents of a .txt(.gz) file: UTF-8, not stripped, the last one with or without a separator after it."""
    for offset, piece in _pieces(path, reading.separator.encode(), reading):
        if offset == 0:
            piece = piece.removeprefix(codecs.BOM_UTF8)
        text = _decode(piece, path, offset, reading)
        yield piece if reading.errors == "strict" else text.encode()


def records(path: Path, reading: Reading, columns: list[str] | None = None) -> Iterator[tuple[str, dict]]:
    """Records of a .jsonl (or .ndjson), .json or Parquet file, each with the words that say where it stands.

    `columns` spares Parquet the others. A .json file is an array of objects, or JSON lines.
    """
    if suffix_of(path) == ".parquet":
        items = _parquet_rows(path, reading, columns)
    elif suffix_of(path) not in LINE_SUFFIXES and _is_array(path):
        items = _array_items(path, reading)
    else:
        items = _json_lines(path, reading)
    for where, item in items:
        if not isinstance(item, dict):
            raise InputError(f"{where}: wanted an object with named fields, found {type(item).__name__}")
        yield where, item


def _is_array(path: Path) -> bool:
    first = next(_chunks(path, Reading()), b"").removeprefix(codecs.BOM_UTF8)
    return first.lstrip()[:1] == b"["


def _parse(text: str, where: str, hint: str = "") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f", line {error.lineno}" if error.lineno > 1 else ""
        raise InputError(f"{where}{place}, column {error.colno}: not JSON ({error.msg}){hint}") from None
    except RecursionError:
        raise InputError(f"{where}: JSON nested too deeply") from None
    except ValueError:  # Python's guard against numbers that take quadratic time to read
        raise InputError(f"{where}: a whole number of more than {sys.get_int_max_str_digits()} digits") from None


def _json_lines(path: Path, reading: Reading) -> Iterator[tuple[str, Any]]:
    is_lines = suffix_of(path) in LINE_SUFFIXES
    hint = "" if is_lines else "; a .json file holds an array of objects, or one object a line"
    for number, (offset, line) in enumerate(_pieces(path, b"\n", reading), 1):
        if offset == 0:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            where = f"{path} line {number}"
            yield where, _parse(_decode(line, path, offset, reading), where, hint)


def _array_items(path: Path, reading: Reading) -> Iterator[tuple[str, Any]]:
    content = b"".join(_chunks(path, reading)).removeprefix(codecs.BOM_UTF8)
    for number, item in enumerate(_parse(_decode(content, path, 0, reading), str(path)), 1):
        yield f"{path} record {number}", item


def _parquet_rows(path: Path, reading: Reading, columns: list[str] | None) -> Iterator[tuple[str, dict]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            present = [name for name in columns or [] if name in file.schema_arrow.names]
            per_row = path.stat().st_size / max(1, file.metadata.num_rows)
            number = 0
            for batch in file.iter_batches(batch_size=512, columns=present or None):
                reading.progress(int(per_row * len(batch)))
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:  # a date, a byte that Python refuses
        raise InputError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
