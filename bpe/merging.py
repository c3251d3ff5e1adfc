"""The merges of a BPE vocabulary from counted words, compiled: 0.4 s for 32,000 on English books.

Symbols. The words' bytes lie end to end, a gap (-1) after each word. A token of n bytes keeps the place of its
bytes: its id stands at its first and at its last byte, so that the neighbours of the token at p are found without
links: the next begins at p + n, the one before ends at p - 1.

Pairs. Each pair that exists has a slot: its ids, its count, and the list of places where it was born.
cells[p, PAIR] is the slot of the pair that begins with the token at p. A pair can only come into being during the
merge that makes the newer of its two tokens, so its list is complete at the end of that merge and never grows
again: places that hold another slot by now are skipped. And a new pair (x, new) is looked up in an array indexed
by x, no hashing.

Choice. A binary heap holds every slot under (count, tie rule) as they were when it was pushed. Counts only fall,
so the top is right if it is still up to date, and is otherwise put back with its present count.
"""

import numpy as np
from compiled import helper, kernel

IDS, FIRST, GREATEST_BYTES = 0, 1, 2  # tie rules: smallest pair of ids, first place in the text, greatest bytes
GAP = -1
SYMBOL, PAIR, WORD = 0, 1, 2  # what a place holds
PROGRESS, STOP = 0, 1  # flags[]: merges done so far; whether to stop


@helper
def compare_tokens(x, y, token_at, token_size, text):
    """-1, 0 or 1 as the bytes of token x are less than, equal to or greater than those of token y."""
    size_x, size_y = token_size[x], token_size[y]
    for k in range(min(size_x, size_y)):
        byte_x, byte_y = text[token_at[x] + k], text[token_at[y] + k]
        if byte_x != byte_y:
            return -1 if byte_x < byte_y else 1
    return -1 if size_x < size_y else (1 if size_x > size_y else 0)


@helper
def comes_first(count_a, tie_a, count_b, tie_b, ties, token_at, token_size, text):
    """Whether pair a is to be merged before pair b. `tie` is the packed ids (left << 32 | right), or a place."""
    if count_a != count_b:
        return count_a > count_b
    if ties != GREATEST_BYTES:
        return tie_a < tie_b
    order = compare_tokens(tie_a >> 32, tie_b >> 32, token_at, token_size, text)
    if order == 0:
        order = compare_tokens(tie_a & 0xFFFFFFFF, tie_b & 0xFFFFFFFF, token_at, token_size, text)
    return order > 0


@helper
def sift_up(heap, at, count, tie, slot, ties, token_at, token_size, text):
    """Put (count, tie, slot) into heap[: at + 1], whose last place is free."""
    while at > 0:
        parent = (at - 1) >> 1
        if not comes_first(count, tie, heap[parent, 0], heap[parent, 1], ties, token_at, token_size, text):
            break
        heap[at, 0], heap[at, 1], heap[at, 2] = heap[parent, 0], heap[parent, 1], heap[parent, 2]
        at = parent
    heap[at, 0], heap[at, 1], heap[at, 2] = count, tie, slot


@helper
def sift_down(heap, size, count, tie, slot, ties, token_at, token_size, text):
    """Put (count, tie, slot) into heap[:size], whose top is free."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        right = child + 1
        if right < size and comes_first(
            heap[right, 0], heap[right, 1], heap[child, 0], heap[child, 1], ties, token_at, token_size, text
        ):
            child = right
        if not comes_first(heap[child, 0], heap[child, 1], count, tie, ties, token_at, token_size, text):
            break
        heap[at, 0], heap[at, 1], heap[at, 2] = heap[child, 0], heap[child, 1], heap[child, 2]
        at = child
    heap[at, 0], heap[at, 1], heap[at, 2] = count, tie, slot


@helper
def grown(array, size):
    """Copy of `array` with room for `size` entries, twice the old room at least."""
    larger = np.empty(max(size, 2 * array.shape[0]), array.dtype)
    larger[: array.shape[0]] = array
    return larger


@kernel("int64(uint8[::1], int64[::1], int64[::1], int32[::1], int64, int32[:,::1], int64, int32[:,::1], int64[::1])")
def merge_words(data, ends, counts, id_of_byte, ties, forced, merges_wanted, merges, flags):
    """Fill merges[: merges_wanted] with pairs of ids; returns how many there are before no pair is left.

    data: words end to end, word w ending at ends[w] and occurring counts[w] times. id_of_byte [256] is a
    permutation of 0..255; merge m makes the id 256 + m. The first merges are `forced` (those of a tokenizer that
    is extended). flags[PROGRESS] says how far it is; it ends early if flags[STOP] is set.
    """
    # the symbols
    n_words = ends.shape[0]
    total = 0
    start = 0
    for w in range(n_words):
        size = ends[w] - start
        if size > 1:
            total += size + 1
        start = ends[w]
    cells = np.empty((total + 2, 3), np.int32)  # side by side, since they are read together
    cells[0, SYMBOL], cells[0, PAIR] = GAP, GAP
    n = 1
    start = 0
    for w in range(n_words):
        if ends[w] - start > 1:
            for k in range(start, ends[w]):
                cells[n, SYMBOL] = id_of_byte[data[k]]
                cells[n, WORD] = w
                n += 1
            cells[n, SYMBOL], cells[n, PAIR] = GAP, GAP
            n += 1
        start = ends[w]

    # the tokens' sizes, and for the tie rule that compares them their bytes: one occurrence of each, in `text`
    vocab = 256 + merges_wanted
    token_at = np.empty(vocab, np.int64)
    token_size = np.empty(vocab, np.int64)
    text = np.empty(1 << 12, np.uint8)
    for byte in range(256):
        token_at[id_of_byte[byte]] = byte
        text[byte] = byte
    token_size[:256] = 1
    text_size = 256

    # the pairs of bytes, counted
    room = 1 << 16
    left_of, right_of = np.empty(room, np.int32), np.empty(room, np.int32)
    pair_count = np.empty(room, np.int64)
    list_at, list_size = np.empty(room, np.int64), np.empty(room, np.int32)
    n_slots = 0
    slot_of = np.full((256, 256), -1, np.int32)
    for p in range(1, n):
        if cells[p, SYMBOL] == GAP:
            continue
        a, b = cells[p, SYMBOL], cells[p + 1, SYMBOL]
        if b == GAP:
            cells[p, PAIR] = GAP
            continue
        s = slot_of[a, b]
        if s < 0:
            s = n_slots
            n_slots += 1
            slot_of[a, b] = s
            left_of[s], right_of[s] = a, b
            pair_count[s] = 0
            list_size[s] = 0
        cells[p, PAIR] = s
        pair_count[s] += counts[cells[p, WORD]]
        list_size[s] += 1
    listed = 0
    for s in range(n_slots):
        list_at[s] = listed
        listed += list_size[s]
        list_size[s] = 0
    places = np.empty(3 * listed + 1024, np.int32)
    for p in range(1, n):
        s = cells[p, PAIR]
        if s >= 0:
            places[list_at[s] + list_size[s]] = p
            list_size[s] += 1

    heap = np.empty((1 << 16, 3), np.int64)  # (count, tie, slot)
    n_heap = 0
    for s in range(n_slots):
        tie = np.int64(places[list_at[s]]) if ties == FIRST else np.int64(left_of[s]) << 32 | np.int64(right_of[s])
        sift_up(heap, n_heap, pair_count[s], tie, s, ties, token_at, token_size, text)
        n_heap += 1

    # slots of the pairs (x, new) and (new, y) born in this merge, valid where the mark is this merge
    before_slot, before_mark = np.empty(vocab, np.int32), np.full(vocab, -1, np.int32)
    after_slot, after_mark = np.empty(vocab, np.int32), np.full(vocab, -1, np.int32)
    born_from, born_to = np.zeros(vocab, np.int64), np.zeros(vocab, np.int64)  # slots born with each token
    born_slot, born_place = np.empty(1 << 12, np.int32), np.empty(1 << 12, np.int32)

    m = 0
    while m < merges_wanted and flags[STOP] == 0:
        # which pair
        if m < forced.shape[0]:
            a, b = forced[m, 0], forced[m, 1]
            if max(a, b) < 256:
                s = slot_of[a, b]
            else:
                s = -1
                for r in range(born_from[max(a, b)], born_to[max(a, b)]):
                    if left_of[r] == a and right_of[r] == b:
                        s = r
                        break
        else:
            if n_heap == 0:
                break
            s = heap[0, 2]
            tie = heap[0, 1]
            fresh = pair_count[s] == heap[0, 0]
            if pair_count[s] > 0:
                if ties == FIRST:  # the first place of its list that still holds it
                    while cells[places[list_at[s]], PAIR] != s:
                        list_at[s] += 1
                        list_size[s] -= 1
                    fresh = fresh and places[list_at[s]] == tie
                    tie = np.int64(places[list_at[s]])
                if not fresh:
                    sift_down(heap, n_heap, pair_count[s], tie, s, ties, token_at, token_size, text)
                    continue
            n_heap -= 1
            if n_heap > 0:
                count, tie, last = heap[n_heap, 0], heap[n_heap, 1], heap[n_heap, 2]
                sift_down(heap, n_heap, count, tie, last, ties, token_at, token_size, text)
            if pair_count[s] <= 0:
                continue
            a, b = left_of[s], right_of[s]

        # the new token
        new = np.int32(256 + m)
        merges[m, 0], merges[m, 1] = a, b
        size_a, size_b = token_size[a], token_size[b]
        size = size_a + size_b
        token_at[new], token_size[new] = text_size, size
        if ties == GREATEST_BYTES:
            if text_size + size > text.shape[0]:
                text = grown(text, text_size + size)
            for k in range(size_a):
                text[text_size + k] = text[token_at[a] + k]
            for k in range(size_b):
                text[text_size + size_a + k] = text[token_at[b] + k]
            text_size += size

        # replace it everywhere; new pairs go to born_slot, born_place
        first_born = n_slots
        n_born = 0
        if s >= 0:
            if n_slots + 2 * list_size[s] > pair_count.shape[0]:
                room = n_slots + 2 * list_size[s]
                left_of, right_of = grown(left_of, room), grown(right_of, room)
                pair_count = grown(pair_count, room)
                list_at, list_size = grown(list_at, room), grown(list_size, room)
            if 2 * list_size[s] > born_slot.shape[0]:
                born_slot, born_place = grown(born_slot, 2 * list_size[s]), grown(born_place, 2 * list_size[s])
            for k in range(list_at[s], list_at[s] + list_size[s]):
                p = places[k]
                if cells[p, PAIR] != s:
                    continue
                q = p + size_a  # the right token
                end = p + size  # where the next one begins
                weight = counts[cells[p, WORD]]
                x, y = cells[p - 1, SYMBOL], cells[end, SYMBOL]
                cells[p, PAIR] = GAP
                if x != GAP:  # (x, a) becomes (x, new)
                    before = p - token_size[x]
                    pair_count[cells[before, PAIR]] -= weight
                    if before_mark[x] != m:
                        before_mark[x] = m
                        before_slot[x] = n_slots
                        left_of[n_slots], right_of[n_slots] = x, new
                        pair_count[n_slots] = 0
                        n_slots += 1
                    r = before_slot[x]
                    pair_count[r] += weight
                    cells[before, PAIR] = r
                    born_slot[n_born], born_place[n_born] = r, before
                    n_born += 1
                if y != GAP:  # (b, y) becomes (new, y)
                    pair_count[cells[q, PAIR]] -= weight
                    if after_mark[y] != m:
                        after_mark[y] = m
                        after_slot[y] = n_slots
                        left_of[n_slots], right_of[n_slots] = new, y
                        pair_count[n_slots] = 0
                        n_slots += 1
                    r = after_slot[y]
                    pair_count[r] += weight
                    cells[p, PAIR] = r
                    born_slot[n_born], born_place[n_born] = r, p
                    n_born += 1
                cells[q, PAIR] = GAP
                cells[p, SYMBOL], cells[end - 1, SYMBOL] = new, new
            pair_count[s] = 0

        # the lists of the new pairs, from left to right as they were born
        for r in range(first_born, n_slots):
            list_size[r] = 0
        for k in range(n_born):
            list_size[born_slot[k]] += 1
        if listed + n_born > places.shape[0]:
            places = grown(places, listed + n_born)
        for r in range(first_born, n_slots):
            list_at[r] = listed
            listed += list_size[r]
            list_size[r] = 0
        for k in range(n_born):
            r = born_slot[k]
            places[list_at[r] + list_size[r]] = born_place[k]
            list_size[r] += 1
        born_from[new], born_to[new] = first_born, n_slots
        if n_heap + n_slots - first_born > heap.shape[0]:
            larger = np.empty((2 * (n_heap + n_slots - first_born), 3), np.int64)
            larger[:n_heap] = heap[:n_heap]
            heap = larger
        for r in range(first_born, n_slots):
            if pair_count[r] > 0:
                tie = np.int64(left_of[r]) << 32 | np.int64(right_of[r])
                if ties == FIRST:
                    tie = np.int64(places[list_at[r]])
                sift_up(heap, n_heap, pair_count[r], tie, r, ties, token_at, token_size, text)
                n_heap += 1
        m += 1
        flags[PROGRESS] = m
    return m
