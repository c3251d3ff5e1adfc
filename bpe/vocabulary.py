"""What a byte-level BPE tokenizer is, apart from any file format or algorithm: its tokens, its merges in
order, its special tokens and the pattern that splits text into pieces.

    >>> vocabulary = Vocabulary.build(range(256), [(104, 105)], ["<|endoftext|>"], specials_first=False)
    >>> vocabulary.token_bytes[256], vocabulary.special_tokens
    (b'hi', {'<|endoftext|>': 257})
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Literal, get_args

PATTERNS = ("gpt2", "gpt4", "none")  # the splits that have a name; anything else is a regular expression
MOST_TOKENS = 1 << 20  # ids take 20 bits in the encoder's table of pairs (ranked_merges.py)
Ties = Literal["hf", "ids", "first", "bytes"]  # see basic.BasicTokenizer


class InputError(ValueError):
    """A user's mistake: the message names the value and what to do about it."""


class SpecialTokenInText(InputError):  # noqa: N818 (says what is wrong, its base that it is an error)
    """The text contains the special token `token`, which is not allowed there."""

    def __init__(self, token: str):
        super().__init__(token)
        self.token = token

    def __str__(self) -> str:
        return (
            f"the text contains the special token {self.token!r}: allow it with allowed_special, "
            "or take it as plain text with disallowed_special=()"
        )


def check_ties(ties: str) -> None:
    """Raise InputError unless there is such a tie rule."""
    if ties not in get_args(Ties):
        raise InputError(f"ties: {ties!r} is none of {', '.join(get_args(Ties))}")


def check_several(name: str, given: object, otherwise: str = "") -> None:
    """Raise InputError for one text in place of several: taken as a collection it would be its letters."""
    if isinstance(given, str | bytes | bytearray):
        kind = type(given).__name__
        raise InputError(f"{name}: one {kind}, {given!r}, not several; give a list, [{given!r}]{otherwise}")


def check_size(vocab_size: int, special_tokens: Collection[str] = (), name: str = "vocab_size") -> None:
    """Raise InputError if the bytes and special tokens find no room (it begins with `name`), ids are too many, or a
    special token is there twice.
    """
    check_several("special_tokens", special_tokens)
    if len(set(special_tokens)) < len(special_tokens):
        raise InputError(f"special_tokens: {' '.join(special_tokens)}: one is there twice")
    least = 256 + len(special_tokens)
    if vocab_size < least:
        raise InputError(f"{name} {vocab_size}: 256 bytes + {len(special_tokens)} special tokens need at least {least}")
    if vocab_size > MOST_TOKENS:
        raise InputError(f"{name} {vocab_size}: must be at most {MOST_TOKENS:,}")


def to_bytes(text: str | bytes) -> bytes:
    """UTF-8 of a str. Lone surrogates become the three bytes of their code point, so that none is lost.

    InputError for what is no text: bytes(3) would be three zeros.
    """
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    try:
        return bytes(memoryview(text))
    except TypeError:
        kind = type(text).__name__
        raise InputError(f"text: {repr(text)[:40]} is neither str nor bytes, but of type {kind}") from None


def mapped_code_points() -> list[int]:
    """Code point under which GPT-2's files write each byte, index = byte.

    Printable bytes stand for themselves; the other 68 (controls, space, 0xAD ...) move to U+0100 and up, in
    order, so that a vocabulary is readable JSON: a space is written U+0120.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    points = dict(zip(printable, printable, strict=True))
    others = [byte for byte in range(256) if byte not in points]
    points.update({byte: 256 + n for n, byte in enumerate(others)})
    return [points[byte] for byte in range(256)]


def without_token(tokens: Collection[bytes]) -> frozenset[int]:
    """Bytes that are none of the tokens."""
    return frozenset(byte for byte in range(256) if bytes([byte]) not in tokens)


def byte_order(ties: str) -> list[int]:
    """Bytes in the order of their ids: by mapped code point under "hf", raw 0..255 under other tie rules."""
    if ties == "hf":
        points = mapped_code_points()
        return sorted(range(256), key=points.__getitem__)
    return list(range(256))


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and merges of a byte-level BPE tokenizer.

    Raises InputError, naming the field, for: an id without bytes or used twice, a missing byte, two tokens
    with the same bytes, a merge of unknown or special tokens, a merge that does not make its parts joined.
    """

    token_bytes: list[bytes]  # id -> bytes; a special token's are its text in UTF-8
    merges: list[tuple[int, int]]  # (left id, right id), in the order learned: the index is the rank
    merged_ids: list[int]  # the id that each merge makes
    special_tokens: dict[str, int] = field(default_factory=dict)  # text -> id
    pattern: str = "gpt2"  # "gpt2", "gpt4", "none" or a regular expression of the `regex` package
    added: frozenset[str] = frozenset()  # those of special_tokens that any text may hold (HF's `"special": false`)
    normalizer: str = ""  # "NFC": text is brought into that form first, and is that when decoded (Qwen's)
    normalized: frozenset[str] = frozenset()  # those of special_tokens that are looked for last, in the normal form
    missing_bytes: frozenset[int] = frozenset()  # bytes without a token, which no text may hold (SmolLM2: 0x04 ...)

    @classmethod
    def build(
        cls,
        bytes_in_order: Iterable[int],
        merges: Sequence[tuple[int, int]],
        special_tokens: Sequence[str] = (),
        pattern: str = "gpt2",
        specials_first: bool = True,
    ) -> "Vocabulary":
        """Vocabulary whose ids are dense: [specials], 256 bytes, one token for each merge, [specials].

        The merges' ids already count the specials in front. `specials_first` is Hugging Face's order, last is
        tiktoken's and minbpe's.
        """
        check_several("special_tokens", special_tokens)
        specials = [to_bytes(text) for text in special_tokens]
        tokens = specials if specials_first else []
        tokens = tokens + [bytes([byte]) for byte in bytes_in_order]
        first_merged = len(tokens)
        for left, right in merges:
            tokens.append(tokens[left] + tokens[right])
        merged_ids = list(range(first_merged, len(tokens)))
        first_special = 0 if specials_first else len(tokens)
        if not specials_first:
            tokens = tokens + specials
        special_ids = {text: first_special + n for n, text in enumerate(special_tokens)}
        return cls(tokens, list(map(tuple, merges)), merged_ids, special_ids, pattern)

    def __len__(self) -> int:
        return len(self.token_bytes)

    def with_special_tokens(self, texts: Sequence[str]) -> "Vocabulary":
        """More special tokens, behind the last id: InputError for one that is there already or cannot be seen."""
        known = dict(self.special_tokens)
        for text in texts:
            if text in known:
                raise InputError(f"special_tokens: {text!r} is there already, with id {known[text]}; leave it out")
            if not text.strip() or not text.isprintable():
                raise InputError(f"special_tokens: {text!r} must be printable text, and not only spaces")
            if to_bytes(text) in self.token_bytes:
                raise InputError(f"special_tokens: {text!r} is spelled like an ordinary token; choose a longer text")
            known[text] = len(known) - len(self.special_tokens) + len(self)
        return replace(self, token_bytes=[*self.token_bytes, *map(to_bytes, texts)], special_tokens=known)

    @cached_property
    def byte_ids(self) -> list[int]:
        """Id of each single byte, index = byte; -1 for one of missing_bytes."""
        special_ids = set(self.special_tokens.values())
        ids = {t[0]: n for n, t in enumerate(self.token_bytes) if len(t) == 1 and n not in special_ids}
        return [ids.get(byte, -1) for byte in range(256)]

    @cached_property
    def ranks(self) -> dict[tuple[int, int], int]:
        """Pair of ids -> rank of their merge."""
        return {pair: rank for rank, pair in enumerate(self.merges)}

    def __post_init__(self):
        size = len(self.token_bytes)
        special_ids: set[int] = set()
        for text, n in self.special_tokens.items():
            if not isinstance(text, str) or not text:
                raise InputError(f"special_tokens: {text!r} is not a non-empty string")
            if not isinstance(n, int) or not 0 <= n < size:
                raise InputError(f"special_tokens: {text!r} has id {n!r}; ids run from 0 to {size - 1}")
            if n in special_ids:
                raise InputError(f"special_tokens: id {n} is given to two special tokens")
            if self.token_bytes[n] != to_bytes(text):
                raise InputError(f"special_tokens: {text!r} has id {n}, which is {self.token_bytes[n]!r}")
            special_ids.add(n)
        self._check_tokens(special_ids)
        self._check_merges(special_ids)

    # Both look at all tokens or merges at once, and one by one only to find which is wrong: twice as fast.

    def _check_tokens(self, special_ids: set[int]) -> None:
        ordinary = [token for n, token in enumerate(self.token_bytes) if n not in special_ids]
        distinct = set(ordinary)
        if set(map(type, ordinary)) <= {bytes} and len(distinct) == len(ordinary) and b"" not in distinct:
            missing = without_token(distinct) - self.missing_bytes
            if missing:
                raise InputError(
                    f"token_bytes: no token for the byte 0x{min(missing):02x}; all 256 are needed. If the file is"
                    " whole, as SmolLM2's is, missing_bytes takes its tokenizer.json, and refuses texts with such bytes"
                )
            return
        seen: dict[bytes, int] = {}
        for n, token in enumerate(self.token_bytes):
            if not isinstance(token, bytes):
                raise InputError(f"token_bytes: id {n} has no bytes: the ids must run from 0 without a gap")
            if n in special_ids:
                continue
            if not token:
                raise InputError(f"token_bytes: id {n} is empty")
            if token in seen:
                raise InputError(f"token_bytes: ids {seen[token]} and {n} are both {token!r}")
            seen[token] = n

    def _check_merges(self, special_ids: set[int]) -> None:
        tokens, size = self.token_bytes, len(self.token_bytes)
        if len(self.merges) != len(self.merged_ids):
            raise InputError(f"merged_ids: {len(self.merged_ids)} ids for {len(self.merges)} merges")
        named = {*chain.from_iterable(self.merges), *self.merged_ids}
        if (
            0 <= min(named, default=0) <= max(named, default=0) < size
            and named.isdisjoint(special_ids)
            and [tokens[left] + tokens[right] for left, right in self.merges] == [tokens[n] for n in self.merged_ids]
            and len(set(self.merges)) == len(self.merges)
        ):
            return
        pairs: dict[tuple[int, int], int] = {}
        for rank, (pair, n) in enumerate(zip(self.merges, self.merged_ids, strict=True)):
            if not all(0 <= part < size for part in (*pair, n)):
                raise InputError(f"merges: merge {rank}, {pair} -> {n}, names an id outside 0..{size - 1}")
            if special_ids.intersection((*pair, n)):
                raise InputError(f"merges: merge {rank}, {pair} -> {n}, involves a special token")
            if tokens[pair[0]] + tokens[pair[1]] != tokens[n]:
                parts = " + ".join(repr(tokens[part]) for part in pair)
                raise InputError(f"merges: merge {rank}, {parts}, makes {tokens[n]!r} instead")
            if pairs.setdefault(pair, rank) != rank:
                raise InputError(f"merges: {pair} is merged twice, at ranks {pairs[pair]} and {rank}")
