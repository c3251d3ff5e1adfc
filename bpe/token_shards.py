"""Text to token shards for pretraining: {train,val}_000000.npy and manifest.json, in bounded memory.

Every document is followed by the end-of-text id. A folder with train.* and val.* files keeps that split; of plain files
every k-th document goes to val. The shards are 1-d uint16 (uint32 above 65,536 tokens), np.load(mmap_mode="r")-able.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from folder_swap import replacing
from text_files import END_OF_TEXT, Reading, documents, is_stream
from vocabulary import InputError, Vocabulary

# train.txt, val_07.jsonl.gz
TEXT_NAME = re.compile(r"(train|val)([._-]?\d+(-of-\d+)?)?\.(txt|jsonl)(\.gz)?", re.IGNORECASE)
ANY_TEXT_NAME = re.compile(r".+\.(txt|jsonl)(\.gz)?", re.IGNORECASE)
SHARD_NAME = re.compile(r"(train|val)_\d{6,}\.npy")


@dataclass
class Source:
    """Where the documents of one split come from: all of the files, or a share of them, or all but that share."""

    files: list[Path]
    share: Fraction = Fraction(1)  # the share 1/k takes every k-th document
    taken: bool = True  # the share, or all the others

    def __call__(self, reading: Reading, allowed: str = END_OF_TEXT) -> Iterator[bytes]:
        """Blocks of text, each document closed by `allowed`; InputError where a document contains it."""
        closing = allowed.encode()
        number = 0  # of the document, over all files
        top, bottom = self.share.as_integer_ratio()
        for path in self.files:
            first = number
            before = b""  # the end of the document so far, where `allowed` may have begun
            for part, ends in documents(path, reading):
                if ((number + 1) * top // bottom > number * top // bottom) == self.taken:
                    if closing in part or closing in before + part[: len(closing)]:
                        raise InputError(_contains(path, allowed, number - first + 1))
                    yield part + closing if ends else part
                else:
                    reading.size -= len(part)
                    reading.documents -= ends
                number += ends
                before = b"" if ends else (before + part[-len(closing) :])[-len(closing) :]


def _contains(path: Path, end_of_text: str, number: int) -> str:
    instead = (
        f"python data/prepare.py file {path} --name NAME --marker_in_text break (or split) takes it out"
        if end_of_text == END_OF_TEXT
        else "choose another --end_of_text"
    )
    what = f"{end_of_text!r}, which must only end documents (number {number} of those with text)"
    return f"{path}: a document contains {what}; {instead}"


def sources(inputs: list[Path], val_fraction: float) -> dict[str, Source]:
    """The splits of a folder with train.* and val.* files, or of single files; InputError for anything else.

    Texts of the folder under other names are named on standard error.
    """
    if len(inputs) == 1 and inputs[0].is_dir():
        folder = inputs[0]
        found = {}
        for path in sorted(path for path in folder.iterdir() if TEXT_NAME.fullmatch(path.name)):
            if path.with_name(f"{path.name}.gz").exists():
                raise InputError(f"{path}: lies beside {path.name}.gz, its text would count twice; remove one of them")
            found.setdefault(TEXT_NAME.fullmatch(path.name)[1].lower(), Source([])).files.append(path)
        names = "train.txt (or train_0.txt, train_1.txt ...; .jsonl; either with .gz)"
        if "train" not in found:
            raise InputError(f"{folder}: has no {names}")
        texts = sorted(path.name for path in folder.iterdir() if ANY_TEXT_NAME.fullmatch(path.name))
        others = [name for name in texts if not TEXT_NAME.fullmatch(name)]
        if others:
            print(f"{folder}: left out {', '.join(others)}; read are {names}, and the same of val", file=sys.stderr)
        return found
    if not 0 <= val_fraction <= 0.5:
        raise InputError(f"--val_fraction {val_fraction}: must be at least 0 and at most 0.5")
    share = Fraction(str(val_fraction)).limit_denominator(10**9)  # 0.3333333333333333 is meant to be 1/3
    if share == 0:
        return {"train": Source(inputs)}
    stream = next(filter(is_stream, inputs), None)
    if stream:
        raise InputError(f"{stream}: can be read only once, not again for val; give --val_fraction 0, or a file")
    return {"train": Source(inputs, share, taken=False), "val": Source(inputs, share, taken=True)}


class TokenFile:
    """A 1-d .npy file that grows: numpy leaves room in the header for the length, so it is written again at the end."""

    def __init__(self, path: Path, dtype: str):
        self.file, self.dtype, self.tokens = open(path, "wb+"), np.dtype(dtype), 0  # noqa: SIM115 (close() closes)
        self._header()

    def append(self, ids: np.ndarray) -> None:
        """Write ids after those that are there."""
        self.file.write(ids.astype(self.dtype).tobytes())
        self.tokens += len(ids)

    def _header(self) -> None:
        self.file.seek(0)
        description = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.tokens,)}
        np.lib.format.write_array_header_1_0(self.file, description)

    def close(self) -> str:
        """Finish the file; its SHA-256."""
        self._header()
        self.file.seek(0)
        digest = hashlib.file_digest(self.file, "sha256").hexdigest()
        self.file.close()
        return digest


class ShardWriter:
    """Appends ids to {split}_000000.npy, _000001.npy, ... of `shard_tokens` ids each."""

    def __init__(self, folder: Path, split: str, dtype: str, shard_tokens: int, token_lengths: np.ndarray):
        self.folder, self.split, self.dtype, self.shard_tokens = folder, split, dtype, shard_tokens
        self.token_lengths = token_lengths  # id -> bytes of text, 0 for end-of-text
        self.entries: list[dict] = []
        self.shard: TokenFile | None = None

    def write(self, ids: np.ndarray) -> None:
        """Append ids; a full shard is closed and the next one begun."""
        while len(ids):
            if self.shard is None:
                name = f"{self.split}_{len(self.entries):06d}.npy"
                self.shard = TokenFile(self.folder / name, self.dtype)
                self.entries.append({"file": name, "tokens": 0, "bytes": 0})
            part, ids = np.split(ids, [min(len(ids), self.shard_tokens - self.shard.tokens)])
            self.shard.append(part)
            self.entries[-1]["bytes"] += int(self.token_lengths[part].sum())
            if self.shard.tokens == self.shard_tokens:
                self.close()

    def close(self) -> None:
        """Close the shard at hand, if any."""
        if self.shard is not None:
            self.entries[-1] |= {"tokens": self.shard.tokens, "sha256": self.shard.close()}
            self.shard = None


@dataclass(frozen=True)
class Written:
    """One split as written."""

    documents: int
    tokens: int
    size: int  # bytes of text
    replaced: int  # sequences that were not UTF-8, in all that was read for it
    shards: int


def write(
    folder: Path,
    splits: dict[str, Source],
    encode: Callable[[Iterable[bytes]], Iterator[np.ndarray]],
    vocabulary: Vocabulary,
    tokenizer: dict[str, str],
    end_of_text: str = END_OF_TEXT,
    shard_tokens: int = 100_000_000,
    errors: str = "strict",
) -> dict[str, Written]:
    """Encode every split into `folder`, which is replaced as a whole when all is written.

    `encode` turns blocks of text into arrays of ids, end-of-text included; `tokenizer` is what the manifest says of it
    (`tokenizer`, `tokenizer_sha256`). Raises InputError, leaving the old folder, for bad text, an empty split, or files
    there that are not ours.
    """
    _refuse_others(folder)
    if end_of_text not in vocabulary.special_tokens:
        known = ", ".join(vocabulary.special_tokens) or "none"
        raise InputError(
            f"the tokenizer has no special token {end_of_text!r} to end documents (it has: {known}): train one with"
            f" --special_tokens '{END_OF_TEXT}', or choose another with --end_of_text"
        )
    end_id = vocabulary.special_tokens[end_of_text]
    lengths = np.array([len(token) for token in vocabulary.token_bytes])
    lengths[end_id] = 0
    dtype = id_type(vocabulary)
    manifest = {"format": 1, "dtype": dtype, "vocab_size": len(vocabulary), "end_of_text": end_id, **tokenizer}
    result = {}
    with replacing(folder, _is_ours, last="manifest.json") as beside:
        manifest["shards"] = {}
        for split, source in splits.items():
            reading = Reading(errors)
            writer = ShardWriter(beside, split, dtype, shard_tokens, lengths)
            for ids in encode(source(reading, end_of_text)):
                writer.write(ids)
            writer.close()
            if not reading.documents:
                raise InputError(_nothing(split, source))
            manifest["shards"][split] = writer.entries
            tokens = sum(entry["tokens"] for entry in writer.entries)
            result[split] = Written(reading.documents, tokens, reading.size, reading.replaced, len(writer.entries))
        (beside / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return result


def id_type(vocabulary: Vocabulary) -> str:
    """Smallest unsigned type that holds every id."""
    return "uint16" if len(vocabulary) <= 1 << 16 else "uint32"


def _nothing(split: str, source: Source) -> str:
    names = ", ".join(map(str, source.files))
    if source.share < 1 and split == "val":
        return (
            f"{names}: fewer than {math.ceil(1 / source.share)} documents, so none is left for val: give a larger"
            " --val_fraction, or 0 for no val split"
        )
    return f"{names}: no text for {split}"


def _is_ours(name: str) -> bool:
    return name == "manifest.json" or SHARD_NAME.fullmatch(name) is not None


def _refuse_others(folder: Path) -> None:
    """InputError if the folder holds files with our names that are not ours: ours is what a manifest of ours lists."""
    path, listed = folder / "manifest.json", set()
    if path.exists():
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["format"] != 1:
                raise ValueError("another format")
            listed = {entry["file"] for entries in manifest["shards"].values() for entry in entries}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path}: not a manifest of token shards; choose another folder for them") from None
    for name in sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else ():
        if SHARD_NAME.fullmatch(name) and name not in listed:
            raise InputError(f"{folder / name}: no manifest.json lists it; move it, or choose another folder")
