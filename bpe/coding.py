"""Pieces to ids and ids to bytes, compiled.

A piece that was met before is looked up (word_table.py). A new one is merged: always the pair of the lowest rank,
the leftmost of equals. Up to SHORT bytes the lowest is found by going over all pairs, which the CPU does for 16 at
once; longer pieces use a heap and neighbour links, so that a piece of n bytes takes O(n log n).
"""

import numpy as np
from bit_masks import PADDING, load64, store64
from compiled import helper, inlined, kernel
from word_table import BYTES, FULL, LOW, VALUE, WORDS, find_slot, hash_word, store_word

U = np.uint64
NO_RANK = np.int32(0x7FFFFFFF)
NO_KEY = np.uint32(0xFFFFFFFF)
NO_PAIR = U(0xFFFFFFFFFFFFFFFF)
MOST_TOKENS = 1 << 20  # ids take 20 bits in the table of pairs
SHORT = 128  # bytes; positions fit 8 bits, ranks the other 24
LONGEST_KNOWN = 1024  # bytes of a piece that is remembered
IDS = 2  # used[IDS]: ids in the pool


@inlined
def pair_slot(left, right, pairs):
    """Where the pair is in the hash table `pairs`, or the free slot where it belongs."""
    key = U(left) << U(20) | U(right)
    last = U(pairs.shape[0] - 1)
    slot = key * U(0x9E3779B97F4A7C15)
    slot = (slot >> U(32)) & last
    while pairs[slot] >> U(24) != key and pairs[slot] != NO_PAIR:
        slot = (slot + U(1)) & last
    return slot


@inlined
def rank_of(left, right, pairs):
    """Rank of the merge of two ids, NO_RANK if there is none."""
    entry = pairs[pair_slot(left, right, pairs)]
    return np.int32(entry & U(0xFFFFFF)) if entry != NO_PAIR else NO_RANK


@kernel("void(int32[:,::1], uint64[::1])")
def fill_pairs(merges, pairs):
    """Enter merges[rank] = (left, right) into a table full of NO_PAIR: left << 44 | right << 24 | rank."""
    for rank in range(merges.shape[0]):
        left, right = merges[rank]
        slot = pair_slot(left, right, pairs)
        pairs[slot] = U(left) << U(44) | U(right) << U(24) | U(rank)


@helper
def merge_short(data, start, size, byte_ids, byte_ranks, pairs, merged_ids, ids, keys, after, before):
    """Merge data[start : start + size], size <= SHORT, into `ids`; how many there are.

    keys[k] is rank << 8 | k of the pair that begins with token k, so that their minimum is the next merge.
    """
    for k in range(size):
        ids[k] = byte_ids[data[start + k]]
        after[k], before[k] = k + 1, k - 1
    for k in range(size - 1):
        rank = byte_ranks[data[start + k], data[start + k + 1]]
        keys[k] = np.uint32(rank) << np.uint32(8) | np.uint32(k) if rank != NO_RANK else NO_KEY
    keys[size - 1] = NO_KEY
    while True:
        lowest = NO_KEY
        for k in range(size):
            lowest = min(lowest, keys[k])
        if lowest == NO_KEY:
            break
        k = np.int64(lowest & np.uint32(255))
        right = after[k]
        ids[k] = merged_ids[lowest >> np.uint32(8)]
        keys[k] = keys[right] = NO_KEY
        following, left = after[right], before[k]
        after[k] = following
        if following < size:
            before[following] = k
            rank = rank_of(ids[k], ids[following], pairs)
            if rank != NO_RANK:
                keys[k] = np.uint32(rank) << np.uint32(8) | np.uint32(k)
        if left >= 0:
            rank = rank_of(ids[left], ids[k], pairs)
            keys[left] = np.uint32(rank) << np.uint32(8) | np.uint32(left) if rank != NO_RANK else NO_KEY
    count, k = 0, 0
    while k < size:
        ids[count] = ids[k]
        count += 1
        k = after[k]
    return count


@helper
def push(heap, size, key):
    """Put a key into heap[: size + 1], whose last place is free."""
    at = size
    while at > 0 and key < heap[(at - 1) >> 1]:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key


@helper
def pop(heap, size):
    """The least key of heap[:size], which is taken out."""
    least, key = heap[0], heap[size - 1]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size - 1:
            break
        if child + 1 < size - 1 and heap[child + 1] < heap[child]:
            child += 1
        if key <= heap[child]:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key
    return least


@helper
def merge_long(data, start, size, byte_ids, pairs, merged_ids, out, at):
    """Merge data[start : start + size] into out[at:]; how many ids.

    The heap holds rank << 32 | place. A key is out of date, and skipped, where ranks[place] has become another.
    """
    ids, after, before = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
    ranks = np.empty(size, np.int32)
    heap = np.empty(3 * size, np.uint64)  # each merge removes a token and adds two keys at most
    n = 0
    for k in range(size):
        ids[k] = byte_ids[data[start + k]]
        after[k], before[k] = k + 1, k - 1
    for k in range(size):
        ranks[k] = rank_of(ids[k], ids[k + 1], pairs) if k + 1 < size else NO_RANK
        if ranks[k] != NO_RANK:
            push(heap, n, U(ranks[k]) << U(32) | U(k))
            n += 1
    while n > 0:
        key = pop(heap, n)
        n -= 1
        k = np.int64(key & U(0xFFFFFFFF))
        if ranks[k] != np.int64(key >> U(32)):
            continue
        right = after[k]
        following, left = after[right], before[k]
        ids[k] = merged_ids[ranks[k]]
        after[k] = following
        ranks[right] = NO_RANK
        ranks[k] = NO_RANK
        if following < size:
            before[following] = k
            ranks[k] = rank_of(ids[k], ids[following], pairs)
            if ranks[k] != NO_RANK:
                push(heap, n, U(ranks[k]) << U(32) | U(k))
                n += 1
        if left >= 0:
            ranks[left] = rank_of(ids[left], ids[k], pairs)
            if ranks[left] != NO_RANK:
                push(heap, n, U(ranks[left]) << U(32) | U(left))
                n += 1
    count, k = 0, np.int64(0)
    while k < size:
        out[at + count] = ids[k]
        count += 1
        k = after[k]
    return count


@kernel(
    "int64(uint8[::1], int64, int32[::1], int32[::1], int64, uint64[::1], uint64[:,::1], uint8[::1], int32[::1],"
    " int64[::1], int32[::1], int32[:,::1], uint64[::1], int32[::1], uint64[::1])"
)
def encode_pieces(
    data, start, ends, out, at, table, records, arena, pool, used, byte_ids, byte_ranks, pairs, merged_ids, byte_masks
):
    """Write the ids of each piece from out[at] on; returns where they end. `out` has room for an id a byte.

    The ids of new pieces are remembered while there is room: in records[piece, VALUE], the number of ids in the
    lowest 16 bits; above them the id if it is one, or else their place in `pool`.
    """
    keys = np.empty(SHORT, np.uint32)
    ids, after, before = np.empty(SHORT, np.int32), np.empty(SHORT, np.int32), np.empty(SHORT, np.int32)
    limit = min(records.shape[0], table.shape[0] * FULL // 100)
    for k in range(ends.shape[0]):
        end = np.int64(ends[k])
        size = end - start
        head = load64(data, start) & byte_masks[U(min(size, 8))]
        h = hash_word(data, start, size, head, byte_masks)
        slot = find_slot(data, start, size, head, h, table, records, arena, byte_masks)
        entry = table[slot]
        if entry != U(0):
            value = records[(entry & LOW) - U(1), VALUE]
            n = np.int64(value & U(0xFFFF))
            if n == 1:
                out[at] = np.int32(value >> U(16))
            else:
                place = np.int64(value >> U(16))
                for i in range(n):
                    out[at + i] = pool[place + i]
        else:
            if size <= SHORT:
                n = merge_short(
                    data, start, size, byte_ids, byte_ranks, pairs, merged_ids, ids, keys, after, before
                )
                for i in range(n):
                    out[at + i] = ids[i]
            else:
                n = merge_long(data, start, size, byte_ids, pairs, merged_ids, out, at)
            if (
                used[WORDS] < limit
                and used[BYTES] + size + PADDING <= arena.shape[0]
                and used[IDS] + n <= pool.shape[0]
                and size <= LONGEST_KNOWN
            ):
                value = U(out[at])
                if n > 1:
                    value = U(used[IDS])
                    for i in range(n):
                        pool[used[IDS] + i] = out[at + i]
                    used[IDS] += n
                value = value << U(16) | U(n)
                store_word(data, start, size, head, h, slot, table, records, arena, used, value)
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
