"""The merges of a BPE vocabulary from counted words, compiled: 0.2 s for 32,000 on English books.

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
from bit_masks import prefetch
from compiled import counted_helper, helper, kernel

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


@counted_helper
def grown(array, size):
    """`array` if it has `size` entries, else a copy with room for as many, twice the old room at least."""
    if size <= array.shape[0]:
        return array
    larger = np.empty((max(size, 2 * array.shape[0]),) + array.shape[1:], array.dtype)  # noqa: RUF005 (numba has no *)
    larger[: array.shape[0]] = array
    return larger


@counted_helper
def lay_out(data, ends, id_of_byte):
    """The cells [places, 3]: symbols of the words of two bytes and more, and the word of each; no pairs yet."""
    total, start = 0, 0
    for end in ends:
        if end - start > 1:
            total += end - start + 1
        start = end
    cells = np.empty((total + 2, 3), np.int32)  # side by side, since they are read together
    cells[0, SYMBOL], cells[0, PAIR] = GAP, GAP
    n, start = 1, 0
    for w in range(ends.shape[0]):
        if ends[w] - start > 1:
            for k in range(start, ends[w]):
                cells[n, SYMBOL] = id_of_byte[data[k]]
                cells[n, WORD] = w
                n += 1
            cells[n, SYMBOL], cells[n, PAIR] = GAP, GAP
            n += 1
        start = ends[w]
    return cells[:n]


@counted_helper
def count_byte_pairs(cells, counts, slot_of, left_of, right_of, pair_count, list_at, list_size):
    """Give each pair of bytes a slot, its count and its list; returns how many there are, and the lists' places."""
    n_slots = 0
    for p in range(1, cells.shape[0]):
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
    for p in range(1, cells.shape[0]):
        s = cells[p, PAIR]
        if s >= 0:
            places[list_at[s] + list_size[s]] = p
            list_size[s] += 1
    return n_slots, listed, places


@helper
def slot_of_forced(a, b, slot_of, born, left_of, right_of):
    """The slot of a pair that is merged next whatever its count; -1 if it does not exist."""
    if max(a, b) < 256:
        return slot_of[a, b]
    for r in range(born[max(a, b), 0], born[max(a, b), 1]):
        if left_of[r] == a and right_of[r] == b:
            return np.int64(r)
    return np.int64(-1)


@helper
def find_first(heap, n_heap, cells, ties, pairs, places, tokens):
    """Bring the pair to be merged next to the heap's top; returns the heap's size, 0 if no pair is left."""
    _, _, pair_count, list_at, list_size = pairs
    token_at, token_size, text = tokens
    while n_heap > 0:
        s, tie = heap[0, 2], heap[0, 1]
        if pair_count[s] > 0:
            fresh = pair_count[s] == heap[0, 0]
            if ties == FIRST:  # the first place of its list that still holds it
                while cells[places[list_at[s]], PAIR] != s:
                    list_at[s] += 1
                    list_size[s] -= 1
                fresh = fresh and places[list_at[s]] == tie
                tie = np.int64(places[list_at[s]])
            if fresh:
                break
            sift_down(heap, n_heap, pair_count[s], tie, s, ties, token_at, token_size, text)
        else:
            n_heap = without_top(heap, n_heap, ties, tokens)
    return n_heap


@helper
def without_top(heap, n_heap, ties, tokens):
    """Take the top off the heap; returns its size."""
    token_at, token_size, text = tokens
    n_heap -= 1
    if n_heap > 0:
        count, tie, last = heap[n_heap, 0], heap[n_heap, 1], heap[n_heap, 2]
        sift_down(heap, n_heap, count, tie, last, ties, token_at, token_size, text)
    return n_heap


@helper
def add_token(new, a, b, tokens, text_size, ties):
    """Note the size of the token that a and b make, and its bytes where ties ask; returns how much text is used."""
    token_at, token_size, text = tokens
    size_a, size_b = token_size[a], token_size[b]
    token_at[new], token_size[new] = text_size, size_a + size_b
    if ties != GREATEST_BYTES:
        return text_size
    for k in range(size_a):
        text[text_size + k] = text[token_at[a] + k]
    for k in range(size_b):
        text[text_size + size_a + k] = text[token_at[b] + k]
    return text_size + size_a + size_b


@helper
def born_slot_of(neighbour, left, right, new, slots, marks, pairs, n_slots):
    """The slot of (left, right), the new token and its neighbour, made where it is met first; how many there are."""
    left_of, right_of, pair_count, _, _ = pairs
    if marks[neighbour] != new:
        marks[neighbour], slots[neighbour] = new, n_slots
        left_of[n_slots], right_of[n_slots] = left, right
        pair_count[n_slots] = 0
        n_slots += 1
    return slots[neighbour], n_slots


@helper
def replace(s, new, cells, counts, token_size, pairs, n_slots, places, marks, births):
    """Put the new token in every place of the pair in slot s. New pairs get slots, their places go to `births`.

    marks: the slots of (x, new) and (new, y) by x and y, valid where the mark is `new`. Returns how many slots there
    are now, and births.
    """
    left_of, _, pair_count, list_at, list_size = pairs
    before_slot, before_mark, after_slot, after_mark = marks
    born_slot, born_place = births
    size_a, size = token_size[left_of[s]], token_size[new]
    n_born = 0
    last = list_at[s] + list_size[s] - 1
    for k in range(list_at[s], last + 1):
        p = places[k]
        prefetch(cells, places[min(k + 12, last)])  # anywhere in memory: asked for before they are needed
        prefetch(counts, cells[places[min(k + 4, last)], WORD])
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
            r, n_slots = born_slot_of(x, x, new, new, before_slot, before_mark, pairs, n_slots)
            pair_count[r] += weight
            cells[before, PAIR] = r
            born_slot[n_born], born_place[n_born] = r, before
            n_born += 1
        if y != GAP:  # (b, y) becomes (new, y)
            pair_count[cells[q, PAIR]] -= weight
            r, n_slots = born_slot_of(y, new, y, new, after_slot, after_mark, pairs, n_slots)
            pair_count[r] += weight
            cells[p, PAIR] = r
            born_slot[n_born], born_place[n_born] = r, p
            n_born += 1
        cells[q, PAIR] = GAP
        cells[p, SYMBOL], cells[end - 1, SYMBOL] = new, new
    pair_count[s] = 0
    return n_slots, n_born


@helper
def list_births(first, n_slots, pairs, places, listed, born_slot, born_place, n_born):
    """The lists of the slots from `first` on, from left to right as they were born; returns how much is listed."""
    _, _, _, list_at, list_size = pairs
    for r in range(first, n_slots):
        list_size[r] = 0
    for k in range(n_born):
        list_size[born_slot[k]] += 1
    for r in range(first, n_slots):
        list_at[r] = listed
        listed += list_size[r]
        list_size[r] = 0
    for k in range(n_born):
        r = born_slot[k]
        places[list_at[r] + list_size[r]] = born_place[k]
        list_size[r] += 1
    return listed


@helper
def push(first, n_slots, heap, n_heap, ties, pairs, places, tokens):
    """Put the slots from `first` on into the heap; returns its size."""
    left_of, right_of, pair_count, list_at, _ = pairs
    token_at, token_size, text = tokens
    for r in range(first, n_slots):
        if pair_count[r] > 0:
            tie = np.int64(places[list_at[r]]) if ties == FIRST else np.int64(left_of[r]) << 32 | np.int64(right_of[r])
            sift_up(heap, n_heap, pair_count[r], tie, r, ties, token_at, token_size, text)
            n_heap += 1
    return n_heap


@helper
def merge_while_room(
    done, used, cells, counts, ties, forced, merges, flags, tokens, pairs, heap, places, marks, born, births, slot_of
):
    """Merge from merge `done` on until all are made, no pair is left or an array is too short.

    Returns the merges done, how much of the arrays is used (slots, heap, places, text), and what the next merge needs
    room for: births, and bytes of its token (0: there is no next).
    """
    left_of, right_of, pair_count, _, list_size = pairs
    _, token_size, text = tokens
    born_slot, born_place = births
    n_slots, n_heap, listed, text_size = used
    most_born = size = 0
    for m in range(done, merges.shape[0]):
        if flags[STOP]:
            break
        if m < forced.shape[0]:
            a, b = forced[m, 0], forced[m, 1]
            s = slot_of_forced(a, b, slot_of, born, left_of, right_of)
        else:
            n_heap = find_first(heap, n_heap, cells, ties, pairs, places, tokens)
            if n_heap == 0:
                break
            s = heap[0, 2]
            a, b = left_of[s], right_of[s]

        most_born, size = 2 * np.int64(list_size[s]) if s >= 0 else 0, token_size[a] + token_size[b]
        if (
            n_slots + most_born > pair_count.shape[0]
            or n_heap + most_born > heap.shape[0]
            or listed + most_born > places.shape[0]
            or most_born > born_slot.shape[0]
            or (ties == GREATEST_BYTES and text_size + size > text.shape[0])
        ):
            break
        most_born = size = 0

        if m >= forced.shape[0]:
            n_heap = without_top(heap, n_heap, ties, tokens)
        new = np.int32(256 + m)
        merges[m, 0], merges[m, 1] = a, b
        text_size = add_token(new, a, b, tokens, text_size, ties)
        first = n_slots
        if s >= 0:
            n_slots, n_born = replace(s, new, cells, counts, token_size, pairs, n_slots, places, marks, births)
            listed = list_births(first, n_slots, pairs, places, listed, born_slot, born_place, n_born)
            n_heap = push(first, n_slots, heap, n_heap, ties, pairs, places, tokens)
        born[new, 0], born[new, 1] = first, n_slots
        done = m + 1
        flags[PROGRESS] = done
    return done, (n_slots, n_heap, listed, text_size), most_born, size


@kernel(
    "int64(uint8[::1], int64[::1], int64[::1], int32[::1], int64, int32[:,::1], int32[:,::1], int64[::1])", counted=True
)
def merge_words(data, ends, counts, id_of_byte, ties, forced, merges, flags):
    """Fill merges [wanted, 2] with pairs of ids; returns how many there are before no pair is left.

    data: words end to end, word w ending at ends[w] and occurring counts[w] times. id_of_byte [256] is a
    permutation of 0..255; merge m makes the id 256 + m. The first merges are `forced` (those of a tokenizer that
    is extended). flags[PROGRESS] says how far it is; it ends early if flags[STOP] is set.
    """
    cells = lay_out(data, ends, id_of_byte)

    # the tokens' sizes, and for the tie rule that compares them their bytes: one occurrence of each, in `text`
    vocab = 256 + merges.shape[0]
    token_at, token_size = np.empty(vocab, np.int64), np.empty(vocab, np.int64)
    text = np.empty(1 << 12, np.uint8)
    for byte in range(256):
        token_at[id_of_byte[byte]] = byte
        text[byte] = byte
    token_size[:256] = 1

    room = 1 << 16
    left_of, right_of = np.empty(room, np.int32), np.empty(room, np.int32)
    pair_count = np.empty(room, np.int64)
    list_at, list_size = np.empty(room, np.int64), np.empty(room, np.int32)
    slot_of = np.full((256, 256), -1, np.int32)
    n_slots, listed, places = count_byte_pairs(
        cells, counts, slot_of, left_of, right_of, pair_count, list_at, list_size
    )
    pairs, tokens = (left_of, right_of, pair_count, list_at, list_size), (token_at, token_size, text)
    heap = np.empty((room, 3), np.int64)  # (count, tie, slot)
    used = n_slots, push(0, n_slots, heap, 0, ties, pairs, places, tokens), listed, 256

    marks = (
        np.empty(vocab, np.int32), np.zeros(vocab, np.int32), np.empty(vocab, np.int32), np.zeros(vocab, np.int32)
    )
    born = np.zeros((vocab, 2), np.int64)  # the first slot born with each token, and the one behind the last
    born_slot, born_place = np.empty(1 << 12, np.int32), np.empty(1 << 12, np.int32)

    done, size = 0, 1
    while size:
        tokens, pairs = (token_at, token_size, text), (left_of, right_of, pair_count, list_at, list_size)
        births = (born_slot, born_place)
        done, used, most_born, size = merge_while_room(
            done, used, cells, counts, ties, forced, merges, flags, tokens, pairs, heap, places, marks, born, births,
            slot_of,
        )
        n_slots, n_heap, listed, text_size = used
        room = n_slots + most_born
        left_of, right_of = grown(left_of, room), grown(right_of, room)
        pair_count, list_at, list_size = grown(pair_count, room), grown(list_at, room), grown(list_size, room)
        heap, places = grown(heap, n_heap + most_born), grown(places, listed + most_born)
        born_slot, born_place = grown(born_slot, most_born), grown(born_place, most_born)
        text = grown(text, text_size + size)
    return done
