"""Counting the distinct pieces of a corpus: in one pass, in parallel, in memory bounded by the distinct pieces.

    counts = count(["a.txt", "b.txt"], pattern="gpt2", special_tokens=["<|endoftext|>"])
    counts = count(["a.txt"], shard=(0, 8)); counts.save("part0.npz")        # on each of 8 machines, then
    counts = Counts.merged([Counts.load(f"part{i}.npz") for i in range(8)])  # exactly the count of the whole

The bytes of all files are cut into as many runs as there are threads, each at a place that no piece crosses
(split.Cutter). A thread reads its run a megabyte at a time, so the text stays in its cache, finds the pieces
(scanner.py) and counts them in its own table (word_table.py); the tables are added up in order of the text.
Words therefore come in the order in which the corpus first shows them, whatever the number of threads.
"""

import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bit_masks import PADDING
from folder_swap import replacing_file
from scanner import AT, INVALID, SCANNERS, character_classes, new_state
from split import Cutter, compile_pattern, piece_ends, split_specials
from text_files import Reading, documents, file_bytes, is_gzip, is_jsonl, is_stream, opened
from vocabulary import InputError, check_several, to_bytes
from word_table import WordCounter

CHUNK = 1 << 20  # bytes read at a time: fits a core's cache
BLOCK = 1 << 15  # pieces found at a time
LONGEST = (1 << 31) - PADDING - 1  # bytes of one chunk; only text that cannot be cut gets there
CLASSES = character_classes()


@dataclass
class Counts:
    """Distinct pieces of a corpus and how often each occurs, in the order first seen."""

    data: np.ndarray  # uint8 [bytes + PADDING]: all pieces end to end
    ends: np.ndarray  # int64 [pieces]: where each ends in data
    counts: np.ndarray  # int64 [pieces]
    pattern: str
    special_tokens: tuple[str, ...]
    shard: tuple[int, int] = (0, 1)  # which part of the corpus, of how many
    replaced: int = 0  # sequences that were not UTF-8 and are U+FFFD now
    whole: int = 0  # tells the files that this is a part of from others, by their sizes in order; 0: not known

    def __len__(self) -> int:
        return len(self.ends)

    def items(self) -> Iterator[tuple[bytes, int]]:
        """(piece, count) of each."""
        data, start = self.data.tobytes(), 0
        for end, times in zip(self.ends.tolist(), self.counts.tolist(), strict=True):
            yield data[start:end], times
            start = end

    def save(self, path: str | Path) -> None:
        """Write an .npz: the same counts make the same bytes."""
        texts = [self.pattern, *self.special_tokens]
        encoded = [np.frombuffer(to_bytes(text), np.uint8) for text in texts]
        with replacing_file(Path(path)) as beside, open(beside, "wb") as file:
            np.savez_compressed(
                file,
                format=np.array([1, *self.shard, self.replaced]),
                texts=np.concatenate(encoded),
                text_sizes=np.array([len(text) for text in encoded]),
                data=self.data[: len(self.data) - PADDING],
                sizes=np.diff(self.ends, prepend=0).astype(np.uint32),
                counts=self.counts,
                whole=np.array([self.whole]),
            )

    @classmethod
    def load(cls, path: str | Path) -> "Counts":
        """Read what `save` wrote. Raises InputError, naming the file, if it is something else or damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                form, texts, text_sizes = file["format"].tolist(), file["texts"].tobytes(), file["text_sizes"]
                data, sizes, counts = file["data"], file["sizes"], file["counts"]
                whole = int(file["whole"][0]) if "whole" in file else 0  # older files do not have it
            version, index, total, replaced = form
            cuts = np.cumsum(text_sizes).tolist()
            starts = [0, *cuts[:-1]]
            names = [texts[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, cuts, strict=True)]
            ends = np.cumsum(sizes, dtype=np.int64)
            fits = len(ends) == len(counts) and (int(ends[-1]) if len(ends) else 0) == len(data)
            if version != 1 or not fits or (counts < 1).any() or (sizes < 1).any():
                raise ValueError("its parts do not fit together")
        except OSError:
            raise
        except Exception:  # numpy raises many kinds for a damaged file
            raise InputError(f"{path}: not a file of counts, or damaged") from None
        padded = np.concatenate([data.astype(np.uint8), np.zeros(PADDING, np.uint8)])
        return cls(padded, ends, counts.astype(np.int64), names[0], tuple(names[1:]), (index, total), replaced, whole)

    @classmethod
    def merged(cls, parts: Sequence["Counts"]) -> "Counts":
        """Sum of partial counts, in the order of their shards. Raises InputError if they do not belong together."""
        parts = sorted(parts, key=lambda part: part.shard)
        if not parts:
            raise InputError("counts: no files given")
        first = parts[0]
        for part in parts[1:]:
            for field in ("pattern", "special_tokens"):
                a, b = getattr(first, field), getattr(part, field)
                if a != b:
                    raise InputError(f"counts: counted with different {field}: {a!r} and {b!r}")
        shards = [part.shard for part in parts if part.shard[1] > 1]
        for index, total in shards:
            if shards.count((index, total)) > 1:
                raise InputError(f"counts: shard {index}/{total} is given twice")
        for total in {total for _, total in shards}:
            missing = [i for i in range(total) if (i, total) not in shards]
            if missing:
                raise InputError(f"counts: of {total} shards, {missing} are missing")
            known = [part for part in parts if part.shard[1] == total and part.whole]
            if len({part.whole for part in known}) > 1:
                other = next(part for part in known if part.whole != known[0].whole)
                a, b = (f"{part.shard[0]}/{total}" for part in (known[0], other))
                raise InputError(f"counts: shards {a} and {b} are parts of different texts: count the same files, in"
                                 " the same order, in every shard")
        if len(parts) == 1:
            return first
        counter = WordCounter()
        for part in parts:
            add_words(counter, part.data, part.ends, part.counts)
        replaced = sum(part.replaced for part in parts)
        return cls(*counter.words(), first.pattern, first.special_tokens, (0, 1), replaced)


def add_words(total: WordCounter, data: np.ndarray, ends: np.ndarray, counts: np.ndarray) -> None:
    """Add to `total` what another counter's words() gave; InputError above 2 GiB: places in it are int32."""
    if len(data) > LONGEST:
        raise InputError(f"counts: {len(data):,} bytes of distinct pieces are more than 2 GiB")
    total.add(data, 0, ends.astype(np.int32), counts)


class PieceCounter:
    """Counts the pieces of chunks of text; one for each thread."""

    def __init__(self, pattern: str, special_tokens: Sequence[str], errors: str):
        self.pattern, self.special_tokens, self.errors = pattern, special_tokens, errors
        self.words = WordCounter()
        self.ends = np.empty(BLOCK, np.int32)
        self.replaced = 0

    def add(self, buffer: bytearray, size: int, name: str, offset: int) -> None:
        """Count buffer[:size], which has PADDING spare bytes; name and offset are for errors.

        Raises InputError at bytes that are not UTF-8 if errors is "strict".
        """
        if self.errors == "replace":
            text = bytes(memoryview(buffer)[:size])
            fixed = text.decode("utf-8", "replace").encode()
            if fixed != text:
                self.replaced += fixed.count("\ufffd".encode()) - text.count("\ufffd".encode())
                buffer, size = bytearray(fixed + bytes(PADDING)), len(fixed)
        data = np.frombuffer(buffer, np.uint8)
        if self.special_tokens:
            view = buffer if len(buffer) == size else buffer[:size]
            segments = [(a, b) for a, b, special in split_specials(view, self.special_tokens) if special is None]
        else:
            segments = [(0, size)] if size else []
        scan = SCANNERS.get(self.pattern)
        for start, end in segments:
            if scan is None:
                self._add_slowly(buffer, data, start, end, name, offset)
                continue
            state = new_state(start)
            while state[AT] < end:
                found = scan(data, state, end, CLASSES, self.ends)
                if self.errors == "strict" and state[INVALID] >= 0:
                    raise not_utf8(name, offset + int(state[INVALID]))
                if found:
                    self.words.add(data, start, self.ends[:found])
                    start = int(self.ends[found - 1])

    def _add_slowly(self, buffer, data, start, end, name, offset) -> None:
        text = bytes(memoryview(buffer)[start:end])
        if self.errors == "strict":
            try:
                text.decode()
            except UnicodeDecodeError as error:
                raise not_utf8(name, offset + start + error.start) from None
        ends = np.array(piece_ends(text, self.pattern), np.int64) + start
        self.words.add(data, start, ends.astype(np.int32))


def not_utf8(name: str, offset: int) -> InputError:
    """The error for bytes that are not UTF-8."""
    return InputError(f"{name}: not UTF-8 at byte {offset:,}; --errors replace puts U+FFFD there and counts them")


def read_chunks(read_into: Callable, cutter: Cutter, left: int) -> Iterator[tuple[bytearray, int, int]]:
    """(buffer, bytes in it, offset of its first byte) of the next `left` bytes, cut where no piece crosses.

    `read_into(view)` fills as much of a memoryview as it can and returns how much, 0 at the end. The buffer has
    PADDING spare bytes and is used again for the next chunk. Text without a safe place is read until there is one.
    """
    buffer = bytearray(CHUNK + PADDING)
    filled = offset = 0
    while True:
        if filled + PADDING >= len(buffer):
            if len(buffer) > LONGEST:
                raise InputError(f"pattern: more than 2 GiB without a place to cut for pattern {cutter.pattern!r}")
            buffer = buffer + bytearray(min(len(buffer), LONGEST + PADDING + 1 - len(buffer)))
        room = min(left, len(buffer) - PADDING - filled)
        got = read_into(memoryview(buffer)[filled : filled + room]) if room else 0
        filled += got
        left -= got
        if got == 0:
            if filled:
                yield buffer, filled, offset
            return
        if filled + PADDING < len(buffer) and left:
            continue
        cut = cutter.last_cut(buffer, filled) if left else filled
        if cut:
            rest = bytes(memoryview(buffer)[cut:filled])
            yield buffer, cut, offset
            offset += cut
            buffer[: len(rest)] = rest
            filled = len(rest)


def blocks(chunks: Iterable[str | bytes], cutter: Cutter) -> Iterator[bytes]:
    """The text that the chunks make, in blocks of about CHUNK bytes, cut where no piece crosses."""
    source = map(to_bytes, chunks)
    rest = memoryview(b"")

    def read_into(view: memoryview) -> int:
        nonlocal rest
        while not rest:
            chunk = next(source, None)
            if chunk is None:
                return 0
            rest = memoryview(chunk)
        size = min(len(view), len(rest))
        view[:size] = rest[:size]
        rest = rest[size:]
        return size

    for buffer, size, _ in read_chunks(read_into, cutter, LONGEST**2):
        yield bytes(memoryview(buffer)[:size])


def read_whole(path: Path) -> bool:
    """Whether it can be read from its beginning only: .gz, .jsonl, a stream."""
    return is_gzip(path) or is_jsonl(path) or is_stream(path)


def file_size(path: Path) -> int:
    """Bytes on disk; 1 for a stream, so that it has a place among the others."""
    return 1 if is_stream(path) else path.stat().st_size


def safe_place(path: Path, size: int, offset: int, cutter: Cutter) -> int:
    """First place at or after `offset` where the file may be cut, its size if there is none or it is read whole."""
    if offset <= 0:
        return 0
    if read_whole(path):
        return size
    margin = cutter.reach + 4
    window = 1 << 12
    with open(path, "rb") as file:
        while offset < size:
            start = max(0, offset - margin)
            file.seek(start)
            data = file.read(offset - start + window + margin)
            high = min(offset - start + window, len(data) - 1)
            for p in cutter.cuts(data, offset - start, high):
                return start + p
            if start + len(data) >= size:
                break
            window *= 8
    return size


def file_runs(paths: Sequence[Path], shard: tuple[int, int], parts: int, cutter: Cutter) -> list[list[tuple]]:
    """The shard's bytes of all files end to end as `parts` lists of (path, start, end), cut at safe places."""
    sizes = [file_size(path) for path in paths]
    total = sum(sizes)
    index, shards = shard
    marks = [total * (index * parts + k) // (shards * parts) for k in range(parts + 1)]
    runs: list[list[tuple]] = [[] for _ in range(parts)]
    before = 0
    for path, size in zip(paths, sizes, strict=True):
        # neighbours compute the same place from the same mark, so every byte falls to exactly one run
        places = [safe_place(path, size, min(max(mark - before, 0), size), cutter) for mark in marks]
        for run, start, end in zip(runs, places[:-1], places[1:], strict=True):
            if start < end:
                run.append((path, start, end))
        before += size
    return runs


def cores() -> int:
    """How many cores this process may use; where the system does not say (macOS), how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def how_many(threads: int) -> int:
    """That many threads, or for 0 one for each core; InputError for fewer."""
    if threads < 0:
        raise InputError(f"threads: {threads} must be at least 1, or 0 for all cores")
    return threads or cores()


def count(
    sources: Sequence[str | Path] | Iterable[str | bytes],
    pattern: str = "gpt2",
    special_tokens: Sequence[str] = (),
    threads: int | None = None,
    shard: tuple[int, int] = (0, 1),
    errors: str = "strict",
    progress: Callable[[int], None] | None = None,
    texts: bool = False,
) -> Counts:
    """Count the distinct pieces of text files (as in text_files.py), or with texts=True of an iterable of str or bytes.

    special_tokens: never counted, and no piece crosses them. threads: if None, one for each core that the process may
    use; texts, and patterns that `regex` splits, use one. shard: (i, n) counts the i-th of n about equal runs of the
    files' bytes, where .gz and .jsonl are not cut. errors, for bytes that are not UTF-8: "strict" raises InputError
    with file and offset, "replace" puts U+FFFD, "bytes" takes them as they are (.jsonl must be UTF-8). progress(bytes
    done since the last call) is called from several threads. InputError for one str or bytes in place of several.
    """
    compile_pattern(pattern)
    check_several("special_tokens", special_tokens)
    special_tokens = tuple(special_tokens)
    if errors not in ("strict", "replace", "bytes"):
        raise InputError(f"errors: {errors!r} is none of strict, replace, bytes")
    threads = how_many(threads or 0)
    index, shards = shard
    if not 0 <= index < shards:
        raise InputError(f"shard: {index}/{shards}: the first number runs from 0 to {shards - 1}")
    progress = progress or (lambda done: None)
    cutter, whole = Cutter(pattern, special_tokens), 0
    if isinstance(sources, str | bytes | bytearray):
        raise InputError(f"sources: one {type(sources).__name__}, not several; give it in a list")
    if texts:
        if shard != (0, 1):
            raise InputError("shard: only files can be counted in shards")
        counters = [PieceCounter(pattern, special_tokens, errors)]
        for number, text in enumerate(sources):
            data = to_bytes(text)
            counters[0].add(bytearray(data + bytes(PADDING)), len(data), f"text {number}", 0)
            progress(len(data))
    else:
        paths = [Path(path) for path in sources]
        counters = _count_files(paths, pattern, cutter, threads, shard, errors, progress)
        whole = zlib.crc32(str([file_size(path) for path in paths]).encode()) if shards > 1 else 0
    total = counters[0].words
    for counter in counters[1:]:
        add_words(total, *counter.words.words())
    replaced = sum(counter.replaced for counter in counters)
    return Counts(*total.words(), pattern, special_tokens, shard, replaced, whole)


def _chunks(path: Path, start: int, end: int, cutter: Cutter, reading: Reading) -> Iterator[tuple[bytearray, int, int]]:
    """As read_chunks, of the file's bytes from start to end; all of a file that is read whole, .jsonl by documents."""
    if is_jsonl(path):
        for text, _ in documents(path, reading):
            yield bytearray(text + bytes(PADDING)), len(text), 0
        return
    with opened(path) as file:
        if start:
            file.seek(start)
        yield from read_chunks(file.readinto, cutter, LONGEST**2 if read_whole(path) else end - start)


def _count_files(paths, pattern, cutter, threads, shard, errors, progress) -> list[PieceCounter]:
    parts = min(threads, 1 + file_bytes(paths) // CHUNK) if pattern in SCANNERS else 1
    runs = file_runs(paths, shard, parts, cutter)
    stop = threading.Event()

    def work(run: list[tuple]) -> PieceCounter:
        counter = PieceCounter(pattern, cutter_tokens, errors)
        reading = Reading(errors)
        for path, start, end in run:
            for buffer, filled, offset in _chunks(path, start, end, cutter, reading):
                counter.add(buffer, filled, str(path), start + offset)
                progress(filled)
                if stop.is_set():
                    return counter
        counter.replaced += reading.replaced
        return counter

    cutter_tokens = [token.decode("utf-8", "surrogatepass") for token in cutter.tokens]
    if parts == 1:
        return [work(runs[0])]
    with ThreadPoolExecutor(parts) as pool:
        futures = [pool.submit(work, run) for run in runs]
        try:
            return [future.result() for future in futures]
        except BaseException:  # also Ctrl-C: let the others stop at their next chunk
            stop.set()
            raise
