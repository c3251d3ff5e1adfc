r"""Text in: files of any size, read in blocks, checked to be UTF-8, cut into documents.

.txt, .txt.gz    documents, each followed by a line `<|endoftext|>`; a file without such lines is one document
.jsonl, .jsonl.gz  one JSON object a line, the document in its field "text"
-                standard input, as .txt

    >>> Path("/tmp/two.txt").write_text("one\n<|endoftext|>\ntwo\nlines\n<|endoftext|>\n") and None
    >>> list(documents(Path("/tmp/two.txt"), Reading()))
    [(b'one', True), (b'two\nlines', True)]
"""

import gzip
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vocabulary import InputError, to_bytes

END_OF_TEXT = "<|endoftext|>"
NOT_TEXT = (".json", ".ndjson", ".parquet", ".csv", ".tsv")  # names of files whose texts have to be taken out first
NEWLINES = ("", "\n", "\r\n")
SEPARATORS = tuple(before + END_OF_TEXT + after for before in NEWLINES for after in NEWLINES)  # as in `documents`
BLOCK = 1 << 20  # bytes read at a time


@dataclass
class Reading:
    """How to read, and what was read so far."""

    errors: str = "strict"  # "replace" puts U+FFFD for each sequence that is not UTF-8
    replaced: int = 0  # such sequences so far
    documents: int = 0  # documents handed out
    size: int = 0  # their bytes


def refuse_swallowed(flag: str, values: Sequence[str]) -> None:
    """InputError, where files are missing, if the last value of a flag that takes several is a file."""
    if values and Path(values[-1]).is_file():
        given = " ".join(values)
        raise InputError(f"{flag} {given}: takes all words up to the next flag; put {values[-1]} before {flag}")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked if its name ends in .gz; InputError for one that is missing, damaged or no text."""
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the files in it ({path}/*)")
    if path.is_file() and path.name.lower().removesuffix(".gz").endswith(NOT_TEXT):
        raise InputError(
            f"{path}: holds texts among other things; take them out first:"
            f" python data/prepare.py file {path} --name NAME (then data/text/NAME); or take its bytes as they are:"
            f" cat {path} | ... -"
        )
    try:
        with gzip.open(path) if is_gzip(path) else open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged or cut off gzip file ({error})") from None


def is_stream(path: Path) -> bool:
    """Whether it can be read only once: standard input, a pipe such as <(...), a device."""
    return str(path) == "-" or (path.exists() and not path.is_file() and not path.is_dir())


def is_gzip(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.suffix.lower() == ".gz"


def is_jsonl(path: Path) -> bool:
    """Whether a file holds one JSON object a line."""
    return path.name.lower().removesuffix(".gz").endswith(".jsonl")


def blocks(path: Path, reading: Reading, size: int = BLOCK) -> Iterator[bytes]:
    """The file in blocks of about `size` bytes, cut between characters. InputError at a byte that is not UTF-8."""
    offset, rest = 0, b""  # rest: the beginning of a character whose other bytes are still to come
    with opened(path) as file:
        while read := file.read(size):
            block = rest + read
            cut = len(block) - _incomplete_character(block)
            rest = block[cut:]
            if cut:
                yield checked_utf8(block[:cut], f"{path}: byte", offset, reading)
            offset += cut
        if rest:
            yield checked_utf8(rest, f"{path}: byte", offset, reading)


def text_blocks(path: Path, reading: Reading, size: int = BLOCK) -> Iterator[bytes]:
    """As `blocks`; of .jsonl the documents, each followed by the line that would end it in a .txt."""
    if not is_jsonl(path):
        yield from blocks(path, reading, size)
        return
    text, size = bytearray(), max(size, 4)  # no character is longer
    for document, _ in documents(path, reading):
        text += document + f"\n{END_OF_TEXT}\n".encode()
        while len(text) > size:
            cut = size - _incomplete_character(text[:size])
            yield bytes(text[:cut])
            del text[:cut]  # cheap: CPython moves the start of a bytearray
    if text:
        yield bytes(text)


def _incomplete_character(block: bytes | bytearray) -> int:
    r"""How many bytes at the end begin a character that is longer: b"a\xe4\xb8" -> 2."""
    for n, byte in enumerate(reversed(block[-3:]), 1):
        if byte >= 0xC0:
            length = 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return n if length > n else 0
        if byte < 0x80:
            return 0
    return 0


def checked_utf8(data: bytes, place: str, offset: int, reading: Reading) -> bytes:
    """The same bytes if they are UTF-8; else InputError, or U+FFFD for each bad sequence, counted."""
    try:
        data.decode("utf-8")
        return data
    except UnicodeDecodeError as error:
        if reading.errors == "replace":
            present = data.count("\ufffd".encode())
            data = data.decode("utf-8", "replace").encode()
            reading.replaced += data.count("\ufffd".encode()) - present
            return data
        bad = data[error.start : error.end].hex(" ")
        message = f"{place} {offset + error.start:,} is not UTF-8 ({bad}); --errors replace puts U+FFFD in its place"
        raise InputError(message) from None


def documents(path: Path, reading: Reading) -> Iterator[tuple[bytes, bool]]:
    """(text, whether the document ends here): a long document comes in several parts. Empty ones are left out.

    The newlines that make `<|endoftext|>` a line of its own belong to the line, not to the documents.
    """
    parts = _json_lines(path, reading) if is_jsonl(path) else _separated(path, reading)
    for part, ends in parts:
        reading.size += len(part)
        reading.documents += ends
        yield part, ends


def _separated(path: Path, reading: Reading) -> Iterator[tuple[bytes, bool]]:
    separator = END_OF_TEXT.encode()
    margin = len(separator) + 2  # what a separator and its newline may need of the next block
    rest, open_document, after_separator = b"", False, False
    for block in blocks(path, reading):
        *complete, rest = (rest + block).split(separator)
        for part in complete:
            part = part.removesuffix(b"\r\n" if part.endswith(b"\r\n") else b"\n")
            part = _without_newline(part) if after_separator and not open_document else part
            if part or open_document:
                yield part, True
            open_document, after_separator = False, True
        if len(rest) > BLOCK:
            part, rest = rest[:-margin], rest[-margin:]
            cut = len(part) - _incomplete_character(part)
            part, rest = part[:cut], part[cut:] + rest
            yield (_without_newline(part) if after_separator and not open_document else part), False
            open_document = True
    rest = _without_newline(rest) if after_separator and not open_document else rest
    if rest or open_document:
        yield rest, True


def _without_newline(part: bytes) -> bytes:
    """Without the newline that ended the separator's line."""
    return part.removeprefix(b"\r\n" if part.startswith(b"\r\n") else b"\n")


def _json_lines(path: Path, reading: Reading) -> Iterator[tuple[bytes, bool]]:
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path}: line {number}"
            line = checked_utf8(line, f"{place}, byte", 0, reading)
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{place}, column {error.colno}: not JSON ({error.msg})") from None
            except (ValueError, RecursionError):
                raise InputError(f"{place}: JSON nested too deeply, or a number of thousands of digits") from None
            if not isinstance(record, dict) or not isinstance(record.get("text"), str):
                raise InputError(f'{place}: no field "text" with a string')
            part = checked_utf8(to_bytes(record["text"]), f"{place}: text, byte", 0, reading)
            if part:
                yield part, True


def file_bytes(paths: list[Path]) -> int:
    """Size on disk of all files (packed ones as they are), for progress; 0 for standard input."""
    return sum(path.stat().st_size for path in paths if path.is_file())
