r"""GPT-4o's split (o200k; also GPT-OSS's and Llama 4's) as a compiled scanner, imported where a text is split so.

A word is, after one character that is neither letter nor digit, capitals and then small letters, at least one; or else
capitals alone. Letters without case, and marks, are both. So `camelCase` and `HTMLParser` become camel, Case and
HTMLParser: of many capitals before a small letter none is set apart.
"""

import numpy as np
import regex
from compiled import READ_ONLY_BYTES, inlined, kernel
from scanner import AT, INVALID, contraction_gpt4, decode, digits_end, spaces_end

# Class of a character; the first two are bits, and a letter without case has both
UPPER, LOWER, MARK, DIGIT, SPACE, OTHER = 1, 2, 4, 8, 16, 32
CASED = UPPER | LOWER


def cases() -> np.ndarray:
    """uint8 [0x110000]: class of each code point by the `regex` module."""
    found = np.full(0x110000, OTHER, np.uint8)
    text = np.arange(0x110000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    for number, pattern in (
        (UPPER, r"[\p{Lu}\p{Lt}]+"), (LOWER, r"\p{Ll}+"), (CASED, r"[\p{Lm}\p{Lo}]+"), (CASED | MARK, r"\p{M}+"),
        (DIGIT, r"\p{N}+"), (SPACE, r"\s+"),
    ):  # fmt: skip
        for run in regex.finditer(pattern, text):
            found[run.start() : run.end()] = number
    return found


CASES = cases()


@inlined
def case_at(data, at, end, cases, state):
    """(class, bytes) of the character at `at`; notes the first that is not UTF-8."""
    point, size = decode(data, at, end)
    if point < 0:
        if state[INVALID] < 0:
            state[INVALID] = at
        return np.int64(OTHER), size
    return np.int64(cases[point]), size


@inlined
def word_ends(data, at, end, cases, state):
    """Where `U*W+` and where `U+W*` end that begin at `at`, -1 for none; U are capitals, W small letters."""
    start, with_small = at, np.int64(-1)
    kind, size = case_at(data, at, end, cases, state) if at < end else (np.int64(OTHER), 0)
    while kind & UPPER:
        at += size
        if kind & LOWER:
            with_small = at  # U* may stop before this one
        kind, size = case_at(data, at, end, cases, state) if at < end else (np.int64(OTHER), 0)
    capitals = at
    while kind & LOWER:
        at += size
        with_small = at
        kind, size = case_at(data, at, end, cases, state) if at < end else (np.int64(OTHER), 0)
    return with_small, capitals if capitals > start else np.int64(-1)


@kernel(f"int64({READ_ONLY_BYTES}, int64[::1], int64, uint8[::1], int32[::1])")
def o200k_ends(data, state, end, cases, ends):
    """Write where pieces end, as scanner.like_gpt4_ends does."""
    count = 0
    at = state[AT]
    while at < end and count < ends.shape[0]:
        kind, size = case_at(data, at, end, cases, state)
        line_break = data[at] == 10 or data[at] == 13
        word = np.int64(-1)
        if kind & CASED and not kind & MARK:
            small, capitals = word_ends(data, at, end, cases, state)
            word = small if small >= 0 else capitals
        elif kind != DIGIT and not line_break:  # any one character goes with the letters after it
            small, capitals = word_ends(data, at + size, end, cases, state)
            alone, _ = word_ends(data, at, end, cases, state)  # a mark may begin a word as well
            word = small if small >= 0 else (alone if alone >= 0 else capitals)
        if word >= 0:
            at = word
            if at < end and data[at] == ord("'"):
                contraction = contraction_gpt4(data, at, end)
                at += contraction + (contraction > 0)
        elif kind == DIGIT:
            at = digits_end(data, at, end, cases, DIGIT, 3)
        else:
            following = np.int64(SPACE)
            if at + size < end:
                following, _ = case_at(data, at + size, end, cases, state)
            if kind & (OTHER | MARK) or (data[at] == 32 and following & (OTHER | MARK)):
                at += size
                while at < end:
                    kind, size = case_at(data, at, end, cases, state)
                    if not kind & (OTHER | MARK):
                        break
                    at += size
                while at < end and (data[at] == 10 or data[at] == 13 or data[at] == ord("/")):
                    at += 1
            else:
                at = spaces_end(data, at, end, cases, SPACE, False)
        ends[count] = at
        count += 1
    state[AT] = at
    return count
