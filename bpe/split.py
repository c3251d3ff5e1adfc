r"""Cutting text: at special tokens first, then into the pieces that merges never cross.

A pattern is "gpt2", "gpt4" (cl100k), "none" (the text between two special tokens is one piece) or any regular
expression. Everything here works on bytes, through `regex`; `scanner.py` does the two named patterns about a
hundred times faster, and some that are like them, and is tested against this file.

    >>> split_pieces(b"Hello world's  end", "gpt2")
    [b'Hello', b' world', b"'s", b' ', b' end']
    >>> split_specials(b"a<|end|>b", ["<|end|>"])
    [(0, 1, None), (1, 8, '<|end|>'), (8, 9, None)]
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise

import numpy as np
import regex
from vocabulary import InputError, to_bytes

# Both as tiktoken 0.14 states them, `$` being the very end of the text.
PATTERN_OF = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
}
# Llama 3's and Qwen's, as their files spell them, minbpe's and nanochat's. They differ from "gpt4" in two things only:
# how many digits go together, and whether white space at the end of the text stays whole.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MINBPE = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
QWEN, NANOCHAT = LLAMA3.replace("{1,3}", ""), MINBPE.replace("{1,3}", "{1,2}")
LIKE_GPT4 = {"gpt4": (3, True), LLAMA3: (3, False), QWEN: (1, False), MINBPE: (3, False), NANOCHAT: (2, False)}
# GPT-4o's (GPT-OSS's, Llama 4's)
O200K = "|".join((
    *(r"[^\r\n\p{L}\p{N}]?" + word + r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?" for word in (
        r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
        r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    )),
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
))  # fmt: skip
WITH_CUTS = ("gpt2", *LIKE_GPT4, O200K)  # those that can be cut at spaces: see Cutter
FEW_SPECIALS = 4  # special tokens that are looked for one by one
SECONDS_AT_LEAST = 5
SECONDS_PER_MEGABYTE = 20  # time that `regex` may take; the named patterns need about 0.4
IS_SPACE = np.zeros(256, bool)  # of a byte: whether it is white space of ASCII
IS_SPACE[list(b"\t\n\v\f\r ")] = True


@lru_cache(maxsize=64)
def compile_pattern(pattern: str) -> regex.Pattern | None:
    """Compiled pattern, None for "none". Raises InputError if it is not a regular expression, or only a name."""
    if pattern == "none":
        return None
    if not isinstance(pattern, str) or not pattern:
        raise InputError(f"pattern: {pattern!r} is neither gpt2, gpt4, none nor a regular expression")
    if pattern not in PATTERN_OF and re.fullmatch(r"[\w-]+", pattern):
        raise InputError(f"pattern: {pattern!r} is none of gpt2, gpt4 and none, and no expression that cuts text")
    try:
        return regex.compile(PATTERN_OF.get(pattern, pattern))
    except regex.error as error:
        raise InputError(f"pattern: {pattern!r} is not a regular expression: {error}") from None


def piece_ends(data: bytes, pattern: str) -> list[int]:
    """Byte offset at which each piece of `data` ends. Text that the pattern skips makes pieces of its own.

    Bytes that are not UTF-8 count as characters that are neither letter, digit nor space, one for each byte.
    Raises InputError if the pattern takes too long (catastrophic backtracking).
    """
    compiled = compile_pattern(pattern)
    if compiled is None:
        return [len(data)] if data else []
    text = data.decode("utf-8", "surrogateescape")
    seconds = SECONDS_AT_LEAST + SECONDS_PER_MEGABYTE * len(data) / 1e6
    ends, at = [], 0  # in characters
    try:
        for match in compiled.finditer(text, timeout=seconds):
            start, end = match.span()
            if end > start:
                if start > at:
                    ends.append(start)
                ends.append(end)
                at = end
    except TimeoutError:
        raise InputError(
            f"pattern: {pattern!r} did not finish within {seconds:.0f} s on {len(data):,} bytes; "
            "it probably backtracks without end: make its repetitions possessive (`++`)"
        ) from None
    if at < len(text):
        ends.append(len(text))
    if len(text) == len(data):
        return ends
    sizes = [len(text[a:b].encode("utf-8", "surrogateescape")) for a, b in pairwise([0, *ends])]
    return np.cumsum(sizes).tolist()


def split_pieces(data: bytes, pattern: str) -> list[bytes]:
    """Pieces of `data`, which join to it again."""
    ends = piece_ends(data, pattern)
    return [data[a:b] for a, b in pairwise([0, *ends])]


@lru_cache(maxsize=64)
def _holders(specials: tuple[str, ...]) -> tuple[dict[bytes, list[tuple[int, bytes, str]]], re.Pattern]:
    """{core: [(where it holds the core, token, text), ...]}, no core holding another, and what finds any core."""
    holders: dict[bytes, list[tuple[int, bytes, str]]] = {}
    for token, text in sorted(((to_bytes(text), text) for text in specials), key=lambda item: len(item[0])):
        core = next((core for core in holders if core in token), token)
        holders.setdefault(core, []).append((token.find(core), token, text))
    for those in holders.values():
        those.sort(key=lambda holder: (-holder[0], -len(holder[1])))  # the first that fits begins first, or is longer
    return holders, re.compile(b"|".join(map(re.escape, holders)))


def _occurring(data: bytes | bytearray, holders: dict, any_core: re.Pattern) -> Iterable[bytes]:
    """The cores that occur in `data`: many are looked for at once, for most of them are in no text."""
    if len(holders) <= FEW_SPECIALS:
        return holders
    found, at = set(), 0
    while match := any_core.search(data, at):
        found.add(match[0])
        at = match.start() + 1  # the next one may overlap it
    return [core for core in holders if core in found]


def may_hold(data: bytes | bytearray, specials: tuple[str, ...]) -> bool:
    """Whether `data` may hold any of the special tokens."""
    holders, any_core = _holders(specials)
    return any(core in data for core in holders) if len(holders) <= FEW_SPECIALS else bool(any_core.search(data))


def possible_specials(data: bytes | bytearray, specials: Iterable[str]) -> set[str]:
    """Those of the special tokens that `data` may hold; it holds none of the others."""
    holders, any_core = _holders(tuple(specials))
    return {text for core in _occurring(data, holders, any_core) for _, _, text in holders[core]}


def split_specials(data: bytes | bytearray, specials: Iterable[str]) -> list[tuple[int, int, str | None]]:
    """(start, end, special token or None) over all of `data`: leftmost first, the longest where two begin.

    `bytes.find` for each token that occurs, which runs at memory speed, keeps the next place of each; a token that
    holds another, as a line with `<|endoftext|>` does, is looked for around that one only.
    """
    holders, any_core = _holders(tuple(specials))
    next_at = {core: data.find(core) for core in _occurring(data, holders, any_core)}
    parts: list[tuple[int, int, str | None]] = []
    at = 0
    while any(place >= 0 for place in next_at.values()):
        found = []
        for core, place in next_at.items():
            for before, token, text in holders[core] if place >= 0 else ():
                if place - before >= at and data.startswith(token, place - before):
                    found.append((place - before, -len(token), text))
                    break
        start, size, text = min(found)
        if start > at:
            parts.append((at, start, None))
        at = start - size
        parts.append((start, at, text))
        for core, place in next_at.items():
            if 0 <= place < at:
                next_at[core] = data.find(core, at)
    if at < len(data):
        parts.append((at, len(data), None))
    return parts


class Cutter:
    """Finds places where text may be cut so that both sides split exactly as the whole would.

    gpt2: before a space character that follows another character, since no piece crosses that place and no
    look-ahead reaches over it. gpt4 and its like: the same except before a line break, which punctuation takes along
    (GPT-4o's also a slash); and after a line break that anything else follows. Others: beside a special token only.
    """

    def __init__(self, pattern: str, specials: Iterable[str] = ()):
        self.pattern = pattern
        self.tokens = [to_bytes(text) for text in specials]
        self.reach = max(map(len, self.tokens), default=1)  # bytes that decide whether a token lies across a cut

    def cuts(self, data: bytes | bytearray, low: int, high: int, last: bool = False) -> Iterator[int]:
        """Safe places p, low <= p <= high, in order (or from the last back). Reads `reach` + 4 bytes around p."""
        if self.pattern in WITH_CUTS:
            candidates = self._at_spaces(data, low, high)
        else:
            candidates = self._at_specials(data, low, high)
        if last:
            candidates.reverse()
        return (p for p in candidates if self._stands(data, p))

    def last_cut(self, data: bytes | bytearray, size: int) -> int:
        """The last safe place within data[:size] that what follows cannot change; 0 if there is none."""
        high = size - self.reach
        step = 256
        while high > 0:
            low = max(1, high - step)
            for p in self.cuts(data, low, high, last=True):
                return p
            high, step = low - 1, step * 8
        return 0

    def spans(self, text: str | bytes, size: int) -> Iterator[tuple[int, int]]:
        """(start, end) of parts of a text in memory, each cut at the first safe place after `size` characters."""
        start = 0
        while start < len(text):
            end = self._place_after(text, start + size)
            yield start, end
            start = end

    def _place_after(self, text: str | bytes, at: int) -> int:
        """First safe place at or after `at`, the end of the text if there is none. In characters, if it is a str."""
        margin, window = self.reach + 4, 64
        start = max(0, at - margin)
        while at < len(text):
            data = to_bytes(text[start : at + window])
            whole = at + window >= len(text)
            for p in self.cuts(data, len(to_bytes(text[start:at])), len(data) - (1 if whole else margin)):
                return start + (len(data[:p].decode("utf-8", "surrogatepass")) if isinstance(text, str) else p)
            if whole:
                break
            window *= 8
        return len(text)

    def _at_spaces(self, data, low, high) -> list[int]:
        low = max(low, 1)
        window = np.frombuffer(data, np.uint8, max(high + 1 - (low - 1), 0), low - 1) if high >= low else []
        if len(window) < 2:
            return []
        space = IS_SPACE[window]
        line_break = (window == 10) | (window == 13)
        before, after = slice(None, -1), slice(1, None)
        good = space[after] & ~space[before]
        if self.pattern != "gpt2":
            # a byte >= 0x80 may begin a space of Unicode: only ASCII is certain here
            good &= ~line_break[after]
            good |= line_break[before] & ~space[after] & (window[after] < 0x80) & (window[after] != ord("/"))
        return [low + int(p) for p in np.flatnonzero(good) if self._after_a_character(data, low + int(p))]

    @staticmethod
    def _after_a_character(data, p: int) -> bool:
        """Whether the character before p is one that settles: not a Unicode space, or else an ASCII line break."""
        if data[p - 1] < 0x80:
            return True
        character = bytes(data[max(0, p - 4) : p]).decode("utf-8", "ignore")[-1:]
        return bool(character) and not character.isspace()

    def _at_specials(self, data, low, high) -> list[int]:
        """Ends of special tokens that no other token overlaps at their start."""
        places = set()
        for token in self.tokens:
            at = data.find(token, max(0, low - len(token)), high)
            while at >= 0:
                if low <= at + len(token) <= high and self._stands(data, at):
                    places.add(at + len(token))
                at = data.find(token, at + 1, high)
        return sorted(places)

    def _stands(self, data, p: int) -> bool:
        """Whether no special token lies across p."""
        return not any(token in data[max(0, p - len(token) + 1) : p + len(token) - 1] for token in self.tokens)
