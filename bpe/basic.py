"""Byte pair encoding as the definition says it, in about a page. Slow on purpose: read this one first.

    >>> tokenizer = BasicTokenizer()
    >>> tokenizer.train("low lower lowest", vocab_size=259)
    >>> tokenizer.encode("lower low"), tokenizer.vocabulary.token_bytes[257]
    ([257, 101, 114, 258], b'low')

Training (Sennrich et al. 2016, arXiv:1508.07909; on bytes: GPT-2): start from the 256 bytes, then again and again
find the pair of neighbours that occurs most often, give it a new id, and replace it everywhere. Encoding repeats
the same merges in the same order. `linked_list.py` and `fast.py` make the same merges in far fewer steps.
"""

from collections import Counter
from itertools import pairwise

from split import split_pieces, split_specials
from vocabulary import Vocabulary, byte_order, check_size, check_ties, to_bytes


def count_pairs(words: dict[tuple, int]) -> dict[tuple[int, int], int]:
    """How often each pair of neighbours occurs: {(1, 2, 3, 1, 2): 1} -> {(1, 2): 2, (2, 3): 1, (3, 1): 1}.

    Overlapping occurrences all count: (7, 7, 7) has two of (7, 7). Pairs come in the order they are first seen.
    """
    counts = {}
    for word, times in words.items():
        for pair in pairwise(word):
            counts[pair] = counts.get(pair, 0) + times
    return counts


def merge_pair(word: tuple, pair: tuple[int, int], new: int) -> tuple:
    """Replace the pair from left to right: (1, 2, 3, 1, 2), (1, 2), 4 -> (4, 3, 4)."""
    merged, i = [], 0
    while i < len(word):
        if word[i : i + 2] == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return tuple(merged)


class BasicTokenizer:
    """The naive tokenizer. Which of several equally frequent pairs is merged first is the tie rule.

    "ids"    the smallest pair of ids, single bytes being 0..255 (rustbpe, and the PKU course's homework)
    "hf"     the same, with Hugging Face's ids: special tokens, then bytes in the order of their mapped characters
    "first"  the pair seen first in the text as it then stands (minbpe)
    "bytes"  the pair whose two byte strings are greatest (Stanford CS336)
    """

    def train(self, text: str | bytes, vocab_size: int, pattern="none", ties="ids", special_tokens=()) -> None:
        """Learn merges until the vocabulary has `vocab_size` tokens or no pair is left.

        pattern: "gpt2", "gpt4", "none" or a regular expression; no merge crosses its pieces. special_tokens: never
        counted, no merge crosses them; they get the first ids under ties "hf", else the last. InputError for a
        `vocab_size` that they and the bytes do not fit into or above 1,048,576, an unknown tie rule, a pattern that is
        no regular expression or takes too long, and special tokens that are empty or there twice.
        """
        check_size(vocab_size, special_tokens)
        check_ties(ties)
        data = to_bytes(text)
        order = byte_order(ties)
        first_byte = len(special_tokens) if ties == "hf" else 0
        id_of_byte = {byte: first_byte + n for n, byte in enumerate(order)}
        token = {n: bytes([byte]) for byte, n in id_of_byte.items()}
        preference = {
            "hf": lambda pair: (-pair[0], -pair[1]),
            "ids": lambda pair: (-pair[0], -pair[1]),
            "first": lambda pair: 0,  # max() keeps the first of equals
            "bytes": lambda pair: (token[pair[0]], token[pair[1]]),
        }[ties]

        segments = [data[a:b] for a, b, special in split_specials(data, special_tokens) if special is None]
        pieces = [piece for segment in segments for piece in split_pieces(segment, pattern)]
        words = dict(Counter(tuple(id_of_byte[byte] for byte in piece) for piece in pieces))
        merges = []
        while len(merges) < vocab_size - 256 - len(special_tokens):
            counts = count_pairs(words)
            if not counts:
                break
            pair = max(counts, key=lambda pair: (counts[pair], preference(pair)))
            new = first_byte + 256 + len(merges)
            words = {merge_pair(word, pair, new): times for word, times in words.items()}
            token[new] = token[pair[0]] + token[pair[1]]
            merges.append(pair)
        self.vocabulary = Vocabulary.build(order, merges, special_tokens, pattern, specials_first=ties == "hf")

    def encode(self, text: str | bytes) -> list[int]:
        """Ids of the text, special tokens included: in each piece, merge the pair learned earliest, and repeat."""
        v, data, ids = self.vocabulary, to_bytes(text), []
        for start, end, special in split_specials(data, v.special_tokens):
            if special is not None:
                ids.append(v.special_tokens[special])
                continue
            for piece in split_pieces(data[start:end], v.pattern):
                ids.extend(self.encode_piece(tuple(v.byte_ids[byte] for byte in piece)))
        return ids

    def encode_piece(self, word: tuple[int, ...]) -> tuple[int, ...]:
        """Ids of one piece, given as the ids of its bytes."""
        rank, merged_ids = self.vocabulary.ranks, self.vocabulary.merged_ids
        while known := [pair for pair in pairwise(word) if pair in rank]:
            pair = min(known, key=rank.__getitem__)
            word = merge_pair(word, pair, merged_ids[rank[pair]])
        return word

    def decode_bytes(self, ids: list[int]) -> bytes:
        """Bytes of the ids."""
        return b"".join(self.vocabulary.token_bytes[n] for n in ids)

    def decode(self, ids: list[int]) -> str:
        """Text of the ids; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")
