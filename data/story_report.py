"""What the generated text is like: its distinct words, and how much of the validation text also stands in training.

A story made from templates repeats whole sentences, so the overlap is high and says so. What validation measures is
whether the model keeps characters, objects and events straight in combinations that it has not seen.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from story_grammar import END_OF_TEXT

WORD = re.compile(r"<\|endoftext\|>|[a-z0-9]+(?:'[a-z]+)?|[\u4e00-\u9fff]")  # a Chinese character counts as a word
N = 13  # words, as in the GPT-3 paper, appendix C
BLOCK = 1 << 24  # characters read at a time


def blocks(path: Path) -> Iterator[str]:
    """The text in pieces of whole documents."""
    with path.open(encoding="utf-8") as file:
        rest = ""
        while piece := file.read(BLOCK):
            whole, mark, rest = (rest + piece).rpartition(END_OF_TEXT)
            yield whole + mark
    if rest.strip():
        yield rest


class Vocabulary(dict):
    """Word -> its number, in the order of appearance; the document separator is 0."""

    def __init__(self):
        super().__init__({END_OF_TEXT: 0})

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


def ngram_hashes(text: str, vocabulary: Vocabulary):
    """A 64-bit hash of every run of 13 words within one document (polynomial, modulo 2^64); array of uint64."""
    import numpy as np

    ids = np.array([vocabulary[word] for word in WORD.findall(text.lower())], dtype=np.uint64)
    if len(ids) < N:
        return np.zeros(0, dtype=np.uint64)
    count = len(ids) - N + 1
    hashes = np.zeros(count, dtype=np.uint64)
    separators = np.cumsum(np.concatenate([[0], ids == 0]))
    for shift in range(N):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + ids[shift : shift + count]
    return hashes[separators[N:] == separators[:-N]]


def report(folder: Path) -> dict:
    """Distinct words of train.txt and the share of val.txt's 13-grams that also stand in train.txt."""
    import numpy as np

    vocabulary = Vocabulary()
    val = np.concatenate([ngram_hashes(text, vocabulary) for text in blocks(folder / "val.txt")])
    wanted = np.unique(val)
    found = np.zeros(len(wanted), dtype=bool)
    for text in blocks(folder / "train.txt"):
        hashes = np.unique(ngram_hashes(text, vocabulary))
        found |= np.isin(wanted, hashes, assume_unique=True)
    words = [word for word in vocabulary if word.isascii() and word[0].isalpha()]
    return {
        "vocabulary": {
            "English words": len({word.split("'")[0] for word in words}),
            "Chinese characters": sum(not word.isascii() for word in vocabulary),
        },
        "share of val's 13-grams that are in train": float(found[np.searchsorted(wanted, val)].mean()),
    }
