"""The patterns "gpt2" and "gpt4", and those like it (see split.py), as compiled scanners over UTF-8 bytes.

All write the byte offsets at which pieces end, and can stop and go on: the state says where. They agree with
`regex` on every text, also on bytes that are not UTF-8, each of which counts as a character of class OTHER.
"""

import numpy as np
import regex
from bit_masks import lowest_bit, masks64
from compiled import READ_ONLY_BYTES, inlined, kernel
from split import LIKE_GPT4, O200K

U = np.uint64  # numba makes a float of int64 with uint64, so every operand of bit arithmetic is one of these
ONE, ALL = U(1), U(0xFFFFFFFFFFFFFFFF)
OTHER, LETTER, DIGIT, SPACE = 0, 1, 2, 3

# Where a scanner stands between two calls. The CARRY_ fields say of the byte before the block what it was.
AT, INVALID, FIRST, CARRY_LETTER, CARRY_DIGIT, CARRY_SPACE, CARRY_BLANK = range(7)
OPEN_BYTES, OPEN_CLASS, NO_START, START = range(7, 11)


def character_classes() -> np.ndarray:
    r"""uint8 [0x110000]: class of each code point by the `regex` module: \p{L}, \p{N}, \s, or none of them."""
    classes = np.zeros(0x110000, np.uint8)
    text = np.arange(0x110000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    for number, pattern in ((LETTER, r"\p{L}+"), (DIGIT, r"\p{N}+"), (SPACE, r"\s+")):
        for run in regex.finditer(pattern, text):
            classes[run.start() : run.end()] = number
    return classes


def new_state(start: int = 0) -> np.ndarray:
    """State of a scanner at the start of a text: as if a line break stood before it."""
    state = np.zeros(11, np.int64)
    state[AT], state[INVALID], state[FIRST], state[CARRY_SPACE] = start, -1, 1, 1
    return state


@inlined
def decode(data, at, end):
    """(code point, bytes) of the character at `at`; (-1, 1) if the bytes before `end` are not UTF-8 there.

    Not UTF-8 are also code points written too long, above U+10FFFF, and surrogates.
    """
    first = np.int64(data[at])
    if first < 0x80:
        return first, 1
    second = np.int64(data[at + 1]) ^ 0x80 if at + 1 < end else 0x80
    if first < 0xC2 or second >= 0x40:
        return -1, 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | second, 2
    third = np.int64(data[at + 2]) ^ 0x80 if at + 2 < end else 0x80
    if third >= 0x40:
        return -1, 1
    if first < 0xF0:
        point = (first & 0x0F) << 12 | second << 6 | third
        if point < 0x800 or 0xD800 <= point < 0xE000:
            return -1, 1
        return point, 3
    fourth = np.int64(data[at + 3]) ^ 0x80 if at + 3 < end else 0x80
    if fourth >= 0x40:
        return -1, 1
    point = (first & 0x0F) << 18 | second << 12 | third << 6 | fourth
    if point < 0x10000 or point > 0x10FFFF:
        return -1, 1
    return point, 4


@inlined
def class_at(data, at, end, classes):
    """(class, bytes) of the character at `at`."""
    point, size = decode(data, at, end)
    return (np.int64(classes[point]) if point >= 0 else OTHER), size


@kernel(f"int64({READ_ONLY_BYTES}, int64[::1], int64, uint8[::1], int32[::1])")
def gpt2_ends(data, state, end, classes, ends):
    r"""Write where pieces of data[state[AT] : end] end; returns how many. Call again until state[AT] == end.

    Works on 64 bytes at a time: bit k of a mask speaks of byte k. Each byte gets the class of its character, and
    GPT-2's pattern then says of nearly every byte from its neighbours' classes whether a piece starts there:

    - not a space: if the class changes, or after a space other than a blank (a blank goes with what follows it);
    - a space: if it is the first of its run, or the last before something else: `\s+(?!\S)` leaves one.

    The contractions ('s, 'll ...) are patched in, each where an apostrophe starts a piece. Characters of several
    bytes are decoded one by one and set their bits in the masks.
    """
    count = 0
    at = state[AT]
    while at < end and count + 65 <= ends.shape[0]:
        letter, digit, space, blank, apostrophe, high = masks64(data, at)
        left = end - at
        valid = ALL
        if left < 64:  # after the end all is space, so that a last run of spaces stays whole
            valid = (ONE << U(left)) - ONE
            letter &= valid
            digit &= valid
            blank &= valid
            apostrophe &= valid
            high &= valid
            space = (space & valid) | ~valid

        # characters of several bytes
        wide_space = U(0)  # all bytes of wide spaces; they start a piece only at
        wide_start = U(0)  # these places
        if high:
            open_bytes = state[OPEN_BYTES]
            if open_bytes > 0:  # the last character of the block before goes on here
                bits = (ONE << U(open_bytes)) - ONE
                if state[OPEN_CLASS] == LETTER:
                    letter |= bits
                elif state[OPEN_CLASS] == DIGIT:
                    digit |= bits
                elif state[OPEN_CLASS] == SPACE:
                    space |= bits
                    wide_space |= bits
                high &= ~bits
                state[OPEN_BYTES] = 0
            while high:
                place = lowest_bit(high)
                point, size = decode(data, at + place, end)
                if point < 0:
                    kind = OTHER
                    if state[INVALID] < 0:
                        state[INVALID] = at + place
                else:
                    kind = np.int64(classes[point])
                bits = ((ONE << U(size)) - ONE) << U(place)
                if place + size > 64:
                    state[OPEN_BYTES] = place + size - 64
                    state[OPEN_CLASS] = kind
                if kind == LETTER:
                    letter |= bits
                elif kind == DIGIT:
                    digit |= bits
                elif kind == SPACE:
                    space |= bits
                    wide_space |= bits
                    following = at + place + size
                    last = following < end and class_at(data, following, end, classes)[0] != SPACE
                    before = state[CARRY_SPACE] != 0 if place == 0 else (space >> U(place - 1)) & ONE != U(0)
                    if last or not before:
                        wide_start |= ONE << U(place)
                high &= ~bits

        next_space = ONE  # whether the byte after the block is part of a space
        if left > 64:
            if state[OPEN_BYTES] > 0:
                next_space = U(state[OPEN_CLASS] == SPACE)
            else:
                next_space = U(class_at(data, at + 64, end, classes)[0] == SPACE)
        after_letter = (letter << ONE) | U(state[CARRY_LETTER])
        after_digit = (digit << ONE) | U(state[CARRY_DIGIT])
        after_space = (space << ONE) | U(state[CARRY_SPACE])
        after_blank = (blank << ONE) | U(state[CARRY_BLANK])
        before_space = (space >> ONE) | (next_space << U(63))
        changed = (letter ^ after_letter) | (digit ^ after_digit)
        starts = space & (~after_space | ~before_space)
        starts |= ~space & ((after_space & ~after_blank) | (~after_space & changed))
        starts = (starts & ~wide_space) | wide_start

        starts = (starts & ~U(state[NO_START])) | U(state[START])
        no_start, start = 0, 0  # of the next block
        candidates = apostrophe & starts
        while candidates:
            place = lowest_bit(candidates)
            candidates &= candidates - ONE
            x = at + place
            size = 0
            if x + 1 < end:
                c = data[x + 1]
                if c == ord("s") or c == ord("d") or c == ord("m") or c == ord("t"):
                    size = 2
                elif x + 2 < end:
                    d = data[x + 2]
                    if (c == ord("l") and d == ord("l")) or (d == ord("e") and (c == ord("v") or c == ord("r"))):
                        size = 3
            if size > 0:
                if place + 1 < 64:
                    starts &= ~(ONE << U(place + 1))
                else:
                    no_start = 1
                if x + size < end:
                    if place + size < 64:
                        starts |= ONE << U(place + size)
                    else:
                        start |= 1 << (place + size - 64)
        state[CARRY_LETTER] = np.int64(letter >> U(63))
        state[CARRY_DIGIT] = np.int64(digit >> U(63))
        state[CARRY_SPACE] = np.int64(space >> U(63))
        state[CARRY_BLANK] = np.int64(blank >> U(63))
        state[NO_START] = no_start
        state[START] = start

        starts &= valid
        if state[FIRST]:  # a piece starts here, none ends
            starts &= ~ONE
            state[FIRST] = 0
        while starts:
            ends[count] = at + lowest_bit(starts)
            count += 1
            starts &= starts - ONE
        at += 64
    if at >= end and state[AT] < end:
        at = end
        ends[count] = end
        count += 1
    state[AT] = at
    return count


@inlined
def contraction_gpt4(data, at, end):
    """Bytes of `'(?i:[sdmt]|ll|ve|re)` after the apostrophe at `at`, 0 if it is none. U+017F folds to s."""
    if at + 1 >= end:
        return 0
    c = data[at + 1] | 0x20
    if c == ord("s") or c == ord("d") or c == ord("m") or c == ord("t"):
        return 1
    if at + 2 < end:
        d = data[at + 2] | 0x20
        if (c == ord("l") and d == ord("l")) or (d == ord("e") and (c == ord("v") or c == ord("r"))):
            return 2
        if data[at + 1] == 0xC5 and data[at + 2] == 0xBF:
            return 2
    return 0


@inlined
def run_end(data, at, end, classes, wanted, state):
    """End of the run of characters of class `wanted` from `at` on."""
    while at < end:
        point, size = decode(data, at, end)
        if (np.int64(classes[point]) if point >= 0 else OTHER) != wanted:
            break
        if point < 0 and state[INVALID] < 0:
            state[INVALID] = at
        at += size
    return at


@inlined
def digits_end(data, at, end, classes, digit, most):
    """End of the run of characters of class `digit` from `at` on, at most so many."""
    for _ in range(most):
        point, size = decode(data, at, end) if at < end else (-1, 0)
        if point < 0 or classes[point] != digit:
            break
        at += size
    return at


@inlined
def spaces_end(data, start, end, classes, space, whole_tail):
    """End of the piece that begins with the run of class `space` at `start`: up to its last line break, or all but its
    last character; at the end of the text the whole run, with `whole_tail` also where it has a line break.
    """
    at, last, last_break = start, start, np.int64(-1)
    while at < end:
        point, size = decode(data, at, end)
        if point < 0 or classes[point] != space:
            break
        if point == 10 or point == 13:
            last_break = at
        last = at
        at += size
    if last_break >= 0 and (at < end or not whole_tail):
        at = last_break + 1
    elif at < end and last > start:
        at = last
    return at


@kernel(f"int64({READ_ONLY_BYTES}, int64[::1], int64, uint8[::1], int32[::1], int64, boolean)")
def like_gpt4_ends(data, state, end, classes, ends, most_digits, whole_tail):
    """The same for GPT-4's pattern and its like, one piece at a time: the alternatives in their order.

    A piece has `most_digits` at most; white space at the end of the text is one piece if `whole_tail`.
    """
    count = 0
    at = state[AT]
    while at < end and count < ends.shape[0]:
        start = at
        point, size = decode(data, at, end)
        kind = np.int64(classes[point]) if point >= 0 else OTHER
        if point < 0 and state[INVALID] < 0:
            state[INVALID] = at
        if point == ord("'"):
            at += contraction_gpt4(data, at, end)
        if at > start:
            at += 1
        elif kind == LETTER:
            at = run_end(data, at + size, end, classes, LETTER, state)
        elif kind == DIGIT:
            at = digits_end(data, at, end, classes, DIGIT, most_digits)
        else:
            following, after = class_at(data, at + size, end, classes) if at + size < end else (SPACE, 0)
            line_break = point == 10 or point == 13
            if following == LETTER and not line_break:  # any one character goes with the letters after it
                at = run_end(data, at + size + after, end, classes, LETTER, state)
            elif kind == OTHER or (point == 32 and following == OTHER):  # punctuation takes line breaks along
                at = run_end(data, at + size, end, classes, OTHER, state)
                while at < end and (data[at] == 10 or data[at] == 13):
                    at += 1
            else:
                at = spaces_end(data, at, end, classes, SPACE, whole_tail)
        ends[count] = at
        count += 1
    state[AT] = at
    return count


def like_gpt4(most_digits: int, whole_tail: bool):
    """A scanner for one of split.LIKE_GPT4."""

    def scan(data, state, end, classes, ends):
        return like_gpt4_ends(data, state, end, classes, ends, most_digits, whole_tail)

    return scan


def o200k(data, state, end, classes, ends):
    """GPT-4o's, by other classes of letters: compiled only where it is used."""
    from scanner_o200k import CASES, o200k_ends

    return o200k_ends(data, state, end, CASES, ends)


SCANNERS = {"gpt2": gpt2_ends, O200K: o200k} | {pattern: like_gpt4(*rules) for pattern, rules in LIKE_GPT4.items()}
