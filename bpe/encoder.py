"""Text to ids and back, at the speed of compiled code.

    tokenizer = Tokenizer(vocabulary)
    tokenizer.encode("Hello <|endoftext|>", allowed_special="all")      # list of int
    tokenizer.encode_array(text, threads=2)                             # numpy, uint16 up to 65,536 tokens
    for ids in tokenizer.encode_stream(open("big.txt", "rb")): ...      # bounded memory
    tokenizer.decode(ids), tokenizer.decode_bytes(ids)

Text is cut at special tokens, then into pieces (scanner.py, or `regex` for other patterns), and each piece merged
(coding.py). A str with lone surrogates is encoded as the three bytes of each; `decode` gives the same str again,
StreamingDecoder U+FFFD in their place.
"""

import codecs
import unicodedata
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np
from bit_masks import BYTE_MASKS, PADDING
from coding import decode_ids, decoded_size, encode_pieces
from counting import CLASSES, LONGEST, blocks, how_many
from ranked_merges import NO_PAIR, NO_RANK, fill_pairs
from scanner import AT, SCANNERS, new_state
from split import Cutter, compile_pattern, may_hold, piece_ends, possible_specials, split_specials
from utf8 import write_utf8
from vocabulary import MOST_TOKENS, InputError, SpecialTokenInText, Vocabulary, check_several, to_bytes
from word_table import FULL, LOW

Specials = Collection[str] | Literal["all"]
Chosen = frozenset[str] | Literal["all"]
Texts = tuple[str, ...]
Parts = list[tuple[int, int, str | None]]  # (start, end, special token or None)
KNOWN_BITS = 18  # rows of the table of short pieces, 8 MB, for each thread
LONGER_BITS = 18  # slots of the table of longer ones
SHORT = 2000  # characters of a text below which Python turns it into UTF-8 faster than a kernel is called
AT_ONCE = 1 << 19  # characters of text that are encoded at a time
TOGETHER = 1 << 15  # characters of short texts that are encoded in one go
PIECES = 1 << 17  # found at a time: most texts have fewer in that many characters, so threads seldom wait for the GIL
MOST_TOGETHER = PIECES - 65  # bytes of them: as many pieces at most, and scanners want room for a block's more


class PieceCache:
    """Pieces met before and their ids (see coding.encode_pieces), and room to work in.

    The arrays are as large as they may get; the system gives memory to what is used.
    """

    def __init__(self):
        rows = np.zeros(4 * (1 << KNOWN_BITS) + 8, np.uint64)
        skipped = -rows.ctypes.data // 8 % 8  # so that two rows are one cache line
        words = (1 << LONGER_BITS) * FULL // 100
        self.arrays = (
            rows[skipped : skipped + 4 * (1 << KNOWN_BITS)].reshape(-1, 4),
            np.zeros(1 << LONGER_BITS, np.uint64),
            np.empty((words, 4), np.uint64),
            np.empty(words * 32, np.uint8),
            np.empty(words * 16, np.int32),
            np.zeros(3, np.int64),
        )
        self.ends = np.empty(PIECES, np.int32)
        self._text, self._out = np.empty(0, np.uint8), np.empty(0, np.int32)

    def load(self, text: str | bytes, start: int, end: int) -> tuple[np.ndarray, int]:
        """uint8 [bytes + PADDING at least] and the number of bytes: the UTF-8 of text[start:end], until the next."""
        if isinstance(text, str) and end - start < SHORT:
            text, start, end = (data := to_bytes(text[start:end])), 0, len(data)
        most = (4 if isinstance(text, str) else 1) * (end - start)
        if len(self._text) < most + PADDING:
            self._text = np.empty(most + PADDING, np.uint8)
        if isinstance(text, str):
            return self._text, write_utf8(str(text), start, end, self._text)  # str: numba knows no classes made of it
        self._text[:most] = np.frombuffer(text, np.uint8)[start:end]
        return self._text, most

    def room(self, size: int) -> np.ndarray:
        """int32 [size + PADDING at least] for ids, used again and again."""
        if len(self._out) < size + PADDING:
            self._out = np.empty(size + size // 2 + PADDING, np.int32)
        return self._out


class Tokenizer:
    """Encodes and decodes with a Vocabulary. May be used from several threads at once.

    threads: how many encode_array, encode_batch and encode_stream use unless told otherwise; 0: all cores, there
    too. InputError if it is negative, or the vocabulary has more than 1,048,576 tokens.
    """

    def __init__(self, vocabulary: Vocabulary, threads: int = 1):
        self.vocabulary = vocabulary
        self.threads = how_many(threads)
        self.dtype = np.dtype(np.uint16 if len(vocabulary) <= 1 << 16 else np.uint32)
        self._scan = SCANNERS.get(vocabulary.pattern)
        compile_pattern(vocabulary.pattern)
        merges = np.array(vocabulary.merges, np.int32).reshape(-1, 2)
        if len(vocabulary) > MOST_TOKENS:
            raise InputError(f"token_bytes: {len(vocabulary):,} tokens are more than {MOST_TOKENS:,}")
        pairs = np.full(1 << (2 * len(merges) + 1).bit_length(), NO_PAIR)
        fill_pairs(merges, pairs)
        byte_ids = np.array(vocabulary.byte_ids, np.int32)
        byte_ranks = np.full((256, 256), NO_RANK, np.int32)
        byte_of = {n: byte for byte, n in enumerate(vocabulary.byte_ids)}
        for rank, (a, b) in enumerate(vocabulary.merges):
            if a in byte_of and b in byte_of:
                byte_ranks[byte_of[a], byte_of[b]] = rank
        merged_ids = np.array(vocabulary.merged_ids, np.int32)
        sizes = np.array([len(token) for token in vocabulary.token_bytes], np.uint64)
        starts = np.cumsum(sizes) - sizes
        self._spans = starts << np.uint64(32) | sizes
        self._text = np.frombuffer(bytearray(b"".join(vocabulary.token_bytes) + bytes(PADDING)), np.uint8)
        side_by_side = np.zeros((256, 256), bool)
        within = np.ones(len(self._text) - PADDING, bool)  # whether the byte goes on the token of the byte before
        within[starts.astype(np.int64)[sizes > 0]] = False
        after = np.flatnonzero(within)
        side_by_side[self._text[after - 1], self._text[after]] = True
        self._specials = tuple(vocabulary.special_tokens)
        late = [text for text in reversed(self._specials) if text in vocabulary.normalized]
        if len(late) == len(self._specials) and not vocabulary.normalizer:  # all alike: the first turn will do
            late = []
        self._late = {self._normal(text): text for text in late}
        self._has_token = byte_ids >= 0  # bool [256]
        self._rules = (byte_ids, byte_ranks, pairs, merged_ids, side_by_side)
        self._caches: list[PieceCache] = []  # those that no thread uses now

    def _how_many(self, threads: int | None) -> int:
        """Threads to use: those of the tokenizer if None."""
        return self.threads if threads is None else how_many(threads)

    def __reduce__(self) -> tuple:
        """What it is made of: Ray and joblib would hand the tables back read-only, as no kernel takes them."""
        return type(self), (self.vocabulary, self.threads)

    def encode(
        self, text: str | bytes, allowed_special: Specials = (), disallowed_special: Specials = "all"
    ) -> list[int]:
        """Ids of the text.

        Special tokens in the text become their ids if allowed ("all" or a set of them; those of `vocabulary.added`
        always are), the longest where several begin at one place. Any other in `disallowed_special` ("all": every one
        that is not allowed) raises SpecialTokenInText, an InputError; the rest are plain text (tiktoken's rule).
        """
        return self.encode_array(text, allowed_special, disallowed_special, threads=1).tolist()

    def encode_array(
        self,
        text: str | bytes,
        allowed_special: Specials = (),
        disallowed_special: Specials = "all",
        threads: int | None = None,
    ) -> np.ndarray:
        """Ids of the text, uint16 or (above 65,536 tokens) uint32 [tokens]; special tokens as in `encode`."""
        allowed, disallowed = self._special_rules(allowed_special, disallowed_special)
        return self._encode(text, allowed, disallowed, self._how_many(threads))

    def encode_batch(
        self,
        texts: Iterable[str | bytes],
        allowed_special: Specials = (),
        disallowed_special: Specials = "all",
        threads: int | None = None,
    ) -> list[np.ndarray]:
        """Ids of each text, in order."""
        check_several("texts", texts, ", or encode one text with encode_array")
        allowed, disallowed = self._special_rules(allowed_special, disallowed_special)

        def work(group: list[str | bytes]) -> list[np.ndarray]:
            result = []
            for some in grouped(group, TOGETHER):
                result += self._encode_short(some) or [self._encode(text, allowed, disallowed) for text in some]
            return result

        groups = in_order(work, grouped(texts, AT_ONCE), self._how_many(threads))
        return [ids for group in groups for ids in group]

    def encode_stream(
        self,
        chunks: Iterable[str | bytes],
        allowed_special: Specials = (),
        disallowed_special: Specials = "all",
        threads: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Ids of one text that comes in chunks, cut anywhere (an open file will do): the same ids as for the whole.

        Memory is bounded by some megabytes a thread and the longest piece, except under patterns that cannot be
        cut anywhere but at special tokens (`regex`, "none"). Errors about special tokens come when they are met.
        InputError for bytes in place of chunks of them.
        """
        if isinstance(chunks, bytes | bytearray | memoryview):
            raise InputError(f"chunks: one {type(chunks).__name__}, not chunks; use encode_array, or give it in a list")
        allowed, disallowed = self._special_rules(allowed_special, disallowed_special)
        cutter = Cutter(self.vocabulary.pattern, allowed + disallowed)

        def work(block: bytes) -> np.ndarray:
            return self._encode_part(block, 0, len(block), allowed, disallowed)

        return in_order(work, blocks(chunks, cutter), self._how_many(threads))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of the ids. Raises InputError for a number that is no id, for text, for an array that is not 1-d."""
        if isinstance(ids, str | bytes | bytearray):
            kind = type(ids).__name__
            raise InputError(f"ids: one {kind}, {ids[:20]!r}; give a list or an array of ids, [15496, 995]")
        known = len(self._spans)
        if isinstance(ids, np.ndarray):
            if ids.size and ids.dtype.kind not in "iu":
                raise InputError(f"ids: an array of {ids.dtype}; ids are integers")
            if ids.ndim != 1:
                raise InputError(f"ids: a {ids.ndim}-d array; ids are a 1-d array, so decode one row at a time")
            may_wrap = ids.dtype.kind == "i" or ids.dtype.itemsize > 4  # when they become uint32
            if may_wrap and len(ids) and not 0 <= ids.min() <= ids.max() < known:
                bad = int(np.flatnonzero((ids < 0) | (ids >= known))[0])
                raise InputError(f"id {ids[bad]} at position {bad}: ids run from 0 to {known - 1}")
            ids = np.ascontiguousarray(ids, np.uint32)
        else:
            try:
                ids = np.frombuffer(array("I", ids), np.uint32)  # much faster than np.array
            except (OverflowError, TypeError) as error:
                raise InputError(f"ids: {error}; ids run from 0 to {known - 1}") from None
        size = decoded_size(ids, self._spans)
        if size < 0:
            raise InputError(f"id {ids[-1 - size]} at position {-1 - size}: ids run from 0 to {known - 1}")
        out = np.empty(size + PADDING, np.uint8)
        decode_ids(ids, self._spans, self._text, out)
        return out[:size].tobytes()

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Text of the ids; `errors` as in bytes.decode for what is not UTF-8.

        Lone surrogates come back as such where all the rest is UTF-8.
        """
        data = self.decode_bytes(ids)
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", errors)

    def _special_rules(self, allowed: Specials, disallowed: Specials) -> tuple[Texts, Texts]:
        """(allowed, disallowed) special tokens."""
        for name, chosen in (("allowed_special", allowed), ("disallowed_special", disallowed)):
            if chosen != "all":
                check_several(name, chosen, ', or "all"')
        chosen = (given if given == "all" else frozenset(given) for given in (allowed, disallowed))
        return special_rules(self._specials, self.vocabulary.added, *chosen)

    def _parts(self, data: np.ndarray, size: int, allowed: Texts, disallowed: Texts) -> Parts:
        """All of data[:size] in parts. SpecialTokenInText for a disallowed one."""
        if size > LONGEST:
            raise InputError(f"text: {size:,} bytes without a place to cut; at most 2 GiB can be encoded at once")
        if not allowed and not disallowed:
            return [(0, size, None)]
        text = data[:size].tobytes()
        if not may_hold(text, self._specials):  # as most texts
            return [(0, size, None)]
        if self._late:
            late = self.vocabulary.normalized
            allowed, disallowed = (tuple(t for t in those if t not in late) for those in (allowed, disallowed))
        return cut_at_specials(text, allowed, disallowed)

    def _encode(self, text: str | bytes, allowed: Texts, disallowed: Texts, threads: int = 1) -> np.ndarray:
        """Ids of one text, a long one in parts."""

        def work(span: tuple[int, int]) -> np.ndarray:
            return self._encode_part(text, *span, allowed, disallowed)

        if len(text) <= AT_ONCE:
            return work((0, len(text)))
        spans = Cutter(self.vocabulary.pattern, allowed + disallowed).spans(text, AT_ONCE)
        return joined(in_order(work, spans, threads), len(text), self.dtype)

    def _free_cache(self) -> PieceCache:
        """One that no other thread uses, to be put back into _caches afterwards: also where a text was refused."""
        try:
            return self._caches.pop()
        except IndexError:
            return PieceCache()

    def _encode_short(self, texts: list[str | bytes]) -> list[np.ndarray]:
        """Ids of each of some short texts, encoded at once, since calling the kernels takes longer than they do.

        An empty list if they are long, may hold a special token, or have to be changed or looked through first.
        """
        simple = self._scan is not None and not self.vocabulary.normalizer and not self.vocabulary.missing_bytes
        if not simple or sum(map(len, texts)) > MOST_TOGETHER:
            return []
        texts = list(map(to_bytes, texts))
        together = b"".join(texts)
        if len(together) > MOST_TOGETHER or may_hold(together, self._specials):
            return []
        cache = self._free_cache()
        try:
            data, size = cache.load(together, 0, len(together))
            stops, ends, found, state = list(accumulate(map(len, texts))), cache.ends, 0, new_state()
            fresh = state.copy()
            for start, stop in pairwise((0, *stops)):
                state[:] = fresh
                state[AT] = start
                found += self._scan(data, state, stop, CLASSES, ends[found:])
            out = cache.room(size)
            n = encode_pieces(data, 0, ends[:found], out, cache.arrays, self._rules, BYTE_MASKS)
            ids = out[:n].astype(self.dtype)
        finally:
            self._caches.append(cache)
        bytes_until = np.cumsum(self._spans[ids] & LOW)  # no token lies in two texts: some end where a text does
        cuts = np.searchsorted(bytes_until, np.array(stops, np.uint64), "right").tolist()
        return [ids[a:b].copy() for a, b in pairwise((0, *cuts))]

    def _encode_part(
        self, text: str | bytes, start: int, end: int, allowed: Texts, disallowed: Texts
    ) -> np.ndarray:
        """Ids of text[start:end], which no piece and no special token crosses the ends of."""
        cache = self._free_cache()
        try:
            data, size = cache.load(text, start, end)
            parts = self._parts(data, size, allowed, disallowed)
            if self.vocabulary.normalizer or self._late:
                normal, parts = self._normalised(data[:size].tobytes(), parts, allowed, disallowed)
                data, size = cache.load(normal, 0, len(normal))
            if self.vocabulary.missing_bytes:
                self._refuse_missing(data[:size])
            out, at = cache.room(size), 0
            for begin, stop, special in parts:
                if special is not None:
                    out[at] = self.vocabulary.special_tokens[special]
                    at += 1
                    continue
                for first, ends in self._pieces(data, begin, stop, cache.ends):
                    at += encode_pieces(data, first, ends, out[at:], cache.arrays, self._rules, BYTE_MASKS)
            return out[:at].astype(self.dtype)
        finally:
            self._caches.append(cache)

    def _normal(self, text: str) -> str:
        """The text in the vocabulary's normal form."""
        form = self.vocabulary.normalizer
        return unicodedata.normalize(form, text) if form else text

    def _normalised(self, data: bytes, parts: Parts, allowed: Texts, disallowed: Texts) -> tuple[bytes, Parts]:
        """The text in the vocabulary's normal form, and its parts there.

        Special tokens stay as they are, and what only becomes like one is none: the Kelvin sign is K in NFC, and
        nobody looks for it in a text that is to hold no [MASK]. Those of `vocabulary.normalized` are looked for here,
        as the normal form writes them. A part between two cuts is normalised as within the whole: at white space, and
        beside special tokens, nothing is joined.
        """
        texts, normal_parts, at = [], [], 0
        late = [tuple(form for form, text in self._late.items() if text in those) for those in (allowed, disallowed)]
        for start, end, special in parts:
            if special is not None:
                texts.append(data[start:end])
                normal_parts.append((at, at + end - start, special))
            else:
                normal = self._normal(data[start:end].decode("utf-8", "surrogateescape"))
                texts.append(normal.encode("utf-8", "surrogateescape"))
                for begin, stop, form in cut_at_specials(texts[-1], *late):
                    normal_parts.append((at + begin, at + stop, self._late.get(form)))
            at += len(texts[-1])
        return b"".join(texts), normal_parts

    def _refuse_missing(self, data: np.ndarray) -> None:
        """InputError for a byte without a token."""
        known = self._has_token[data]
        if not known.all():
            byte = data[np.argmin(known)]
            raise InputError(f"the text has the byte 0x{byte:02x}, for which this tokenizer has no token; take it out")

    def _pieces(self, text: np.ndarray, start: int, end: int, room: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The pieces of text[start:end], some at a time: (start of the first one, where each ends)."""
        if self._scan is None:
            ends = piece_ends(text[start:end].tobytes(), self.vocabulary.pattern)
            if ends:
                yield start, np.array(ends, np.int32) + start
            return
        state, first = new_state(start), start
        while state[AT] < end:
            found = self._scan(text, state, end, CLASSES, room)
            if found:
                yield first, room[:found]
                first = int(room[found - 1])


@lru_cache(maxsize=64)
def special_rules(known: Texts, added: frozenset[str], allowed: Chosen, disallowed: Chosen) -> tuple[Texts, Texts]:
    """(allowed, disallowed) of the special tokens `known`, of which `added` are always allowed."""
    for name, chosen in (("allowed_special", allowed), ("disallowed_special", disallowed)):
        unknown = () if chosen == "all" else chosen.difference(known)
        for text in unknown:
            raise InputError(f"{name}: {text!r} is no special token; there are: {', '.join(known) or 'none'}")
    taken = frozenset(known) if allowed == "all" else allowed | added
    refused = frozenset(known) if disallowed == "all" else disallowed
    return tuple(text for text in known if text in taken), tuple(text for text in known if text in refused - taken)


def cut_at_specials(text: bytes, allowed: Texts, disallowed: Texts) -> Parts:
    """All of the text in parts. SpecialTokenInText for a disallowed one between those that are allowed."""
    parts = split_specials(text, allowed)
    possible = possible_specials(text, disallowed)
    for special in filter(possible.__contains__, disallowed):
        token = to_bytes(special)
        if any(other is None and text.find(token, start, end) >= 0 for start, end, other in parts):
            raise SpecialTokenInText(special)
    return parts


def in_order(work: Callable, items: Iterable, threads: int) -> Iterator:
    """work(item) of each item, in order; with several threads a few items ahead of the one that is waited for."""
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads + 2:  # so that no thread runs dry while the next item is made
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def grouped(texts: Iterable[str | bytes], size: int) -> Iterator[list[str | bytes]]:
    """Texts that follow each other in lists, each (but the last) of `size` characters or more together."""
    group, total = [], 0
    for text in texts:
        group.append(text)
        total += len(text)
        if total >= size:
            yield group
            group, total = [], 0
    if group:
        yield group


def joined(parts: Iterable[np.ndarray], size: int, dtype: np.dtype) -> np.ndarray:
    """All parts end to end. `size` is about how many numbers they are; room that is not used is never touched."""
    result, at = np.empty(size, dtype), 0
    for part in parts:
        if at + len(part) > len(result):
            larger = np.empty(2 * (at + len(part)), dtype)
            larger[:at] = result[:at]
            result = larger
        result[at : at + len(part)] = part
        at += len(part)
    result.resize(at, refcheck=False)
    return result


class StreamingDecoder:
    """Turns ids into text as they come, holding back bytes that may begin a character.

    >>> decoder = StreamingDecoder(tokenizer)                             # doctest: +SKIP
    >>> "".join(decoder.add([n]) for n in ids) + decoder.end()            # doctest: +SKIP
    """

    def __init__(self, tokenizer: Tokenizer, errors: str = "replace"):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)

    def add(self, ids: Iterable[int]) -> str:
        """Text that is certain now."""
        return self._decoder.decode(self._tokenizer.decode_bytes(ids))

    def end(self) -> str:
        """What was held back; an unfinished character is treated as `errors` says."""
        return self._decoder.decode(b"", final=True)
