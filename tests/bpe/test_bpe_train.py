"""The compiled trainer against the naive one, Hugging Face's and rustbpe's; counting in parts; hard inputs."""

import gzip
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import fast
import numpy as np
import pytest
from basic import BasicTokenizer
from counting import Counts, count
from hypothesis import given, settings
from hypothesis import strategies as st
from linked_list import LinkedListTokenizer
from split import PATTERN_OF, split_specials
from vocabulary import InputError, mapped_code_points

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))
END = "<|endoftext|>"
TIES = ("hf", "ids", "first", "bytes")
ENGLISH = "It's the cat and the hat, they'll say.\n\n  In 2023 the bats 'flew'  \tover there...\n" * 4
CHINESE = "北京大学，北京。大学生　2023年：\n\n“你好”①②" * 4


def shared(name: str) -> Path:
    if not (SHARED / name).is_file():
        pytest.skip(f"needs {SHARED / name}")
    return SHARED / name


def real_texts() -> list[str]:
    return [shared(name).read_text(encoding="utf-8")[:400_000] for name in ("tinyshakespeare.txt", "manual.txt")]


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "none", r"\w+|\W+"])
@pytest.mark.parametrize("text", [ENGLISH, CHINESE, "a" * 999, "ab" * 50 + "aaa" * 7 + END + "abab", "", "x"])
def test_merges_of_the_naive_trainer(text, pattern, ties):
    naive = BasicTokenizer()
    naive.train(text, 257 + 70, pattern, ties, [END])
    assert fast.train([text], 257 + 70, pattern, ties, [END], texts=True) == naive.vocabulary


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.text(max_size=30), st.text("ab ", max_size=60)), max_size=4),
    st.sampled_from(TIES),
    st.sampled_from(["none", "gpt2", "gpt4"]),
)
def test_any_text_trains_as_the_naive_trainer_does(texts, ties, pattern):
    joined = END.join(texts).encode("utf-8", "surrogatepass")
    naive = BasicTokenizer()
    naive.train(joined, 300, pattern, ties, [END])
    assert fast.train([joined], 300, pattern, ties, [END], texts=True, errors="bytes") == naive.vocabulary


@pytest.mark.parametrize("ties", TIES)
def test_real_text_trains_as_the_linked_list_trainer_does(ties):
    for text in real_texts():
        linked = LinkedListTokenizer()
        linked.train(text[:150_000], 1500, "gpt2", ties)
        assert fast.train([text[:150_000]], 1500, "gpt2", ties, texts=True) == linked.vocabulary
    linked.train(text, 1024, "none", ties)
    assert fast.train([text], 1024, "none", ties, texts=True) == linked.vocabulary


def test_ids_and_merges_are_hugging_faces():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    points = mapped_code_points()
    for text in real_texts():
        text = text[:200_000] + END + text[200_000:]
        segments = [text.encode()[a:b].decode() for a, b, s in split_specials(text.encode(), [END]) if s is None]
        theirs = Tokenizer(models.BPE())
        theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        special = [END, "<pad>"]
        trainer = trainers.BpeTrainer(
            vocab_size=4000, initial_alphabet=alphabet, special_tokens=special, show_progress=False
        )
        theirs.train_from_iterator(segments, trainer)
        model = json.loads(theirs.to_str())["model"]
        ours = fast.train([text], 4000, "gpt2", "hf", special, texts=True)

        def mapped(token: bytes) -> str:
            return "".join(chr(points[byte]) for byte in token)

        names = special + [mapped(token) for token in ours.token_bytes[2:]]
        assert {name: n for n, name in enumerate(names)} == model["vocab"]
        assert [[names[a], names[b]] for a, b in ours.merges] == [list(pair) for pair in model["merges"]]


def test_merges_are_rustbpes():
    rustbpe = pytest.importorskip("rustbpe", reason="rustbpe is in requirements-bench.txt")
    for text in real_texts():
        for pattern in ("gpt2", "gpt4"):
            theirs = rustbpe.Tokenizer()
            theirs.train_from_iterator([text], 3000, pattern=PATTERN_OF[pattern])
            ours = fast.train([text], 3000, pattern, "ids", texts=True)
            assert [(bytes(token), n) for token, n in theirs.get_mergeable_ranks()] == list(
                zip(ours.token_bytes, range(3000), strict=True)
            )


def files_in(folder: Path) -> list[Path]:
    """Two files with documents, among them long ones without a space, Chinese, and odd line ends."""
    parts = [ENGLISH * 500, CHINESE * 800, "x" * 3_000_000, END + " a b\r\n" * 50_000, "中　" * 100_000]
    paths = [folder / "one.txt", folder / "two with space.txt"]
    paths[0].write_text(END.join(parts), encoding="utf-8", newline="")
    paths[1].write_text(" tail" + END + parts[1] * 3, encoding="utf-8", newline="")
    return paths


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_threads_chunks_and_shards_make_no_difference(tmp_path, monkeypatch, pattern):
    paths = files_in(tmp_path)
    texts = [path.read_bytes() for path in paths]
    expected = count(texts, pattern, [END], texts=True)
    assert expected.counts.sum() > 400_000
    for threads, chunk in ((1, 1 << 20), (2, 1 << 20), (3, 5000), (7, 70_001)):
        monkeypatch.setattr("counting.CHUNK", chunk)
        found = count(paths, pattern, [END], threads=threads)
        assert list(found.items()) == list(expected.items())
    shards = []
    for index in (2, 0, 1):
        part = count(paths, pattern, [END], threads=1 + index, shard=(index, 3))
        part.save(tmp_path / f"{index}.npz")
        shards.append(Counts.load(tmp_path / f"{index}.npz"))
    whole = Counts.merged(shards)
    assert list(whole.items()) == list(expected.items())
    for ties in TIES:
        assert fast.merge(whole, 600, ties) == fast.merge(expected, 600, ties)
    with pytest.raises(InputError, match="twice"):
        Counts.merged([shards[0], *shards])
    with pytest.raises(InputError, match="missing"):
        Counts.merged(shards[:2])


def test_patterns_of_regex_count_the_same_in_chunks(tmp_path, monkeypatch):
    path = tmp_path / "documents.txt"
    path.write_text(END.join(f"document {n} of many" for n in range(3000)))
    for pattern in ("none", r"\w+|\W+"):
        expected = count([path.read_bytes()], pattern, [END], texts=True)
        for chunk in (600, 5000, 1 << 20):
            monkeypatch.setattr("counting.CHUNK", chunk)
            assert list(count([path], pattern, [END], threads=2).items()) == list(expected.items())
            halves = [count([path], pattern, [END], shard=(k, 2)) for k in range(2)]
            assert list(Counts.merged(halves).items()) == list(expected.items())


def test_files_are_counted_in_the_order_given_and_in_contiguous_shards(tmp_path, monkeypatch):
    """Which word came first decides --ties first, so it must depend neither on the kind of file nor on the shards."""
    texts = ["".join(f"{name}{n % 700} " for n in range(3000)) for name in "abcd"]
    paths = [tmp_path / name for name in ("a.jsonl", "b.txt", "c.txt.gz", "d.txt")]
    paths[0].write_text(json.dumps({"text": texts[0]}))
    paths[2].write_bytes(gzip.compress(texts[2].encode()))
    for n in (1, 3):
        paths[n].write_text(texts[n])
    expected = list(count(texts, texts=True).items())
    monkeypatch.setattr("counting.CHUNK", 5000)
    for threads in (1, 3):
        assert list(count(paths, threads=threads).items()) == expected
    shards = [count(paths, shard=(n, 5)) for n in range(5)]
    assert list(Counts.merged(shards).items()) == expected


def test_counts_save_byte_for_byte_and_refuse_damage(tmp_path):
    counts = count([ENGLISH, CHINESE], special_tokens=[END], texts=True)
    counts.save(tmp_path / "a.npz")
    counts.save(tmp_path / "b.npz")
    content = (tmp_path / "a.npz").read_bytes()
    assert content == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    again = Counts.load(tmp_path / "a.npz")
    assert (again.pattern, again.special_tokens) == ("gpt2", (END,))
    assert list(again.items()) == list(counts.items())
    for damaged in (content[:-30], content[: len(content) // 2], b"", b"PK\x03\x04nonsense"):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            Counts.load(tmp_path / "damaged.npz")
    other = count([ENGLISH], pattern="gpt4", special_tokens=[END], texts=True)
    with pytest.raises(InputError, match="pattern"):
        Counts.merged([counts, other])


def test_shards_of_different_texts_are_not_merged(tmp_path):
    for name, text in (("a", "one two"), ("b", "three four five")):
        (tmp_path / f"{name}.txt").write_text(text)
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    first = fast.count([a, b], shard=(0, 2))
    for others in ([b], [b, a]):
        second = fast.count(others, shard=(1, 2))
        with pytest.raises(InputError, match="0/2 and 1/2 are parts of different texts: count the same files"):
            fast.Counts.merged([first, second])
    second.save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as file:
        np.savez(tmp_path / "old.npz", **{name: file[name] for name in file if name != "whole"})
    assert fast.Counts.load(tmp_path / "new.npz").whole == second.whole
    fast.Counts.merged([first, fast.Counts.load(tmp_path / "old.npz")])  # of before there was such a check


def test_special_tokens_teach_nothing():
    text = END.join(["ab"] * 50) + END * 200
    vocabulary = fast.train([text], 400, special_tokens=[END], texts=True)
    assert [vocabulary.token_bytes[n] for n in vocabulary.merged_ids] == [b"ab"]
    assert vocabulary.special_tokens == {END: 0}
    assert any(b"end" in token for token in fast.train([text], 400, texts=True).token_bytes)


@pytest.mark.parametrize("ties", TIES)
def test_extending_equals_training_for_longer(ties):
    counts = count([ENGLISH + CHINESE], special_tokens=[END], texts=True)
    for first in (257, 258, 300):
        short, long = fast.merge(counts, first, ties), fast.merge(counts, 340, ties)
        extended = fast.extend(short, counts, 340, ties)
        assert [extended.token_bytes[n] for n in extended.merged_ids] == [long.token_bytes[n] for n in long.merged_ids]
        assert extended.token_bytes[: len(short)] == short.token_bytes
        assert extended.special_tokens == short.special_tokens


def test_extending_with_other_text():
    """Merges that do not occur in the new text stay; the new ones are of the text as the tokenizer splits it."""
    short = fast.train(["aaaa bbbb"], 260, texts=True)
    extended = fast.extend(short, count(["bbbbbbbb cdcdcd"], texts=True), 262)
    assert extended.token_bytes[:260] == short.token_bytes
    assert extended.token_bytes[260:] == [b"cd", b"bbbb"]
    with pytest.raises(InputError, match="pattern"):
        fast.extend(short, count(["x"], pattern="gpt4", texts=True), 262)
    with pytest.raises(InputError, match="vocab_size"):
        fast.extend(short, count(["x"], texts=True), 256)
    with pytest.raises(InputError, match="special_tokens: counted with <a>, the tokenizer has none"):
        fast.extend(short, count(["x"], special_tokens=["<a>"], texts=True), 262)


def test_too_little_text_trains_what_it_can(tmp_path):
    for content, merges in ((b"", 0), (b"a", 0), (b"aa", 1), (b"a" * 1000, 14)):
        path = tmp_path / "text.txt"
        path.write_bytes(content)
        vocabulary = fast.train([path], 1000)
        assert len(vocabulary.merges) == merges
        assert len(vocabulary) == 256 + len(vocabulary.merges)
    with pytest.raises(InputError, match="at least 258"):
        fast.train([path], 257, special_tokens=["<a>", "<b>"])
    for bad in ({"ties": "best"}, {"pattern": "("}, {"errors": "ignore"}):
        with pytest.raises(InputError, match=next(iter(bad))):
            fast.train([path], 300, **bad)
    with pytest.raises(InputError, match="shard"):
        count([path], shard=(2, 2))


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "bad.txt"
    good = ("words and 中文 " * 200_000).encode()
    path.write_bytes(good + b"\xff\xfe broken \xe4\xb8 " + good)
    for pattern in ("gpt2", "gpt4", r"\S+|\s+"):
        with pytest.raises(InputError, match=rf"bad.txt: not UTF-8 at byte {len(good):,};"):
            count([path], pattern)
    replaced = count([path], errors="replace")
    assert replaced.replaced == 3
    assert dict(replaced.items())[" \ufffd\ufffd".encode()] == 1
    assert dict(count([path], errors="bytes").items())[b" \xff\xfe"] == 1


def test_more_distinct_pieces_than_places_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text(" ".join(map(str, range(5000))))
    monkeypatch.setattr("counting.CHUNK", 5000)
    monkeypatch.setattr("counting.LONGEST", 9000)
    with pytest.raises(InputError, match="distinct pieces are more than 2 GiB"):
        count([path], threads=2)
    part = count([path.read_text()], texts=True)
    with pytest.raises(InputError, match="distinct pieces are more than 2 GiB"):
        Counts.merged([part, part])


def test_sizes_and_ties_that_no_trainer_takes_are_refused():
    for train in (BasicTokenizer().train, LinkedListTokenizer().train, partial(fast.train, texts=True)):
        with pytest.raises(InputError, match="ties: 'foo' is none of hf, ids, first, bytes"):
            train("a", 300, ties="foo")
        with pytest.raises(InputError, match="vocab_size 1048577: must be at most 1,048,576"):
            train("a", 1048577)
        with pytest.raises(InputError, match="special_tokens: <a> b <a>: one is there twice"):
            train("a", 300, special_tokens=["<a>", "b", "<a>"])


@pytest.mark.parametrize("error", [TypeError, MemoryError])
def test_errors_of_the_merging_thread_are_told_as_they_are(monkeypatch, error):
    def fails(*_):
        raise error("so it is")

    monkeypatch.setattr(fast, "merge_words", fails)
    with pytest.raises(error, match="so it is"):
        fast.train(["ab ab"], 258, texts=True)


def test_odd_characters_train_and_count_exactly():
    text = "\x00\ufeffa\r\n\u0378\ue000\U000f0000👩‍👩‍👧 שלום\u202e"
    pieces = dict(count([text * 3], texts=True).items())
    assert sum(len(piece) * times for piece, times in pieces.items()) == 3 * len(text.encode())


@pytest.mark.parametrize("unit", ["a", " ", "\n", "0", "^", "'s", "中"])
@pytest.mark.parametrize("pattern", ["gpt2", "none"])
def test_a_million_repeats_take_linear_time(unit, pattern):
    texts, seconds = ([unit * 125_000], [unit * 2_000_000]), [1e9, 1e9]  # far apart: caches alone can make 2x into 3x
    for _ in range(3):
        for i, text in enumerate(texts):  # in turn, so that a slow moment of the machine meets both
            start = time.process_time()
            vocabulary = fast.train(text, 300, pattern, texts=True)
            seconds[i] = min(seconds[i], time.process_time() - start)
            if len(vocabulary.merges) >= 10:
                assert max(map(len, vocabulary.token_bytes)) >= 512
    assert seconds[1] < 2.5**4 * seconds[0] + 0.05, seconds  # 16 times the text: 2.5 for each doubling


def test_counts_are_64_bits():
    counts = count(["ab ab"], texts=True)
    counts.counts = counts.counts * 3_000_000_000
    huge = Counts.merged([counts, counts, counts])
    assert dict(huge.items()) == {b"ab": 9_000_000_000, b" ab": 9_000_000_000}
    assert fast.merge(huge, 258).token_bytes[256:] == [b"ab", b" ab"]


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Peak memory for 64 MB of text within 25 MB of that for 8 MB of the same words."""
    script = (
        "import sys, resource; sys.path.insert(0, sys.argv[1]); import fast; fast.train([sys.argv[2]], 2000);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    rng = np.random.default_rng(0)
    words = [bytes(rng.integers(97, 123, rng.integers(2, 9)).astype(np.uint8)) for _ in range(5000)]
    text = b" ".join(words[n] for n in rng.integers(0, 5000, 1_300_000))
    peaks = []
    for copies in (1, 8):
        path = tmp_path / f"{copies}.txt"
        path.write_bytes((text + b"\n") * copies)
        done = subprocess.run(
            [sys.executable, "-c", script, str(ROOT / "bpe"), str(path)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 25, peaks


def test_hash_seed_makes_no_difference(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(ENGLISH + CHINESE, encoding="utf-8")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import fast;"
        "print(fast.train([sys.argv[2]], 400, ties='first'))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script, str(ROOT / "bpe"), str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1")
    }  # fmt: skip
    assert len(outputs) == 1


def test_progress_and_interruption():
    counts = count([ENGLISH * 20], texts=True)
    seen = []
    vocabulary = fast.merge(counts, 400, progress=seen.append)
    assert sum(seen) == len(vocabulary.merges) == 42
    done = []
    count([ENGLISH, CHINESE], texts=True, progress=done.append)
    assert done == [len(ENGLISH.encode()), len(CHINESE.encode())]


def test_threads_are_the_cores_that_the_process_may_use(monkeypatch, tmp_path):
    import command_encode
    import encoder

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    made, real = [], encoder.Tokenizer
    monkeypatch.setattr(encoder, "Tokenizer", lambda *given: made.append(given[1]) or real(*given))
    command_encode.run(command_encode.Encode(text="a", out=tmp_path / "a.npy"))
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    command_encode.run(command_encode.Encode(text="a", out=tmp_path / "a.npy"))
    assert made == [1, 5]
