"""BPE in O(n log n) and plain Python: a heap of pairs, and the text as a doubly linked list.

    python bpe/run.py bench --only train_unsplit      # against minbpe's BasicTokenizer
    >>> tokenizer = LinkedListTokenizer()
    >>> tokenizer.train("low lower lowest", vocab_size=259)
    >>> tokenizer.encode("lower low")
    [257, 101, 114, 258]

basic.py goes over the whole text for every merge: O(n) a merge. But a merge changes only the neighbourhoods of the
places where its pair stands, and those can be kept:

- `symbol[p]` is the id of the token that begins at place p; `following[p]` and `before[p]` are the places of its
  neighbours. Merging the tokens at p and q = following[p] gives p the new id and takes q out of the list:

      before:   x --- a --- b --- y          after:   x ----- new ----- y
                l     p     q     r                   l        p        r

  Four pairs are touched: (a, b) itself; (x, a) and (b, y), which are gone from here; (x, new) and (new, y), new here.
- `places[pair]` lists where a pair was born. All places of (x, new) are born in the merge that makes `new`, so
  the list is never added to afterwards; places whose pair has since been merged away are skipped when met.
- The heap holds (-count, tie, pair) as it was when pushed. Counts only fall after that, so the entry on top is the
  right one if its count still holds; otherwise it goes back with the present count ("lazy" heap).

Every place is pushed and popped a bounded number of times for each token that disappears there, and tokens
disappear n - 1 times at most: O(n log n) in all.
"""

from collections import defaultdict
from heapq import heapify, heappop, heappush, heapreplace
from itertools import pairwise

from basic import BasicTokenizer
from split import split_pieces, split_specials
from vocabulary import Vocabulary, byte_order, check_size, check_ties, to_bytes

GAP = -1  # the symbol between two pieces, before the first and after the last


class Greatest:
    """Orders pairs of byte strings the other way round, since a heap gives the least."""

    __slots__ = ("tokens",)

    def __init__(self, left: bytes, right: bytes):
        self.tokens = (left, right)

    def __lt__(self, other: "Greatest") -> bool:
        return self.tokens > other.tokens


class LinkedListTokenizer(BasicTokenizer):
    """Makes the same merges and ids as BasicTokenizer, tie rules included, and decodes like it."""

    def train(self, text: str | bytes, vocab_size: int, pattern="none", ties="ids", special_tokens=()) -> None:
        """As BasicTokenizer.train: the same arguments, InputErrors and vocabulary."""
        check_size(vocab_size, special_tokens)
        check_ties(ties)
        data = to_bytes(text)
        order = byte_order(ties)
        first_byte = len(special_tokens) if ties == "hf" else 0
        id_of_byte = [first_byte + order.index(byte) for byte in range(256)]
        token = {id_of_byte[byte]: bytes([byte]) for byte in range(256)}

        symbol = [GAP]
        for start, end, special in split_specials(data, special_tokens):
            if special is None:
                for piece in split_pieces(data[start:end], pattern):
                    symbol += [id_of_byte[byte] for byte in piece]
                    symbol.append(GAP)
        following = list(range(1, len(symbol) + 1))
        before = list(range(-1, len(symbol) - 1))
        places = defaultdict(list)
        for p, pair in enumerate(pairwise(symbol)):
            places[pair].append(p)
        places = {pair: at for pair, at in places.items() if GAP not in pair}
        count = defaultdict(int, {pair: len(at) for pair, at in places.items()})

        def tie(pair):
            if ties == "first":
                return places[pair][0]
            return Greatest(token[pair[0]], token[pair[1]]) if ties == "bytes" else 0  # 0: the pairs themselves decide

        heap = [(-count[pair], tie(pair), pair) for pair in places]
        heapify(heap)
        merges = []
        while len(merges) < vocab_size - 256 - len(special_tokens) and heap:
            negative, rule, pair = heap[0]
            if not count[pair]:
                heappop(heap)
                continue
            a, b = pair
            stale = -negative != count[pair]
            if ties == "first":  # has the first place of the pair been merged away?
                at = places[pair]
                gone = 0
                while symbol[at[gone]] != a or symbol[following[at[gone]]] != b:
                    gone += 1
                del at[:gone]
                stale = stale or at[0] != rule
                rule = at[0]
            if stale:
                heapreplace(heap, (-count[pair], rule, pair))
                continue
            heappop(heap)

            new = first_byte + 256 + len(merges)
            merges.append(pair)
            token[new] = token[a] + token[b]
            born_left, born_right = defaultdict(list), defaultdict(list)  # x -> places of (x, new); y -> of (new, y)
            for p in places.pop(pair):
                if symbol[p] != a:
                    continue
                q = following[p]
                if symbol[q] != b:
                    continue
                left, right = before[p], following[q]
                born_left[symbol[left]].append(left)
                born_right[symbol[right]].append(p)
                symbol[p], symbol[q] = new, GAP
                following[p], before[right] = right, p
            # Where occurrences touch, (new, a) is born on the right of one and gone again with the next: the counts
            # below come out right because they are only read when all are in.
            born_left.pop(GAP, None)
            born_right.pop(GAP, None)
            for x, at in born_left.items():
                count[x, a] -= len(at)
                count[x, new] += len(at)
                places[x, new] = at
            for y, at in born_right.items():
                count[b, y] -= len(at)
                count[new, y] += len(at)
                places[new, y] = at
            count[pair] = 0
            for born in [(x, new) for x in born_left] + [(new, y) for y in born_right]:
                if count[born]:
                    heappush(heap, (-count[born], tie(born), born))
        self.vocabulary = Vocabulary.build(order, merges, special_tokens, pattern, specials_first=ties == "hf")

    def encode_piece(self, word: tuple[int, ...]) -> list[int]:
        """Ids of one piece given as ids of bytes, in O(n log n): a heap of (rank, place)."""
        rank, merged_ids = self.vocabulary.ranks, self.vocabulary.merged_ids
        symbol = list(word)
        n = len(symbol)
        following, before = list(range(1, n + 1)), list(range(-1, n - 1))
        heap = [(rank[pair], p) for p, pair in enumerate(pairwise(symbol)) if pair in rank]
        heapify(heap)
        while heap:
            r, p = heappop(heap)
            q = following[p] if symbol[p] != GAP else n
            if q == n or rank.get((symbol[p], symbol[q])) != r:
                continue  # merged away since
            left, right = before[p], following[q]
            symbol[p], symbol[q], following[p] = merged_ids[r], GAP, right
            if right < n:
                before[right] = p
                if (symbol[p], symbol[right]) in rank:
                    heappush(heap, (rank[symbol[p], symbol[right]], p))
            if left >= 0 and (symbol[left], symbol[p]) in rank:
                heappush(heap, (rank[symbol[left], symbol[p]], left))
        return [n for n in symbol if n != GAP]
