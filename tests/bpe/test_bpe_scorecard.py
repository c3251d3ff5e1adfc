"""The reliability scorecard's cases for bpe/, numbered as there, each with more than one input.

Through the command line where a user meets them there.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import fast
import formats
import numpy as np
import pytest
import tiktoken
import tokenizer_folder
import tokenizers
from encoder import StreamingDecoder, Tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from pattern import GPT2_REGEX
from test_bpe_run import END, ROOT, SAMPLE, error, run
from vocabulary import InputError, Vocabulary

TEXT = SAMPLE.read_text(encoding="utf-8")
AWKWARD = {
    "NUL": "a\x00b\x00\x00",
    "BOM": "\ufeffBOM \ufeff inside",
    "CRLF": "one\r\ntwo\r\n\r\n\rthree\n\r",
    "lone surrogates": "x\ud800y\udfffz",
    "unassigned and private": "\u0378\ue000\U0010ffff\ufffe",
    "emoji sequences": "👩‍👩‍👧‍👦🏳️‍🌈👍🏽 🇨🇳",
    "right to left": "שלום \u202eabc\u202c مرحبا 123",
    "combining": "e\u0301 q\u0323\u0307 ̈ \u200d",
    "spaces": " \u00a0\u2003\u3000 \x1c\x1d\x85 \t\v\f ",
    "replacement": "\ufffd\ufffd",
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(fast.train([TEXT], 600, special_tokens=[END], texts=True))


def text_file(folder: Path, data: bytes) -> Path:
    path = folder / "input.txt"
    path.write_bytes(data)
    return path


# 1, 2, 3: small texts, small vocabularies


def test_1_empty_corpus_is_refused(tmp_path):
    path = text_file(tmp_path, b"")
    assert "no text to learn from" in error("train", path, "--out", tmp_path / "t")
    assert "no text to learn from" in error("train", path, path, "--out", tmp_path / "t", "--pattern", "none")
    assert os.listdir(tmp_path) == ["input.txt"]


@pytest.mark.parametrize("data, size", [(b"a", 256), (b"ab", 257), (b"aaaaaaaa", 259), ("中".encode(), 258)])
def test_1_and_3_what_can_be_trained_is_and_the_size_reached_is_said(tmp_path, data, size):
    out = run("train", text_file(tmp_path, data), "--out", tmp_path / "t", "--pattern", "none").stdout.decode()
    assert f"note: no pair is left to merge; the vocabulary has {size} tokens, not 4,096" in out
    assert len(tokenizer_folder.load(tmp_path / "t")) == size
    ids = run("encode", tmp_path / "input.txt", "--tokenizer", tmp_path / "t").stdout.split()
    assert ids == [b"64" if data == b"a" else str(size - 1).encode()]


@pytest.mark.parametrize(
    "size, specials, least", [(255, (), 256), (256, (END,), 257), (0, ("<a b>", "<c>"), 258), (-1, (), 256)]
)
def test_2_vocabulary_below_the_minimum(tmp_path, size, specials, least):
    flags = ("--vocab_size", size, "--out", tmp_path / "t", *(("--special_tokens", *specials) if specials else ()))
    assert f"need {least}; give {least} or more" in error("train", SAMPLE, *flags)
    assert not (tmp_path / "t").exists()
    run("train", SAMPLE, "--vocab_size", least, *flags[2:])
    assert len(tokenizer_folder.load(tmp_path / "t")) == least


# 4, 5, 6: any text, any bytes


@pytest.mark.parametrize("data, offset", [(b"good \xc3( bad", 5), ("中文".encode()[:-1], 3)])
def test_4_bad_utf8_names_file_and_offset_or_is_replaced_and_counted(tmp_path, data, offset):
    path = text_file(tmp_path, data)
    message = error("train", path, "--out", tmp_path / "t")
    assert str(path) in message and f"byte {offset}" in message and "--errors replace" in message
    message = error("encode", path)
    assert str(path) in message and f"byte {offset}" in message
    assert not (tmp_path / "t").exists()
    out = run("train", path, "--errors", "replace", "--out", tmp_path / "t").stdout.decode()
    assert "replaced 1 sequence that" in out
    done = run("encode", path, "--errors", "replace")
    assert b"replaced 1 sequence" in done.stderr
    assert run("decode", stdin=done.stdout).stdout == data.decode("utf-8", "replace").encode()


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "none", r"\w+|\W"])
@pytest.mark.parametrize("name", AWKWARD)
def test_5_awkward_text_round_trips(name, pattern):
    text = AWKWARD[name]
    vocabulary = fast.train([text * 3, TEXT[:500]], 300, pattern=pattern, texts=True, errors="bytes")
    ours = Tokenizer(vocabulary)
    ids = ours.encode(text)
    assert ours.decode(ids) == text
    assert ours.decode_bytes(ids) == text.encode("utf-8", "surrogatepass")
    if "\ud800" not in text:
        decoder = StreamingDecoder(ours)
        assert "".join(decoder.add([n]) for n in ids) + decoder.end() == text


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_6_any_bytes_round_trip(tokenizer, data):
    assert tokenizer.decode_bytes(tokenizer.encode(data, disallowed_special=())) == data


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=200)
def test_6_any_text_round_trips_and_equals_hugging_face(tokenizer, text):
    ids = tokenizer.encode(text, disallowed_special=())
    assert tokenizer.decode(ids) == text
    theirs = tokenizers.Tokenizer.from_str(formats.tokenizer_json(tokenizer.vocabulary))
    if END not in text:
        assert theirs.encode(text).ids == ids


# 7: a million times the same


@pytest.mark.parametrize("unit", ["a", " ", "\n", "0", "^", "'s", "中", "word "])
def test_7_a_million_repetitions_round_trip_in_linear_time(tokenizer, unit):
    text = (unit * 1_000_000).encode()
    ids = tokenizer.encode_array(text)
    assert tokenizer.decode_bytes(ids) == text
    sixteenth = text[: len(text) // 16]
    for work in (tokenizer.encode_array, lambda t: fast.train([t], 300, pattern="none", texts=True)):
        part, whole = 1e9, 1e9
        for _ in range(3):  # in turn, so that a slow moment of the machine meets both
            start = time.process_time()
            work(sixteenth)
            middle = time.process_time()
            work(text)
            part, whole = min(part, middle - start), min(whole, time.process_time() - middle)
        assert whole < 2.5**4 * part + 0.1, (whole, part)  # 16 times the text: 2.5 for each doubling


# 8: special tokens


SPECIALS = ["<|endoftext|>", "<|endoftext|><|endoftext|>", "<|end", "[.*+?^$(){}]", "<a b>", "中文", "\\d"]


@pytest.mark.parametrize("pattern", ["gpt2", "none", r"\S+|\s+"])
def test_8_special_tokens_survive_files_and_are_found_longest_first(tmp_path, pattern):
    trained = fast.train([TEXT], 300, pattern=pattern, special_tokens=SPECIALS, texts=True)
    tokenizer_folder.save(trained, tmp_path / "t")
    ours = Tokenizer(tokenizer_folder.load(tmp_path / "t"))
    assert ours.vocabulary == trained
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "t/tokenizer.json"))
    reference = tiktoken.Encoding(
        "t", pat_str=r"(?s:.+)" if pattern == "none" else GPT2_REGEX if pattern == "gpt2" else pattern,
        mergeable_ranks={t: n for n, t in enumerate(trained.token_bytes) if n >= len(SPECIALS)},
        special_tokens=trained.special_tokens,
    )  # fmt: skip
    for text in ("".join(SPECIALS), " x ".join(SPECIALS) + " y", "<|endoftext|><|endoftext|><|endoftext|> <a  b> \\d5"):
        ids = ours.encode(text, allowed_special="all")
        assert ids == theirs.encode(text).ids
        assert ours.decode(ids) == text
        with pytest.raises(InputError, match="special token"):
            ours.encode(text)
        with pytest.raises(ValueError, match="special token"):
            reference.encode(text)
        assert ours.encode(text, disallowed_special=()) == reference.encode(text, disallowed_special=())
        some = {"<a b>", "中文"}
        assert ours.encode(text, some, ()) == reference.encode(text, allowed_special=some, disallowed_special=())


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "none"])
def test_8_the_letters_of_end_of_text_are_never_learned(tmp_path, pattern):
    path = text_file(tmp_path, f"a story\n{END}\n".encode() * 200)
    for specials in ((), ("--special_tokens", END)):
        run("train", path, "--pattern", pattern, *specials, "--out", tmp_path / "t")
        ordinary = tokenizer_folder.load(tmp_path / "t")
        tokens = [t for n, t in enumerate(ordinary.token_bytes) if n not in ordinary.special_tokens.values()]
        assert not [token for token in tokens if (b"|" in token and len(token) > 1) or b"end" in token]


# 9, 10: files


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "none", r"\p{Lu}?\p{Ll}+|[^\p{L}]"])
@pytest.mark.parametrize("ties", ["hf", "ids", "first", "bytes"])
def test_9_saved_and_loaded_gives_the_same_ids_and_the_same_files(tmp_path, pattern, ties):
    vocabulary = fast.train([TEXT], 500, pattern=pattern, ties=ties, special_tokens=["<|a b|>", END], texts=True)
    ours = Tokenizer(vocabulary)
    tokenizer_folder.save(vocabulary, tmp_path / "t")
    files = {p.name: p.read_bytes() for p in (tmp_path / "t").iterdir()}
    for source in ("t", "t/tokenizer.json", "t/vocab.json", "t/merges.txt"):
        loaded = tokenizer_folder.load(tmp_path / source, pattern)
        assert loaded == vocabulary, source
        tokenizer_folder.save(loaded, tmp_path / "again/t")
        assert {p.name: p.read_bytes() for p in (tmp_path / "again/t").iterdir()} == files
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "t/tokenizer.json"))
    for text in (TEXT, *AWKWARD.values()):
        if "\ud800" not in text:
            ids = ours.encode(text)
            assert ids == theirs.encode(text).ids
            assert theirs.decode(ids, skip_special_tokens=False) == text


def test_9_a_rank_file_gives_the_ids_of_tiktoken():
    """Also where a token can be made of two others in several ways, which a list of merges leaves open."""
    gpt2 = tokenizer_folder.load("gpt2")
    ranks = {token: n for n, token in enumerate(gpt2.token_bytes[:-1])}
    ours = Tokenizer(formats.parse_rank_file(formats.rank_file(gpt2), "gpt2", [END]))
    theirs = tiktoken.Encoding("gpt2", pat_str=GPT2_REGEX, mergeable_ranks=ranks, special_tokens={})
    rng = np.random.default_rng(0)
    tokens = [t for t in gpt2.token_bytes[:-1] if t.isascii()]
    for _ in range(3000):
        text = b"".join(tokens[n] for n in rng.integers(0, len(tokens), 4)).decode()
        assert ours.encode(text) == theirs.encode_ordinary(text), text
    assert ours.encode(TEXT) == theirs.encode_ordinary(TEXT)


@pytest.mark.parametrize(
    "field, change",
    [
        ("model.merges[3]", lambda d: d["model"]["merges"].__setitem__(3, ["x", "nothing"])),
        ("model.vocab", lambda d: d["model"]["vocab"].pop("!")),
        ("model.vocab", lambda d: d["model"]["vocab"].__setitem__("!", 5)),
        ("added_tokens[0].id", lambda d: d["added_tokens"][0].__setitem__("id", "0")),
        ("pre_tokenizer", lambda d: d["pre_tokenizer"].__setitem__("type", "Bert")),
    ],
)
def test_10_damaged_tokenizers_are_refused_in_one_line_by_every_command(tmp_path, tokenizer, field, change):
    document = json.loads(formats.tokenizer_json(tokenizer.vocabulary))
    change(document)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document))
    commands = (
        ("encode", "--text", "a", "--tokenizer", path),
        ("decode", "1", "--tokenizer", tmp_path),
        ("show", "--tokenizer", path),
        ("train", SAMPLE, "--extend", path, "--out", tmp_path / "t"),
    )
    for command in commands:
        message = error(*command)
        assert str(path) in message and field in message


def test_10_cut_files_are_refused(tmp_path, tokenizer):
    names = tokenizer_folder.save(tokenizer.vocabulary, tmp_path / "t")
    for name in names:
        if name in ("tokenizer_config.json", "t.vocab"):
            continue
        data = (tmp_path / "t" / name).read_bytes()
        for part in (0.3, 0.9):
            (tmp_path / "t" / name).write_bytes(data[: int(len(data) * part)])
            with pytest.raises(InputError, match=name.split(".")[0]):
                tokenizer_folder.load(tmp_path / "t" / name, "gpt2", [END])
        (tmp_path / "t" / name).write_bytes(data)


# 11: a pattern that never ends


@pytest.mark.parametrize("pattern", [r"(?:a|aa)+(?![\s\S])"])
def test_11_catastrophic_patterns_time_out(tmp_path, pattern):
    path = text_file(tmp_path, b"a" * 40 + b"!")
    start = time.perf_counter()
    assert "backtracks" in error("train", path, "--pattern", pattern, "--out", tmp_path / "t")
    assert time.perf_counter() - start < 30
    assert not (tmp_path / "t").exists()


# 12: see test_bpe_run.test_same_input_same_files_whatever_hash_seed_threads_and_kind_of_file


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "none"])
def test_12_any_chunks_and_threads_give_the_same_ids(tokenizer, pattern):
    ours = Tokenizer(fast.train([TEXT], 500, pattern=pattern, special_tokens=[END], texts=True))
    text = (TEXT + END) * 30
    expected = ours.encode_array(text, "all").tolist()
    data = text.encode()
    assert ours.encode_array(text, "all", threads=3).tolist() == expected
    for size in (1, 7, 4096, len(data)):
        data_part = data if size > 1 else data[:5000]
        chunks = [data_part[n : n + size] for n in range(0, len(data_part), size)]
        ids = np.concatenate(list(ours.encode_stream(chunks, "all", threads=2))).tolist()
        assert ids == (expected if size > 1 else ours.encode_array(data_part, "all").tolist())


# 13: see test_bpe_formats (kill -9), test_bpe_shards (kill -9), test_bpe_run (Ctrl-C, SIGTERM)


def test_13_killed_commands_leave_the_old_tokenizer(tmp_path):
    run("train", SAMPLE, "--vocab_size", 400, "--out", tmp_path / "t")
    before = {p.name: p.read_bytes() for p in (tmp_path / "t").iterdir()}
    (tmp_path / "other.txt").write_text(TEXT * 20)
    wanted, beside, struck = None, tmp_path / ".t.tmp", 0

    def made() -> int | None:
        try:
            return beside.stat().st_ctime_ns
        except FileNotFoundError:  # not yet, or no more
            return None

    for n in range(6):
        command = [sys.executable, ROOT / "bpe/run.py", "train", tmp_path / "other.txt", "--out", tmp_path / "t"]
        left = made()  # by the one killed before
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while made() in (left, None) and process.poll() is None:
            time.sleep(0.0005)
        time.sleep(0.001 * n)
        process.kill()
        process.wait()
        struck += beside.exists()
        now = {p.name: p.read_bytes() for p in (tmp_path / "t").iterdir()}
        if now != before:  # it was quick enough: then the new one is whole
            wanted = wanted or now
            assert now == wanted and len(tokenizer_folder.load(tmp_path / "t")) > 400
        assert set(now) == set(before)
    assert struck


# 14: memory


@pytest.mark.parametrize("kind", ["train", "encode"])
def test_14_memory_is_bounded_by_the_distinct_words(tmp_path, kind):
    limits = []
    for copies in (500, 5000):  # 5 MB, 54 MB
        path = tmp_path / f"{copies}.txt"
        with open(path, "w", encoding="utf-8") as file:
            for _ in range(copies):
                file.write(TEXT + "\n")
        command = {"train": ("train", path, "--vocab_size", 500, "--out", tmp_path / "t"),
                   "encode": ("encode", path, "--out", tmp_path / "x.npy")}[kind]  # fmt: skip
        code = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        arguments = [sys.executable, "-c", code, sys.executable, ROOT / "bpe/run.py", *map(str, command)]
        limits.append(int(subprocess.run(arguments, capture_output=True, check=True).stdout) / 1024)
        path.unlink()
    assert limits[1] < limits[0] + 15, limits  # MB


def test_vocabulary_without_merges_works_everywhere(tmp_path):
    bare = Vocabulary.build(range(256), [], [END])
    tokenizer_folder.save(bare, tmp_path / "bytes")
    assert run("encode", "--text", "é", "--tokenizer", tmp_path / "bytes").stdout.split() == [b"196", b"170"]
