"""The compiled trainer: count the distinct pieces (counting.py), then merge pairs of them (merging.py).

    vocabulary = train(["corpus.txt"], vocab_size=32_000, special_tokens=["<|endoftext|>"])
    vocabulary = train(["low lower lowest"], vocab_size=260, texts=True)     # tiny, from a list of texts

The merges are exactly those of basic.BasicTokenizer under the same tie rule, and those of the tool each rule is
named after. Importing this module compiles the loops, some seconds the first time (compiled.py).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
from counting import Counts, count
from merging import FIRST, GREATEST_BYTES, IDS, PROGRESS, STOP, merge_words
from vocabulary import InputError, Ties, Vocabulary, byte_order, check_size, check_ties

TIE_RULES = {"hf": IDS, "ids": IDS, "first": FIRST, "bytes": GREATEST_BYTES}
MOST_SYMBOLS = (1 << 31) - 16  # places are int32

__all__ = ["Counts", "Ties", "count", "extend", "merge", "train"]


def train(
    sources: Sequence,
    vocab_size: int,
    pattern: str = "gpt2",
    ties: Ties = "hf",
    special_tokens: Sequence[str] = (),
    threads: int | None = None,
    errors: str = "strict",
    texts: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Vocabulary:
    """Train on files (or texts, see counting.count). Fewer merges than asked for if no pair is left.

    pattern: "gpt2", "gpt4", "none" or a regular expression; no merge crosses its pieces. ties, progress: see `merge`.
    special_tokens, threads, errors: see counting.count. InputError for a `vocab_size` that bytes and special tokens do
    not fit into or above 1,048,576, an unknown tie rule, a pattern that is no regular expression or takes too long,
    special tokens that are empty or there twice, unknown `errors`, and files that cannot be read or are not UTF-8.
    """
    check_size(vocab_size, special_tokens)
    check_ties(ties)
    counts = count(sources, pattern, special_tokens, threads, errors=errors, texts=texts)
    return merge(counts, vocab_size, ties, progress)


def merge(
    counts: Counts, vocab_size: int, ties: Ties = "hf", progress: Callable[[int], None] | None = None
) -> Vocabulary:
    """Merge pairs until the vocabulary has `vocab_size` tokens or none is left.

    ties, of pairs with the same count: "hf" and "ids" take the smallest pair of ids (as Hugging Face numbers the
    bytes, or 0..255), "first" the one seen first in the corpus, "bytes" the greatest byte strings. Special tokens
    get the first ids under "hf", the last under the others. progress(merges since the last call).
    """
    check_size(vocab_size, counts.special_tokens)
    check_ties(ties)
    specials = counts.special_tokens
    specials_first = ties == "hf"
    order = byte_order(ties)
    wanted = vocab_size - 256 - len(specials)
    merges = run_merges(counts, order, ties, [], wanted, progress)
    shift = len(specials) if specials_first else 0
    return Vocabulary.build(order, (merges + shift).tolist(), specials, counts.pattern, specials_first)


def extend(
    vocabulary: Vocabulary,
    counts: Counts,
    vocab_size: int,
    ties: Ties = "hf",
    progress: Callable[[int], None] | None = None,
) -> Vocabulary:
    """Add merges to a trained tokenizer: its ids stay, the new tokens come after all of them.

    The counted text is first merged as the tokenizer would, then training goes on. With the text it was trained
    on the result is that of training for longer at once. Ties "hf" and "ids" both take the smallest ids, as the
    tokenizer numbers them. InputError for counts of another pattern or other special tokens.
    """
    check_size(vocab_size, vocabulary.special_tokens)
    check_ties(ties)
    if counts.pattern != vocabulary.pattern:
        raise InputError(f"pattern: counted with {counts.pattern!r}, the tokenizer splits by {vocabulary.pattern!r}")
    if set(counts.special_tokens) != set(vocabulary.special_tokens):
        one, other = (" ".join(tokens) or "none" for tokens in (counts.special_tokens, vocabulary.special_tokens))
        raise InputError(f"special_tokens: counted with {one}, the tokenizer has {other}; count with the same ones")
    if vocabulary.normalizer:
        form = vocabulary.normalizer
        raise InputError(f"normalizer: {form} changes texts, but they are counted as they are: it cannot grow")
    if vocab_size < len(vocabulary):
        raise InputError(f"vocab_size: {vocab_size:,} is below the {len(vocabulary):,} tokens it has already")
    # merge_words numbers bytes 0..255 and merges from 256 on; `ids` says which ids those are
    order = sorted(range(256), key=vocabulary.byte_ids.__getitem__)
    ids = [vocabulary.byte_ids[byte] for byte in order] + vocabulary.merged_ids
    if ids != sorted(set(ids)):
        raise InputError("merged_ids: only a tokenizer whose ids are bytes first, then merges in order, can grow")
    number = {n: k for k, n in enumerate(ids)}
    forced = [(number[a], number[b]) for a, b in vocabulary.merges if a in number and b in number]
    if len(forced) < len(vocabulary.merges):
        raise InputError("merges: one takes a token that no merge makes")
    wanted = len(forced) + vocab_size - len(vocabulary)
    merges = run_merges(counts, order, ties, forced, wanted, progress)[len(forced) :]
    ids += range(len(vocabulary), len(vocabulary) + len(merges))
    new_merges = [(ids[a], ids[b]) for a, b in merges.tolist()]
    token_bytes = list(vocabulary.token_bytes)
    for a, b in new_merges:
        token_bytes.append(token_bytes[a] + token_bytes[b])
    return Vocabulary(
        token_bytes,
        vocabulary.merges + new_merges,
        ids[256:],
        vocabulary.special_tokens,
        vocabulary.pattern,
        vocabulary.added,
        normalized=vocabulary.normalized,
    )


def run_merges(
    counts: Counts,
    order: list[int],
    ties: Ties,
    forced: list[tuple[int, int]],
    wanted: int,
    progress: Callable[[int], None] | None,
) -> np.ndarray:
    """int32 [merges, 2]: pairs of numbers, bytes being 0..255 in `order` and merge m making 256 + m.

    The loop runs in a thread of its own, so that this one can report progress and take Ctrl-C.
    """
    if len(counts.data) + len(counts) > MOST_SYMBOLS:
        raise InputError(f"counts: {len(counts.data):,} bytes of distinct pieces are more than 2 GiB")
    id_of_byte = np.empty(256, np.int32)
    id_of_byte[order] = np.arange(256)
    # a merge removes a symbol, so there are never more merges than bytes (forced ones need not occur at all)
    wanted = min(wanted, len(forced) + len(counts.data))
    merges = np.empty((wanted, 2), np.int32)
    forced_pairs = np.array(forced, np.int32).reshape(-1, 2)
    flags = np.zeros(2, np.int64)
    words = (counts.data, counts.ends, counts.counts)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(merge_words, *words, id_of_byte, TIE_RULES[ties], forced_pairs, merges, flags)
        try:
            reported, running = 0, True
            while running:
                running = wait([future], timeout=0.2).not_done
                done = int(flags[PROGRESS])
                if progress and done > reported:
                    progress(done - reported)
                reported = done
        except BaseException:  # also Ctrl-C: leaving `with` waits for the loop, which stops at its next merge
            flags[STOP] = 1
            raise
    return merges[: future.result()]
