"""Text to token shards for pretraining: {train,val}_000000.npy and manifest.json, in bounded memory.

Every document is followed by the end-of-text id. A folder with train.* and val.* files keeps that split; of plain files
every k-th document goes to val. The shards are 1-d uint16 (uint32 above 65,536 tokens), np.load(mmap_mode="r")-able.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from folder_swap import replacing
from text_files import END_OF_TEXT, Reading, documents
from vocabulary import InputError, Vocabulary

SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")


@dataclass
class Source:
    """Where the documents of one split come from: every file, or of the files every k-th document or the others."""

    files: list[Path]
    every: int = 0  # k; 0: all documents
    taken: bool = True  # every k-th document, or all the others

    def __call__(self, reading: Reading, allowed: str = END_OF_TEXT) -> Iterator[bytes]:
        """Blocks of text, each document closed by `allowed`; InputError where a JSONL document contains it."""
        closing = allowed.encode()
        number = 0  # of the document, over all files
        for path in self.files:
            for part, ends in documents(path, reading):
                if not self.every or ((number + 1) % self.every == 0) == self.taken:
                    if closing in part:
                        raise InputError(f"{path}: a document contains {allowed!r}, which must only end documents")
                    yield part + closing if ends else part
                else:
                    reading.size -= len(part)
                    reading.documents -= ends
                number += ends


def sources(inputs: list[Path], val_fraction: float) -> dict[str, Source]:
    """The splits of a folder with train.* and val.* files, or of single files; InputError for anything else."""
    if len(inputs) == 1 and inputs[0].is_dir():
        folder = inputs[0]
        found = {}
        for split in ("train", "val"):
            files = sorted(p for p in folder.iterdir() if p.name.startswith(split) and p.name.endswith(SUFFIXES))
            if files:
                found[split] = Source(files)
        if "train" not in found:
            raise InputError(f"{folder}: has no train.txt (or train*{', train*'.join(SUFFIXES)})")
        return found
    if not 0 <= val_fraction < 1:
        raise InputError(f"--val_fraction {val_fraction}: must be at least 0 and below 1")
    if val_fraction == 0:
        return {"train": Source(inputs)}
    every = round(1 / val_fraction)
    if every < 2:
        raise InputError(f"--val_fraction {val_fraction}: leaves nothing to train on; at most 0.5")
    return {"train": Source(inputs, every, taken=False), "val": Source(inputs, every, taken=True)}


class ShardWriter:
    """Appends ids to {split}_000000.npy, _000001.npy, ... of `shard_tokens` ids each."""

    def __init__(self, folder: Path, split: str, dtype: str, shard_tokens: int, token_lengths: np.ndarray):
        self.folder, self.split, self.dtype, self.shard_tokens = folder, split, np.dtype(dtype), shard_tokens
        self.token_lengths = token_lengths  # id -> bytes of text, 0 for end-of-text
        self.entries: list[dict] = []
        self.file = None

    def write(self, ids: np.ndarray) -> None:
        """Append ids; a full shard is closed and the next one begun."""
        while len(ids):
            if self.file is None:
                self._open()
            entry = self.entries[-1]
            part, ids = np.split(ids, [min(len(ids), self.shard_tokens - entry["tokens"])])
            self.file.write(part.astype(self.dtype).tobytes())
            entry["tokens"] += len(part)
            entry["bytes"] += int(self.token_lengths[part].sum())
            if entry["tokens"] == self.shard_tokens:
                self.close()

    def _open(self) -> None:
        name = f"{self.split}_{len(self.entries):06d}.npy"
        self.file = open(self.folder / name, "wb+")  # noqa: SIM115 (closed when full)
        self.entries.append({"file": name, "tokens": 0, "bytes": 0})
        self._header(0)

    def _header(self, tokens: int) -> None:
        """Numpy leaves room for the length to grow, so the header can be written again over itself."""
        description = {"descr": self.dtype.str, "fortran_order": False, "shape": (tokens,)}
        np.lib.format.write_array_header_1_0(self.file, description)

    def close(self) -> None:
        """Close the shard at hand: its length into the header, its hash into the entry."""
        if self.file is None:
            return
        self.file.seek(0)
        self._header(self.entries[-1]["tokens"])
        self.file.seek(0)
        self.entries[-1]["sha256"] = hashlib.file_digest(self.file, "sha256").hexdigest()
        self.file.close()
        self.file = None


@dataclass(frozen=True)
class Written:
    """One split as written."""

    documents: int
    tokens: int
    size: int  # bytes of text
    replaced: int  # sequences that were not UTF-8
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
    (`tokenizer`, `tokenizer_sha256`). Raises InputError, leaving the old folder, for bad text or an empty split.
    """
    if end_of_text not in vocabulary.special_tokens:
        known = ", ".join(vocabulary.special_tokens) or "none"
        raise InputError(f"the tokenizer has no special token {end_of_text!r} to end documents (it has: {known})")
    end_id = vocabulary.special_tokens[end_of_text]
    lengths = np.array([len(token) for token in vocabulary.token_bytes])
    lengths[end_id] = 0
    dtype = "uint16" if len(vocabulary) <= 1 << 16 else "uint32"
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


def _nothing(split: str, source: Source) -> str:
    names = ", ".join(map(str, source.files))
    if source.every and split == "val":
        return (
            f"{names}: fewer than {source.every} documents, so no one is left for val: give a larger --val_fraction, or"
            " 0 for no val split"
        )
    return f"{names}: no text for {split}"


def _is_ours(name: str) -> bool:
    return name == "manifest.json" or (name.startswith(("train_", "val_")) and name.endswith(".npy"))
