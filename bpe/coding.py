"""Pieces to ids and ids to bytes, compiled.

Most pieces of a text are short and were met before. Their ids are looked up in `known`, a table in which a piece and
its ids take half a cache line. It is asked for ahead of time, so that a hit neither waits nor branches on the text.

A piece is first cut into parts where that cannot change its ids: between two bytes that no token holds side by side, no
merge ever reaches over. GPT-2's vocabulary has next to no token that spans two Chinese characters, so long runs of
them, which never come twice, become single characters, which always do.
"""

import numpy as np
from bit_masks import PADDING, load64, prefetch, store64
from compiled import READ_ONLY_BYTES, inlined, kernel
from ranked_merges import RULES, SHORT, merge_long, merge_short
from word_table import BYTES, FULL, GOLDEN, LOW, MIX1, MIX2, VALUE, WORDS, find_slot, hash_word, store_word

U = np.uint64
GROUP = 64  # parts asked for at a time
SMALL = 15  # bytes of a part that `known` can hold
INLINE = 4  # ids that it can hold; more are in `pool`
LONGEST_KNOWN = 1024  # bytes of a part that is remembered
IDS = 2  # used[IDS]: ids in the pool

# A row of `known`, four words: the first 8 bytes; 7 more and the length | number of ids << 60; four ids of 32 bits.
# If the number is 0, the third word is number << 32 | place in the pool. Rows 2k and 2k + 1 are one cache line and
# hold any two parts whose hash says k: a new part takes a free row, or else the second one's place.
FIRST, REST, IDS01, IDS23 = range(4)
COUNT_AT = U(60)
NO_COUNT = (U(1) << COUNT_AT) - U(1)
TOO_LONG = U(0xFFFFFFFFFFFFFFFF)  # in place of the second word: no row has it
HIGH_BITS = U(0x8080808080808080)

# known; then table, records and arena of word_table.py, for longer parts; the pool of ids; used[WORDS, BYTES, IDS]
CACHE = "Tuple((uint64[:,::1], uint64[::1], uint64[:,::1], uint8[::1], int32[::1], int64[::1]))"


@inlined
def part_end(data, start, end, side_by_side):
    """End of the part at `start`: the first character no token joins to the byte before it, at most `end`."""
    at = start + 1
    while at < end and (side_by_side[data[at - 1], data[at]] or data[at] & 0xC0 == 0x80):
        at += 1
    return at


@inlined
def pooled(ids, at, n, pool, used):
    """Put ids[at : at + n] into the pool: n << 32 | their place there, 0 if there is no room."""
    place = used[IDS]
    if place + n > pool.shape[0]:
        return U(0)
    for i in range(n):
        pool[place + i] = ids[at + i]
    used[IDS] = place + n
    return U(n) << U(32) | U(place)


@inlined
def copy_pooled(entry, pool, out, at):
    """Write the ids of n << 32 | place to out[at:]; n."""
    n, place = np.int64(entry >> U(32)), np.int64(entry & LOW)
    for i in range(n):
        out[at + i] = pool[place + i]
    return n


@inlined
def remember_short(first, rest, row, out, at, n, known, pool, used):
    """Put a part of at most SMALL bytes and its ids out[at : at + n] into the set at `row`."""
    entry = U(0) if n <= INLINE else pooled(out, at, n, pool, used)
    if n <= INLINE or entry:
        row += U(known[row, REST] != U(0))
        known[row, FIRST] = first
        known[row, REST] = rest | U(n) << COUNT_AT if n <= INLINE else rest
        known[row, IDS01] = load64(out, at) if n <= INLINE else entry
        known[row, IDS23] = load64(out, at + 2)


@inlined
def remember_long(data, start, size, first, h, slot, out, at, n, table, records, arena, pool, used):
    """Put a longer part at a free slot of the table, if all has room."""
    most = min(records.shape[0], table.shape[0] * FULL // 100)
    if size <= LONGEST_KNOWN and used[WORDS] < most and used[BYTES] + size + PADDING <= arena.shape[0]:
        entry = pooled(out, at, n, pool, used)
        if entry:
            store_word(data, start, size, first, h, slot, table, records, arena, used, entry)


@kernel(f"int64({READ_ONLY_BYTES}, int64, int32[::1], int32[::1], {CACHE}, {RULES}, uint64[::1])", counted=True)
def encode_pieces(data, start, ends, out, cache, rules, byte_masks):
    """Write the ids of the pieces that end at `ends`, the first starting at `start`; returns how many.

    `out` has room for an id a byte, and INLINE more.
    """
    known, table, records, arena, pool, used = cache
    side_by_side = rules[4]
    last_row = U(known.shape[0] - 2)
    firsts, rests, rows = np.empty(GROUP, np.uint64), np.empty(GROUP, np.uint64), np.empty(GROUP, np.uint64)
    part_ends = np.empty(GROUP, np.int64)
    keys = np.empty(SHORT, np.uint32)
    ids, after, before = np.empty(SHORT, np.int32), np.empty(SHORT, np.int32), np.empty(SHORT, np.int32)
    at, piece, following = 0, 0, start
    while piece < ends.shape[0]:
        # the next parts: make their keys and ask for their rows
        parts = 0
        while parts < GROUP and piece < ends.shape[0]:
            end = np.int64(ends[U(piece)])
            size = end - following
            first = load64(data, following) & byte_masks[U(min(size, 8))]
            if size > SMALL or first & HIGH_BITS:
                end = part_end(data, following, end, side_by_side)
                size = end - following
                first = load64(data, following) & byte_masks[U(min(size, 8))]
            rest = TOO_LONG
            if size <= SMALL:
                rest = load64(data, following + 8) & byte_masks[U(max(size, 8) - 8)] | U(size) << U(56)
            h = (first ^ (rest * GOLDEN)) * MIX1
            row = (h ^ (h >> U(32))) * MIX2 >> U(32) & last_row
            prefetch(known, row)
            firsts[U(parts)], rests[U(parts)], rows[U(parts)], part_ends[U(parts)] = first, rest, row, end
            parts += 1
            piece += end == ends[U(piece)]
            following = end
        # by now the rows have come
        for k in range(parts):
            end, first, rest, row = part_ends[U(k)], firsts[U(k)], rests[U(k)], rows[U(k)]
            here = (known[row, FIRST] == first) & (known[row, REST] & NO_COUNT == rest)
            beside = (known[row + U(1), FIRST] == first) & (known[row + U(1), REST] & NO_COUNT == rest)
            if here | beside:
                row += U(beside)
                n = np.int64(known[row, REST] >> COUNT_AT)
                if n:  # all four are written, the next part's ids go over those that are too many
                    store64(out, at, known[row, IDS01])
                    store64(out, at + 2, known[row, IDS23])
                else:
                    n = copy_pooled(known[row, IDS01], pool, out, at)
                at += n
                start = end
                continue
            size = end - start
            h, slot = U(0), U(0)
            if size > SMALL:
                h = hash_word(data, start, size, first, byte_masks)
                slot = find_slot(data, start, size, first, h, table, records, arena, byte_masks)
                if table[slot]:
                    at += copy_pooled(records[(table[slot] & LOW) - U(1), VALUE], pool, out, at)
                    start = end
                    continue
            if size <= SHORT:
                n = merge_short(data, start, size, rules, ids, keys, after, before)
                for i in range(n):
                    out[at + i] = ids[i]
            else:
                n = merge_long(data, start, size, rules, out, at)
            if size <= SMALL:
                remember_short(first, rest, row, out, at, n, known, pool, used)
            else:
                remember_long(data, start, size, first, h, slot, out, at, n, table, records, arena, pool, used)
            at += n
            start = end
    return at


@kernel("int64(uint32[::1], uint64[::1])")
def decoded_size(ids, spans):
    """Bytes of all ids; -1 - k if ids[k] is not an id. spans[id] = offset << 32 | bytes."""
    total = 0
    for k in range(ids.shape[0]):
        if ids[k] >= spans.shape[0]:
            return -1 - k
        total += np.int64(spans[ids[k]] & LOW)
    return total


@kernel("void(uint32[::1], uint64[::1], uint8[::1], uint8[::1])")
def decode_ids(ids, spans, text, out):
    """Write the bytes of all ids. Both `text` and `out` have PADDING spare bytes: it copies 8 at a time."""
    at = 0
    for k in range(ids.shape[0]):
        span = spans[ids[k]]
        start, size = np.int64(span >> U(32)), np.int64(span & LOW)
        store64(out, at, load64(text, start))
        for done in range(8, size, 8):
            store64(out, at + done, load64(text, start + done))
        at += size
