"""The merges of a vocabulary applied to one piece of text, compiled.

Always the pair of the lowest rank is merged, the leftmost of equals, until no neighbours are a pair of the vocabulary.

Up to SHORT bytes the lowest is found by going over all pairs; longer pieces use a heap and neighbour links, so that a
piece of n bytes takes O(n log n).
"""

import numpy as np
from compiled import counted_helper, helper, inlined, kernel

U = np.uint64
NO_RANK = np.int32(0xFFFFFF)  # ranks take 24 bits in the table of pairs, ids 20 (vocabulary.MOST_TOKENS)
NO_PAIR = U(0xFFFFFFFFFFFFFFFF)  # a free place in the table of pairs; its rank reads NO_RANK
NO_KEY = np.uint32(0xFFFFFF00)  # from here on a key of merge_short is none
SHORT = 128  # bytes; positions take 8 bits of a key

# What the kernels need of a vocabulary (encoder.Tokenizer makes it): id of each byte, rank of each pair of bytes, the
# table of all pairs, the id that each rank makes, and which bytes stand side by side within a token (coding.part_end).
RULES = "Tuple((int32[::1], int32[:,::1], uint64[::1], int32[::1], boolean[:,::1]))"


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
    return np.int32(pairs[pair_slot(left, right, pairs)] & U(NO_RANK))


@kernel("void(int32[:,::1], uint64[::1])")
def fill_pairs(merges, pairs):
    """Enter merges[rank] = (left, right) into a table full of NO_PAIR: left << 44 | right << 24 | rank."""
    for rank in range(merges.shape[0]):
        left, right = merges[rank]
        slot = pair_slot(left, right, pairs)
        pairs[slot] = U(left) << U(44) | U(right) << U(24) | U(rank)


@inlined
def merge_key(rank, place):
    """Keys sort by rank, then place."""
    return np.uint32(rank) << np.uint32(8) | np.uint32(place)


@inlined
def merge_short(data, start, size, rules, ids, keys, after, before):
    """Merge data[start : start + size], size <= SHORT, into `ids`; how many there are.

    keys[k] belongs to the pair that begins with token k, so that their minimum is the next merge.
    """
    byte_ids, byte_ranks, pairs, merged_ids, _ = rules
    for k in range(size):
        ids[k] = byte_ids[data[start + k]]
        after[k], before[k] = k + 1, k - 1
    for k in range(size - 1):
        keys[k] = merge_key(byte_ranks[data[start + k], data[start + k + 1]], k)
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
            keys[k] = merge_key(rank_of(ids[k], ids[following], pairs), k)
        if left >= 0:
            keys[left] = merge_key(rank_of(ids[left], ids[k], pairs), left)
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


@counted_helper
def merge_long(data, start, size, rules, out, at):
    """Merge data[start : start + size] into out[at:]; how many ids.

    The heap holds rank << 32 | place. A key is out of date, and skipped, where ranks[place] has become another.
    """
    byte_ids, _, pairs, merged_ids, _ = rules
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
