"""The naive tokenizer against rules written down a second time here, the linked list one against the naive one."""

from itertools import pairwise
from pathlib import Path

import pytest
from basic import BasicTokenizer, count_pairs, merge_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from linked_list import LinkedListTokenizer
from vocabulary import InputError, Vocabulary, byte_order, mapped_code_points

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
TIES = ("hf", "ids", "first", "bytes")
TEXTS = [
    "low low lower lowest newest wider",
    "aaaaaaaaaaa" + "aba" * 9,
    "the cat and the hat; the bat.\n\n  The end  of it's tale, they'll say\n" * 3,
    "北京大学，北京。大学生" * 4 + "é" * 5,
]


def test_counting_and_merging_follow_the_worked_examples():
    assert count_pairs({(1, 2, 3, 1, 2): 1}) == {(1, 2): 2, (2, 3): 1, (3, 1): 1}
    assert count_pairs({(7, 7, 7): 4}) == {(7, 7): 8}
    assert merge_pair((1, 2, 3, 1, 2), (1, 2), 4) == (4, 3, 4)
    assert merge_pair((7, 7, 7), (7, 7), 8) == (8, 7)


def test_first_seen_ties_are_minbpes():
    """minbpe's rule, written on its own terms: max(stats, key=stats.get) over one list of ids."""
    ids = list(TEXTS[2].encode())
    merges = []
    for new in range(256, 300):
        stats = {}
        for pair in pairwise(ids):
            stats[pair] = stats.get(pair, 0) + 1
        best = max(stats, key=stats.get)
        merges.append(best)
        i, merged = 0, []
        while i < len(ids):
            if ids[i] == best[0] and i < len(ids) - 1 and ids[i + 1] == best[1]:
                merged.append(new)
                i += 2
            else:
                merged.append(ids[i])
                i += 1
        ids = merged
    tokenizer = BasicTokenizer()
    tokenizer.train(TEXTS[2], 300, ties="first")
    assert tokenizer.vocabulary.merges == merges


def test_greatest_bytes_ties_are_those_of_cs336():
    """The course's own example: with counts tied, the lexicographically greater pair of byte strings."""
    tokenizer = BasicTokenizer()
    corpus = " ".join(["low"] * 5 + ["lower"] * 2 + ["widest"] * 3 + ["newest"] * 6)
    tokenizer.train(corpus, 256 + 6, pattern=r"\S+", ties="bytes")
    token = tokenizer.vocabulary.token_bytes
    made = [token[n] for n in tokenizer.vocabulary.merged_ids]
    assert made == [b"st", b"est", b"ow", b"low", b"west", b"ne"]
    pieces = [token[n] for n in tokenizer.encode("newest")]
    assert pieces == [b"ne", b"west"]


def test_hf_byte_order_is_that_of_the_mapped_characters():
    points = mapped_code_points()
    assert points[ord("a")] == ord("a")
    assert points[ord(" ")] == 0x120
    order = byte_order("hf")
    assert order[0] == ord("!")
    assert [points[byte] for byte in order] == sorted(points)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "none", r"\w+|\W+"])
@pytest.mark.parametrize("text", [*TEXTS, "", "x", "zz"])
def test_linked_list_makes_the_same_vocabulary(text, pattern, ties):
    slow, quick = BasicTokenizer(), LinkedListTokenizer()
    for tokenizer in (slow, quick):
        tokenizer.train("<|x|>" + text + "<|x|>low", 256 + 1 + 60, pattern, ties, ["<|x|>"])
    assert slow.vocabulary == quick.vocabulary
    for other in (text, "lowest 大学 <|x|> aaab"):
        assert list(slow.encode(other)) == list(quick.encode(other))
        assert quick.decode(quick.encode(other)) == other


@settings(max_examples=150, deadline=None)
@given(st.text("aab ", max_size=60), st.sampled_from(TIES), st.sampled_from(["none", "gpt2"]))
def test_linked_list_on_small_alphabets(text, ties, pattern):
    slow, quick = BasicTokenizer(), LinkedListTokenizer()
    for tokenizer in (slow, quick):
        tokenizer.train(text, 300, pattern, ties)
    assert slow.vocabulary == quick.vocabulary
    assert list(slow.encode(text + "ba")) == quick.encode(text + "ba")


@pytest.mark.parametrize("tokenizer", [BasicTokenizer(), LinkedListTokenizer()])
def test_a_piece_is_encoded_without_a_text_before_it(tokenizer):
    tokenizer.train("low lower lowest", 259)
    assert tuple(tokenizer.encode_piece(tuple(b"lower"))) == (257, 101, 114)


def test_the_homeworks_own_table():
    """manual.txt, vocabulary 1,024, no splitting, smallest ids: 937 and 118 tokens for the two paragraphs."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data/manual.txt")
    tokenizer = LinkedListTokenizer()
    tokenizer.train((SHARED / "manual.txt").read_text(encoding="utf-8"), 1024)
    sizes = [len(tokenizer.encode((SHARED / f"sentence_{n}.txt").read_text(encoding="utf-8"))) for n in ("en", "zh")]
    assert sizes == [937, 118]


@pytest.mark.parametrize("tokenizer", [BasicTokenizer(), LinkedListTokenizer()])
def test_too_small_a_vocabulary_is_refused(tokenizer):
    with pytest.raises(InputError, match="vocab_size"):
        tokenizer.train("abc", 256, special_tokens=["<|end|>"])


def test_vocabulary_names_what_is_wrong():
    good = Vocabulary.build(range(256), [(104, 105)], ["<|e|>"], specials_first=False)
    fields = {name: getattr(good, name) for name in ("token_bytes", "merges", "merged_ids", "special_tokens")}
    for name, value in (
        ("token_bytes", [b"a", *good.token_bytes[1:]]),
        ("token_bytes", [None, *good.token_bytes[1:]]),
        ("token_bytes", good.token_bytes[1:]),
        ("merges", [(104, 999)]),
        ("merges", [(104, 106)]),
        ("merges", [(104, 257)]),
        ("merged_ids", []),
        ("special_tokens", {"<|e|>": 3}),
        ("special_tokens", {"": 257}),
        ("special_tokens", {"<|e|>": 258}),
    ):
        with pytest.raises(InputError, match=f"^(special_tokens|{name}|token_bytes)"):
            Vocabulary(**(fields | {name: value}))
