"""Hash table from words (byte strings) to records, for counting pieces and for remembering how they are encoded.

Open addressing over a power of two of uint64 slots: the upper half of the hash and 1 + the word's number, 0 if free.
The bytes of all words lie end to end in `arena`; records[word] = (offset in arena, length, value, first 8 bytes).
Most words have at most 8 bytes, so one comparison settles them without a look at the arena.
"""

import numpy as np
from bit_masks import BYTE_MASKS, PADDING, load64
from compiled import inlined, kernel

U = np.uint64
HIGH = U(0xFFFFFFFF00000000)
LOW = U(0x00000000FFFFFFFF)
OFFSET, LENGTH, VALUE, HEAD = 0, 1, 2, 3
MIX1, MIX2, GOLDEN = U(0xFF51AFD7ED558CCD), U(0xC4CEB9FE1A85EC53), U(0x9E3779B97F4A7C15)  # MurmurHash3, Knuth
WORDS, BYTES = 0, 1  # what used[] counts
FULL = 50  # percent of the slots that may be taken


@inlined
def hash_word(data, start, size, head, byte_masks):
    """64-bit hash of data[start : start + size], whose first 8 bytes (or all, zeros after) are `head`."""
    h = (head ^ (U(size) * GOLDEN)) * MIX1
    if size > 8:
        at, end = start + 8, start + size
        while at + 8 < end:
            h = ((h ^ (h >> U(32))) ^ load64(data, at)) * MIX1
            at += 8
        h = ((h ^ (h >> U(32))) ^ (load64(data, at) & byte_masks[U(end - at)])) * MIX1
    h = (h ^ (h >> U(32))) * MIX2
    return h ^ (h >> U(29))


@inlined
def same_tail(data, start, size, arena, offset, byte_masks):
    """Whether all bytes after the first 8 agree."""
    at = np.int64(8)
    while at + 8 < size:
        if load64(data, start + at) != load64(arena, offset + at):
            return False
        at += 8
    mask = byte_masks[U(size - at)]
    return load64(data, start + at) & mask == load64(arena, offset + at) & mask


@inlined
def find_slot(data, start, size, head, h, table, records, arena, byte_masks):
    """Slot of the word in the table, or the free slot where it belongs."""
    last = U(table.shape[0] - 1)
    slot = h & last
    while True:
        entry = table[slot]
        if entry == U(0):
            return slot
        if (entry ^ h) & HIGH == U(0):
            word = (entry & LOW) - U(1)
            if (
                records[word, HEAD] == head
                and records[word, LENGTH] == U(size)
                and (size <= 8 or same_tail(data, start, size, arena, np.int64(records[word, OFFSET]), byte_masks))
            ):
                return slot
        slot = (slot + U(1)) & last


@inlined
def store_word(data, start, size, head, h, slot, table, records, arena, used, value):
    """Put a new word and its value at a free slot."""
    word, offset = used[WORDS], used[BYTES]
    records[word, OFFSET], records[word, LENGTH] = U(offset), U(size)
    records[word, VALUE], records[word, HEAD] = value, head
    for k in range(size):
        arena[offset + k] = data[start + k]
    used[WORDS], used[BYTES] = word + 1, offset + size
    table[slot] = (h & HIGH) | U(word + 1)


@kernel(
    "int64(uint8[::1], int64, int32[::1], int64, int64[::1], "
    "uint64[::1], uint64[:,::1], uint8[::1], int64[::1], uint64[::1])"
)
def count_pieces(data, start, ends, done, weights, table, records, arena, used, byte_masks):
    """Add weights[k] (or 1 if `weights` is empty) to the count of each piece from number `done` on.

    The first piece starts at `start`. Returns how many pieces are done: fewer than all if the table is full.
    """
    if done > 0:
        start = np.int64(ends[done - 1])
    limit = min(records.shape[0], table.shape[0] * FULL // 100)
    for k in range(done, ends.shape[0]):
        end = np.int64(ends[k])
        size = end - start
        head = load64(data, start) & byte_masks[U(min(size, 8))]
        h = hash_word(data, start, size, head, byte_masks)
        slot = find_slot(data, start, size, head, h, table, records, arena, byte_masks)
        if table[slot] == U(0):
            if used[WORDS] >= limit or used[BYTES] + size + PADDING > arena.shape[0]:
                return k
            store_word(data, start, size, head, h, slot, table, records, arena, used, U(0))
        weight = U(1) if weights.shape[0] == 0 else U(weights[k])
        records[(table[slot] & LOW) - U(1), VALUE] += weight
        start = end
    return ends.shape[0]


@kernel("void(uint64[::1], uint64[:,::1], uint8[::1], int64, uint64[::1])")
def fill_table(table, records, arena, words, byte_masks):
    """Enter words 0..words-1, all different, into an empty table."""
    last = U(table.shape[0] - 1)
    for word in range(words):
        offset, size = np.int64(records[word, OFFSET]), np.int64(records[word, LENGTH])
        h = hash_word(arena, offset, size, records[word, HEAD], byte_masks)
        slot = h & last
        while table[slot] != U(0):
            slot = (slot + U(1)) & last
        table[slot] = (h & HIGH) | U(word + 1)


class WordCounter:
    """Counts pieces in a table that grows with the number of distinct ones."""

    def __init__(self, table_bits: int = 14):
        self.used = np.zeros(2, np.int64)
        self.table = np.zeros(1 << table_bits, np.uint64)
        self.records = np.empty(((1 << table_bits) * FULL // 100, 4), np.uint64)
        self.arena = np.zeros((1 << table_bits) * 8, np.uint8)

    def add(self, data: np.ndarray, start: int, ends: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Count the pieces of `data` (uint8, PADDING spare bytes after it) from `start`, ends int32 [pieces]."""
        if weights is None:
            weights = NO_WEIGHTS
        done = 0
        while True:
            done = count_pieces(
                data, start, ends, done, weights, self.table, self.records, self.arena, self.used, BYTE_MASKS
            )
            if done == len(ends):
                return
            self._grow(int(ends[done]) - (int(ends[done - 1]) if done else start))

    def _grow(self, next_size: int) -> None:
        words, size = self.used.tolist()
        if size + next_size + PADDING > len(self.arena):
            arena = np.empty(max(2 * len(self.arena), size + next_size + PADDING), np.uint8)
            arena[:size] = self.arena[:size]
            self.arena = arena
        if words >= len(self.records):
            table = np.zeros(2 * len(self.table), np.uint64)
            records = np.empty((len(table) * FULL // 100, 4), np.uint64)
            records[:words] = self.records[:words]
            fill_table(table, records, self.arena, words, BYTE_MASKS)
            self.table, self.records = table, records

    def words(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(bytes of all words end to end and PADDING, int64 ends, int64 counts), in the order first seen."""
        words, size = self.used.tolist()
        ends = np.cumsum(self.records[:words, LENGTH].astype(np.int64))
        data = np.zeros(size + PADDING, np.uint8)
        data[:size] = self.arena[:size]
        return data, ends, self.records[:words, VALUE].astype(np.int64)


NO_WEIGHTS = np.zeros(0, np.int64)
