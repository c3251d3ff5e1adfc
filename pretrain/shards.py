"""Tokens on disk, and the order in which training reads them.

A folder of shards is `{train,val}_000000.npy` (one-dimensional uint16 or uint32, memory-mapped) and `manifest.json`,
which names the dtype, the vocabulary, the tokenizer's hash, and each shard's length and sha256.

The order depends on the seed alone. The N tokens of a split are a circle; unrolled over the epochs it is cut into
sequences of T tokens, and the sequences that begin within one turn are shuffled: every position is a target exactly
once per N tokens. With a curriculum, the first epoch begins with the sequences of the split's first tokens. The state
of the reader is a single number, the sequences read so far; it fixes the rest of the order, however many processes
share a batch.

Shapes: B sequences, T tokens of a sequence, N tokens of the split.
"""

import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from presets import DATA, InputError

KINDS = {str: "a text", int: "a whole number", int | None: "a whole number or null", dict: "an object"}
MANIFEST = {"dtype": str, "vocab_size": int, "end_of_text": int | None, "tokenizer": str, "tokenizer_sha256": str,
            "shards": dict}
ENTRY = {"file": str, "tokens": int, "bytes": int, "sha256": str}  # of a shard


class Split:
    """One split (`train` or `val`) of a folder of shards; opening it checks everything that is cheap to check."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = Path(folder), name
        self.manifest = read_manifest(self.folder)
        self.entries = self.manifest["shards"].get(name, [])
        if not self.entries:
            raise InputError(f"{self.folder}/manifest.json lists no shard of split {name!r}")
        self.end_of_text = self.manifest["end_of_text"]
        self._take([self._open(entry) for entry in self.entries], sum(entry["bytes"] for entry in self.entries))
        if self.bytes < 1:
            raise InputError(f"{self.folder}/manifest.json: bytes of split {name!r} are {self.bytes}, which gives no "
                             "bits per byte; encode the text again")

    @classmethod
    def of_tokens(cls, tokens: np.ndarray, size: int, tokenizer, end_of_text: int | None, folder: Path,
                  name: str) -> "Split":
        """Tokens in memory, which stand for `size` bytes of text; the names are for messages."""
        split = cls.__new__(cls)
        split.folder, split.name, split.tokenizer, split.end_of_text = folder, name, tokenizer, end_of_text
        split._take([tokens], size)
        return split

    def _take(self, shards: list[np.ndarray], size: int):
        self.shards, self.bytes = shards, size
        self.ends = np.cumsum([len(shard) for shard in shards])
        self.tokens = int(self.ends[-1])

    def _open(self, entry: dict) -> np.ndarray:
        path = self.folder / entry["file"]
        try:
            shard = np.lib.format.open_memmap(path, mode="r")
        except (ValueError, EOFError) as error:
            raise InputError(f"{path} is damaged ({error}); encode the text again") from None
        if shard.dtype != np.dtype(self.manifest["dtype"]) or shard.ndim != 1:
            raise InputError(f"{path} holds {shard.ndim}-d {shard.dtype}, its manifest says {self.manifest['dtype']}")
        if len(shard) != entry["tokens"]:
            raise InputError(f"{path} holds {len(shard):,} tokens, its manifest says {entry['tokens']:,}; encode again")
        return shard

    def verify(self, part: int = 0, parts: int = 1):
        """Read every parts-th shard whole: its hash is the manifest's and its ids are in the vocabulary."""
        for entry, shard in list(zip(self.entries, self.shards, strict=True))[part::parts]:
            path, vocabulary = self.folder / entry["file"], self.manifest["vocab_size"]
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    raise InputError(f"{path} has another sha256 than its manifest says; encode the text again")
            if len(shard) and int(shard.max()) >= vocabulary:
                at = int(np.argmax(shard >= vocabulary))
                raise InputError(f"{path}: token id {shard[at]} at position {at} is not below vocab_size {vocabulary}")

    def read(self, start: int, count: int) -> np.ndarray:
        """The tokens [start, start + count) of the circle, int64."""
        pieces, position = [], start % self.tokens
        while count:
            index = int(np.searchsorted(self.ends, position, side="right"))
            shard = self.shards[index]
            offset = position - (int(self.ends[index]) - len(shard))
            piece = shard[offset:offset + count]
            pieces.append(piece)
            count -= len(piece)
            position = (position + len(piece)) % self.tokens
        return np.concatenate(pieces).astype(np.int64)

    @functools.cached_property
    def tokenizer(self):
        """The tokenizers.Tokenizer that made the shards; None where it is no longer there."""
        from convert import read_tokenizer

        folder = tokenizer_folder(self.manifest)
        return read_tokenizer(folder, self.folder) if (folder / "tokenizer.json").exists() else None

    @functools.cache  # noqa: B019 (a split lives as long as its run)
    def bytes_of_first(self, count: int) -> int:
        """Bytes of text that the first tokens stand for; without the tokenizer, their share of all."""
        if count >= self.tokens or self.tokenizer is None:
            return round(self.bytes * min(1.0, count / self.tokens))
        ids = self.read(0, count)
        text = self.tokenizer.decode(ids[ids != self.end_of_text].tolist(), skip_special_tokens=False)
        return len(text.encode())

    @property
    def largest(self) -> int:
        """The greatest token id; reads all shards."""
        return max(int(shard.max()) for shard in self.shards if len(shard))

    def document_length(self, T: int) -> int:
        """Tokens of the document that a token lies in, T at most: the mean over the first million tokens."""
        tokens = self.read(0, min(self.tokens, 10**6))
        ends = np.flatnonzero(tokens == self.end_of_text)
        lengths = np.diff(ends, prepend=-1, append=len(tokens) - 1)
        return round(float(np.average(np.minimum(lengths, T), weights=lengths)))

    def sequences(self, starts, T: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets (B, T) int64 of the sequences that begin at these positions."""
        rows = torch.from_numpy(np.stack([self.read(int(start), T + 1) for start in starts]))
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


class Order:
    """The shuffled order of the training sequences: sequence number n -> its first position.

    N = 10, T = 4: sequences begin at 0, 4, 8 of the unrolled circle (epoch 0), at 12, 16 (epoch 1), at 20, ...
    The first epoch takes those that begin in the first `curriculum` tokens before all others (Bengio et al. 2009).
    """

    def __init__(self, tokens: int, T: int, seed: int, curriculum: int = 0):
        self.tokens, self.T, self.seed, self.curriculum = tokens, T, seed, curriculum
        self.epoch, self.permutation = -1, np.empty(0, np.int64)

    def epoch_of(self, n: int) -> int:
        """Epoch of sequence n: the greatest e whose first sequence, ceil(e N / T), is at most n."""
        return n * self.T // self.tokens

    def first(self, epoch: int) -> int:
        """Number of an epoch's first sequence."""
        return -(-epoch * self.tokens // self.T)

    def start(self, n: int) -> int:
        """Where in the unrolled circle sequence n begins."""
        epoch = self.epoch_of(n)
        first = self.first(epoch)
        if epoch != self.epoch:
            generator = np.random.default_rng([self.seed, epoch])
            self.epoch, self.permutation = epoch, generator.permutation(self.first(epoch + 1) - first)
            if epoch == 0:
                later = self.permutation * self.T >= self.curriculum
                self.permutation = self.permutation[np.argsort(later, kind="stable")]
        return (first + int(self.permutation[n - first])) * self.T


class Reader:
    """Hands every process its share of the global batches.

    In micro-step m, process r of R takes the sequences [(m R + r) b, (m R + r + 1) b) of the batch, b = micro_batch.
    `position`, the number of sequences read by all processes together, is the whole state.
    """

    def __init__(self, split: Split, T: int, micro_batch: int, rank: int, world_size: int, seed: int, position: int,
                 curriculum: int = 0):
        self.split, self.T, self.micro_batch = split, T, micro_batch
        self.rank, self.world_size = rank, world_size
        self.order = Order(split.tokens, T, seed, curriculum)
        self.position = position

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets (micro_batch, T) of the next micro-step."""
        begin = self.position + self.rank * self.micro_batch
        starts = [self.order.start(n) for n in range(begin, begin + self.micro_batch)]
        self.position += self.world_size * self.micro_batch
        return self.split.sequences(starts, self.T)


def read_manifest(folder: Path) -> dict:
    """manifest.json of a folder of shards; the tokenizer that it names is checked against its hash where it exists."""
    path = Path(folder) / "manifest.json"
    if not path.exists():
        raise InputError(f"{path} does not exist; `bash train.sh` makes the default shards, or make others: "
                         f"python bpe/run.py encode TEXT_FOLDER --tokenizer TOKENIZER_FOLDER --out {folder}")
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    check_fields(path, manifest, MANIFEST)
    for split, entries in manifest["shards"].items():
        if not isinstance(entries, list):
            raise InputError(f"{path}: shards of {split!r} are {str(entries)[:40]!r}, not a list; encode again")
        for entry in entries:
            check_fields(f"{path}: a shard of {split!r}", entry, ENTRY)
    if manifest["dtype"] not in ("uint16", "uint32"):
        raise InputError(f"{path}: dtype {manifest['dtype']!r} is neither uint16 nor uint32")
    if manifest["end_of_text"] is not None and not 0 <= manifest["end_of_text"] < manifest["vocab_size"]:
        raise InputError(f"{path}: end_of_text {manifest['end_of_text']} is no token of {manifest['vocab_size']}")
    tokenizer = tokenizer_folder(manifest) / "tokenizer.json"
    if tokenizer.exists() and hashlib.sha256(tokenizer.read_bytes()).hexdigest() != manifest["tokenizer_sha256"]:
        raise InputError(f"{tokenizer} is not the tokenizer that made {folder}: its sha256 differs; encode again")
    return manifest


def check_fields(where, record, kinds: dict):
    """Refuse a part of a manifest that is not as it must be."""
    if not isinstance(record, dict):
        raise InputError(f"{where} is {str(record)[:40]!r}, not {KINDS[dict]}; encode the text again")
    if kinds.keys() - record.keys():
        raise InputError(f"{where} lacks {', '.join(sorted(kinds.keys() - record.keys()))}")
    for name, kind in kinds.items():
        if not isinstance(record[name], kind):
            raise InputError(f"{where}: {name} is {str(record[name])[:40]!r}, not {KINDS[kind]}; encode the text again")


def fingerprint(manifest: dict, split: str) -> list[str]:
    """What tells a split's shards from others: the beginnings of their hashes."""
    return [entry["sha256"][:16] for entry in manifest["shards"].get(split, [])]


def tokenizer_folder(manifest: dict) -> Path:
    """Folder of the tokenizer that a manifest names; the one built into bpe/, gpt2, is exported to tokenizer/gpt2."""
    name = manifest["tokenizer"]
    return DATA / ("tokenizer/gpt2" if name == "gpt2" else name)


def fitting_micro_batch(total_batch: int, micro_batch: int, T: int, world_size: int) -> int:
    """The micro-batch, or what the total batch has for each process, where that is less.

    2,048 tokens in sequences of 512 are 4 for one process, 2 for each of two.
    """
    return min(micro_batch, max(1, total_batch // (T * world_size)))


def accumulation_steps(total_batch: int, micro_batch: int, T: int, world_size: int) -> int:
    """Micro-steps per step, total_batch / (micro_batch x T x world_size): 524288 / (16 x 1024 x 8) = 4.

    Raises InputError, with the nearest total batches that divide, when this one does not.
    """
    unit = micro_batch * T * world_size
    if total_batch % unit or total_batch < unit:
        below, above = total_batch // unit * unit, -(-total_batch // unit) * unit
        nearest = f"{above:,}" if below == 0 else f"{below:,} or {above:,}"
        raise InputError(f"--total_batch {total_batch:,} is not a multiple of micro_batch {micro_batch} x {T} tokens x "
                         f"{world_size} processes = {unit:,}; the nearest that are: {nearest}")
    return total_batch // unit


def check_length(split: Split, total_batch: int, T: int = 1):
    """Refuse a split that does not fill one batch."""
    if split.tokens < T:
        raise InputError(f"{split.folder}: split {split.name!r} holds {split.tokens:,} tokens, one sequence takes "
                         f"{T:,}; give more data, or a shorter --sequence and with it --total_batch")
    if split.tokens < total_batch:
        raise InputError(f"{split.folder}: split {split.name!r} holds {split.tokens:,} tokens, one step takes "
                         f"{total_batch:,}; give more data, or --total_batch of at most {split.tokens:,}")
