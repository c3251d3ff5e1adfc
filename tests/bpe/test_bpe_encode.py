"""The encoder against tiktoken, tokenizers and the naive encoder; specials, streams, threads, decoding."""

import os
import pickle
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import counting
import encoder
import fast
import numpy as np
import pytest
import tokenizer_folder
from basic import BasicTokenizer
from counting import cores
from encoder import StreamingDecoder, Tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from split import LLAMA3, O200K, PATTERN_OF, QWEN, possible_specials
from vocabulary import InputError, SpecialTokenInText, Vocabulary

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))
END = "<|endoftext|>"
SPECIALS = [END, "<|a|>", "<|a|><|b|>", "[.*] $", "<|endoftext|>x"]
SAMPLE = "It's 北京大学 2023, they'LL say\n\n   “hello”\t\tworld ...   é¿𝟙👩‍👩‍👧 שלום \u3000 end  "
TEXT = st.one_of(st.text(max_size=80), st.text("ab '\ns1中\u3000", max_size=200))


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    import tokenizer_folder

    return Tokenizer(tokenizer_folder.load("gpt2"))


@pytest.fixture(scope="module")
def oracle(gpt2):
    import tiktoken

    ranks = {token: n for n, token in enumerate(gpt2.vocabulary.token_bytes[:50256])}
    return tiktoken.Encoding("gpt2", pat_str=PATTERN_OF["gpt2"], mergeable_ranks=ranks, special_tokens={END: 50256})


def trained(pattern: str = "gpt2", size: int = 600, ties: str = "hf") -> Tokenizer:
    text = [SAMPLE * 5, "the cat and the hat " * 9, "中文大学北京" * 9]
    return Tokenizer(fast.train(text, size, pattern, ties, SPECIALS, texts=True))


def real_texts() -> list[str]:
    names = ("tinyshakespeare.txt", "manual.txt", "sentence_en.txt", "sentence_zh.txt", "taylorswift.txt")
    if not all((SHARED / name).is_file() for name in names):
        pytest.skip(f"needs {SHARED}")
    return [(SHARED / name).read_text(encoding="utf-8") for name in names]


def test_gpt2_ids_of_real_text_are_tiktokens(gpt2, oracle):
    texts = real_texts()
    for text in texts:
        ids = gpt2.encode_array(text)
        assert ids.dtype == np.uint16
        assert ids.tolist() == gpt2.encode(text) == oracle.encode(text)
        assert gpt2.decode(ids) == text
    assert [len(gpt2.encode(text)) for text in texts[2:4]] == [185, 306]  # the homework's table


@settings(max_examples=400, deadline=None)
@given(TEXT)
def test_gpt2_ids_of_any_text_are_tiktokens(gpt2, oracle, text):
    assert gpt2.encode(text, disallowed_special=()) == oracle.encode_ordinary(text)


def test_gpt4_pattern_is_tiktokens():
    import tiktoken

    ours = trained("gpt4", ties="ids")
    v = ours.vocabulary
    ranks = {t: n for n, t in enumerate(v.token_bytes) if n not in v.special_tokens.values()}
    theirs = tiktoken.Encoding("x", pat_str=PATTERN_OF["gpt4"], mergeable_ranks=ranks, special_tokens=v.special_tokens)
    for text in [SAMPLE, SAMPLE.upper(), " \n \n  ", "x \r\n\r\n", "12345678", *real_texts()]:
        assert ours.encode(text, disallowed_special=()) == theirs.encode_ordinary(text)


def test_ids_are_those_of_tokenizers():
    import formats
    from tokenizers import Tokenizer as Theirs

    for pattern in ("gpt2", "gpt4", LLAMA3, QWEN, O200K):
        ours = trained(pattern)
        theirs = Theirs.from_str(formats.tokenizer_json(ours.vocabulary))
        for text in [SAMPLE, f"{SAMPLE}{END}{SAMPLE}", *(text[:100_000] for text in real_texts())]:
            assert ours.encode(text, allowed_special="all") == theirs.encode(text).ids


@settings(max_examples=300, deadline=None)
@given(TEXT, st.sampled_from(["gpt2", "gpt4", "none", r"\p{L}+|\d"]), st.sampled_from(["hf", "ids"]))
def test_ids_are_those_of_the_naive_encoder(text, pattern, ties):
    key = (pattern, ties)
    if key not in TRAINED:
        naive = BasicTokenizer()
        naive.vocabulary = trained(pattern, ties=ties).vocabulary
        TRAINED[key] = Tokenizer(naive.vocabulary), naive
    tokenizer, naive = TRAINED[key]
    ids = tokenizer.encode(text, allowed_special="all")
    assert ids == list(naive.encode(text))
    assert tokenizer.decode(ids) == text


TRAINED: dict = {}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"\xe5\x8c\x97", b"\xe5", b"\x97\xe5", b"\xff", b"ab", b" "]), max_size=30))
def test_ids_of_any_bytes_are_those_of_the_naive_encoder(units):
    naive = BasicTokenizer()
    naive.vocabulary = TRAINED.setdefault("any", trained()).vocabulary
    assert TRAINED["any"].encode(b"".join(units)) == list(naive.encode(b"".join(units)))


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.text(st.characters(), max_size=60)))
def test_anything_comes_back(gpt2, data):
    """Any bytes, and any str, lone surrogates included."""
    ids = gpt2.encode(data, disallowed_special=())
    if isinstance(data, bytes):
        assert gpt2.decode_bytes(ids) == data
    else:
        assert gpt2.decode(ids) == data
        assert gpt2.encode(data.encode("utf-8", "surrogatepass"), disallowed_special=()) == ids


ODD = ["", "\x00", "\ufeffbom", "a\r\nb\r", "\ud800", "\udc00\ud800x", "\ud83d\ude00", "\u0378\ue000\U000f0000"]


@pytest.mark.parametrize("text", [*ODD, "👩\u200d👩\u200d👧\u200d👦🏳️\u200d🌈", "\u202eשלום עולם"])
def test_odd_text_comes_back(gpt2, text):
    assert gpt2.decode(gpt2.encode(text)) == text
    tokenizer = trained("gpt4")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_follow_tiktokens_rules(gpt2, oracle):
    text = f"one{END} two {END}{END}"
    assert gpt2.encode(text, allowed_special="all") == oracle.encode(text, allowed_special="all")
    assert gpt2.encode(text, allowed_special={END}) == oracle.encode(text, allowed_special={END})
    assert gpt2.encode(text, disallowed_special=()) == oracle.encode_ordinary(text)
    with pytest.raises(InputError, match="endoftext"):
        gpt2.encode(text)
    with pytest.raises(InputError, match="no special token"):
        gpt2.encode(text, allowed_special={"<|nope|>"})


def test_many_special_tokens_that_do_not_occur_are_not_looked_for_one_by_one(gpt2, monkeypatch):
    many = Tokenizer(gpt2.vocabulary.with_special_tokens([f"<|{n}|>" for n in range(256)]))
    text = f"one <|7|><|> two{END} " * 3
    assert many.encode(text, allowed_special="all")[1:3] == [220, 50264]
    assert len(possible_specials(text.encode(), list(many.vocabulary.special_tokens))) == 2
    with pytest.raises(SpecialTokenInText, match=r"'<\|7\|>'"):
        many.encode(text, allowed_special={END})
    assert many.encode(text, allowed_special={END}, disallowed_special={"<|8|>"}) == gpt2.encode(text, "all")


def test_the_longest_special_token_wins():
    tokenizer = trained()
    number = tokenizer.vocabulary.special_tokens
    ids = tokenizer.encode("<|a|><|b|><|a|>[.*] $<|endoftext|>x", allowed_special="all")
    assert ids == [number["<|a|><|b|>"], number["<|a|>"], number["[.*] $"], number["<|endoftext|>x"]]
    # allowed alone: the others are refused where they stand, unless they are text
    assert tokenizer.encode("<|a|><|b|>", allowed_special={"<|a|><|b|>"}) == [number["<|a|><|b|>"]]
    ids = tokenizer.encode("<|a|><|b|>", allowed_special={"<|a|>"}, disallowed_special=())
    assert ids[0] == number["<|a|>"]
    assert tokenizer.decode(ids[1:]) == "<|b|>"
    with pytest.raises(InputError):
        tokenizer.encode("x<|a|>", allowed_special={END}, disallowed_special={"<|a|>"})


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", LLAMA3, O200K, "none", r"\p{L}+|\d+| "])
def test_streams_cut_anywhere_give_the_same_ids(pattern, monkeypatch):
    monkeypatch.setattr("counting.CHUNK", 700)
    tokenizer = trained(pattern)
    text = (SAMPLE * 3 + END + "x" * 2000 + "[.*] $" + SAMPLE + "<|a|><|b|>" + " \n\n  中　" * 40) * 4
    data = text.encode()
    expected = tokenizer.encode_array(text, allowed_special="all")
    for size in (1, 7, 64, 1000, len(data)):
        chunks = [data[k : k + size] for k in range(0, len(data), size)]
        for threads in (1, 2):
            found = list(tokenizer.encode_stream(chunks, allowed_special="all", threads=threads))
            assert np.array_equal(np.concatenate(found), expected)
    with pytest.raises(InputError, match="special token"):
        list(tokenizer.encode_stream([data[:3000], data[3000:]]))
    assert not list(tokenizer.encode_stream([]))
    lines = text.splitlines(keepends=True)
    assert np.array_equal(np.concatenate(list(tokenizer.encode_stream(lines, allowed_special="all"))), expected)


def test_threads_and_batches_give_the_same_ids(gpt2):
    text = (SAMPLE + "\n" + "word " * 20 + END) * 5000
    expected = np.tile(gpt2.encode(text[: len(text) // 5000], allowed_special="all"), 5000)
    for threads in (1, 2, 3, 5):
        assert np.array_equal(gpt2.encode_array(text, allowed_special="all", threads=threads), expected)
    text = text.replace(END, "\n")
    texts = [text[a : a + 97] for a in range(0, 20_000, 97)] + ["", "x"]
    for threads in (1, 4):
        assert [ids.tolist() for ids in gpt2.encode_batch(texts, threads=threads)] == [gpt2.encode(t) for t in texts]
    assert gpt2.encode_batch([]) == []
    results: dict[int, list] = {}
    workers = [threading.Thread(target=lambda n=n: results.update({n: gpt2.encode(texts[n] * 50)})) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(results[n] == gpt2.encode(texts[n] * 50) for n in range(8))


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", QWEN, "none"])
def test_many_short_texts_have_the_ids_of_each_alone(pattern, monkeypatch):
    """Also beside long ones, empty ones and special tokens, one of which two texts would make only together."""
    tokenizer, draw = trained(pattern), random.Random(4)
    letters = [*"ab c'sll\n\r 12中é\u3000\ud83d\ude00", "the", " and", "  ", "<|a", "|>", "'"]
    texts = ["".join(draw.choices(letters, k=draw.choice([0, 1, 2, 5, 30, 300]))) for _ in range(3000)]
    texts[7], texts[2000:2000] = bytearray(b"ab\xff\xe4"), [b"\xb8\xad", "", "x" * 70_000, "中" * 70_000]
    expected = [tokenizer.encode(text, allowed_special="all") for text in texts]
    for together in (encoder.TOGETHER, 1, 500):
        monkeypatch.setattr("encoder.TOGETHER", together)
        for threads in (1, 2):
            batch = tokenizer.encode_batch(iter(texts), allowed_special="all", threads=threads)
            assert [ids.tolist() for ids in batch] == expected
    assert {ids.dtype for ids in batch} == {tokenizer.dtype} and all(ids.base is None for ids in batch[:5])
    assert [ids.tolist() for ids in tokenizer.encode_batch(["", ""])] == [[], []]
    with pytest.raises(SpecialTokenInText):
        tokenizer.encode_batch(["fine", "not <|a|> fine"])


def test_many_short_texts_take_no_longer_than_tiktoken(gpt2, oracle):
    texts = [SAMPLE[n % 40 : n % 40 + 40] for n in range(20_000)]
    seconds = {}
    for _ in range(3):
        for name, encode in (("ours", gpt2.encode_batch), ("theirs", lambda texts: list(map(oracle.encode, texts)))):
            start = time.process_time()
            encode(texts)
            seconds[name] = min(time.process_time() - start, seconds.get(name, 1e9))
    assert seconds["ours"] < seconds["theirs"], seconds


@pytest.mark.parametrize("characters", ["ascii", "é", "中文’", "👩\u200d👧𝟙", "\ud800"])
def test_long_text_is_encoded_in_blocks(gpt2, oracle, monkeypatch, characters):
    """Python keeps a str in 1, 2 or 4 bytes a character, whatever the widest one needs."""
    text = "".join(f"It's {n}{characters * (n % 5)} and\n\n  more{END * (n % 7 == 0)}" for n in range(400)) + "x" * 2000
    data = text.encode("utf-8", "surrogatepass")
    expected = gpt2.encode(data, allowed_special="all")  # at once
    if characters != "\ud800":  # tiktoken would put U+FFFD
        assert expected == oracle.encode(text, allowed_special="all")
    monkeypatch.setattr("encoder.AT_ONCE", 50)
    monkeypatch.setattr("counting.CHUNK", 300)
    for threads in (1, 2, 5):
        for same in (text, data, bytearray(data)):
            assert gpt2.encode_array(same, allowed_special="all", threads=threads).tolist() == expected
        batch = gpt2.encode_batch(iter(["", text, "", data]), allowed_special="all", threads=threads)
        assert [ids.tolist() for ids in batch] == [[], expected, [], expected]
        with pytest.raises(InputError, match="special token"):
            gpt2.encode_array(text, threads=threads)


def test_known_pieces_run_out_of_room_gracefully(monkeypatch):
    monkeypatch.setattr("encoder.KNOWN_BITS", 4)
    monkeypatch.setattr("encoder.LONGER_BITS", 4)
    tokenizer, naive = trained(), BasicTokenizer()
    naive.vocabulary = tokenizer.vocabulary
    text = SAMPLE + " ".join(str(n) * 3 for n in range(300)) + SAMPLE
    for _ in range(2):
        assert tokenizer.encode(text) == list(naive.encode(text))


@pytest.mark.parametrize("bits", [1, 5, 18])
def test_pieces_cut_into_parts_have_the_ids_of_the_whole(gpt2, oracle, monkeypatch, bits):
    """Tokens over several characters stand beside others, in pieces of all lengths; small tables forget at once."""
    monkeypatch.setattr("encoder.KNOWN_BITS", bits)
    monkeypatch.setattr("encoder.LONGER_BITS", bits)
    tokenizer = Tokenizer(gpt2.vocabulary)
    wide = [token.decode("utf-8", "ignore") for token in gpt2.vocabulary.token_bytes if not token.isascii()]
    several = [text for text in wide if len(text) > 1]  # 龍喚士, の魔, ôt ...
    rng = random.Random(bits)
    units = [several, wide, list("的一是不了人我在"), list("аеиостр"), list("abc'1—")]
    for _ in range(3000):
        chosen = rng.choices(units, k=2)
        text = "".join(rng.choice(rng.choice(chosen)) for _ in range(rng.choice([3, 8, 16, 60])))
        assert tokenizer.encode(text) == oracle.encode_ordinary(text), text


def test_long_pieces_are_merged_as_short_ones():
    """Pieces around and beyond the length at which the heap takes over."""
    tokenizer, naive = trained("none"), BasicTokenizer()
    naive.vocabulary = tokenizer.vocabulary
    for size in (*range(120, 140), 500, 3000):
        for unit in ("a", "the cat and", "北京大学x"):
            text = (unit * size)[:size]
            assert tokenizer.encode(text) == list(naive.encode(text))


@pytest.mark.parametrize("unit", ["a", " ", "\n", "0", "^", "'s", "中", "ab"])
def test_a_million_repeats_take_linear_time(gpt2, oracle, unit):
    texts, seconds = (unit * 125_000, unit * 2_000_000), [1e9, 1e9]  # far apart: caches alone can make 2x into 3x
    for _ in range(3):
        for i, text in enumerate(texts):  # in turn, so that a slow moment of the machine meets both
            start = time.process_time()
            ids = gpt2.encode_array(text)
            seconds[i] = min(seconds[i], time.process_time() - start)
            assert gpt2.decode(ids) == text
    assert seconds[1] < 2.5**4 * seconds[0] + 0.05, seconds  # 16 times the text: 2.5 for each doubling
    assert gpt2.encode(unit * 900) == oracle.encode(unit * 900)


def test_decoding(gpt2):
    ids = gpt2.encode(SAMPLE)
    for same in (ids, tuple(ids), iter(ids), np.array(ids, np.uint16), np.array(ids), np.repeat(ids, 2)[::2]):
        assert gpt2.decode(same) == SAMPLE
    assert gpt2.decode_bytes([]) == b""
    broken = gpt2.encode("龘")[:-1]
    assert gpt2.decode(broken) == "\ufffd"
    with pytest.raises(UnicodeDecodeError):
        gpt2.decode(broken, errors="strict")
    for bad in ([50257], [0, -1], np.array([70_000]), np.array([0, 2**32], np.uint64), np.array([2**32])):
        with pytest.raises(InputError, match="ids run from 0 to 50256"):
            gpt2.decode_bytes(bad)
    for bad in ([1.5], np.array([1.5]), np.array([True]), np.array(["1"]), np.array([[1], [2]]), np.array(1)):
        with pytest.raises(InputError, match="ids: "):
            gpt2.decode_bytes(bad)
    assert gpt2.decode_bytes(np.array([15496], np.uint64)) == b"Hello"


@settings(max_examples=100, deadline=None)
@given(TEXT, st.integers(1, 4))
def test_streaming_decoder_never_emits_half_a_character(gpt2, text, step):
    decoder, ids = StreamingDecoder(gpt2), gpt2.encode(text, disallowed_special=())
    parts = [decoder.add(ids[k : k + step]) for k in range(0, len(ids), step)] + [decoder.end()]
    assert "".join(parts) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in part for part in parts)


def test_streaming_decoder_ends_with_what_is_left(gpt2):
    decoder = StreamingDecoder(gpt2)
    assert decoder.add(gpt2.encode("龘")[:-1]) == ""
    assert decoder.end() == "\ufffd"


def test_large_vocabularies_give_uint32():
    merges = [(a, b) for a in range(256) for b in range(256)]
    tokenizer = Tokenizer(Vocabulary.build(range(256), merges, pattern="none"))
    ids = tokenizer.encode_array(b"\xff\xfeab")
    assert ids.dtype == np.uint32
    assert tokenizer.decode_bytes(ids) == b"\xff\xfeab"


def test_pickles_are_small_however_much_was_encoded():
    tokenizer = trained()
    fresh = len(pickle.dumps(tokenizer))
    ids = tokenizer.encode(SAMPLE)
    pickled = pickle.dumps(tokenizer)
    assert len(pickled) == fresh and pickle.loads(pickled).encode(SAMPLE) == ids


def test_pickles_whose_buffers_come_back_read_only():
    """As Ray, and joblib with its memory maps, hand out arrays."""
    tokenizer, buffers = trained(), []
    pickled = pickle.dumps(tokenizer, protocol=5, buffer_callback=buffers.append)
    again = pickle.loads(pickled, buffers=[bytes(buffer) for buffer in buffers])
    assert again.encode(SAMPLE) == tokenizer.encode(SAMPLE) and again.decode(again.encode(SAMPLE)) == SAMPLE
    assert pickle.loads(pickle.dumps(Tokenizer(tokenizer.vocabulary, threads=2))).threads == 2


def test_works_without_a_writable_cache(tmp_path):
    """numba finds nowhere to write: compiled in memory, said so, same ids. Slow, so only the scanner is tried."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import numpy as np, compiled; "
        "f = compiled.kernel('int64(int64)')(lambda x: x + 1); print(compiled.CACHE, f(41))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": "/dev/null/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(ROOT / "bpe")], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "None 42\n", done.stderr
    assert "no writable cache" in done.stderr


def test_no_threads_are_all_cores_and_bytes_are_no_stream(gpt2):
    assert Tokenizer(gpt2.vocabulary, threads=0).threads == cores()
    with pytest.raises(InputError, match="threads: -1"):
        Tokenizer(gpt2.vocabulary, threads=-1)
    assert gpt2.encode_array("hi " * 300_000, threads=0).tolist() == gpt2.encode("hi " * 300_000)
    for call in (gpt2.encode_array, gpt2.encode_batch, gpt2.encode_stream, lambda text, threads: counting.count(
        [text], threads=threads, texts=True)):  # fmt: skip
        with pytest.raises(InputError, match="threads: -1"):
            call(["a"], threads=-1)
    for whole in (b"hello", bytearray(b"hello"), memoryview(b"hello")):
        with pytest.raises(InputError, match=r"chunks: one .* in a list"):
            gpt2.encode_stream(whole)
    assert np.concatenate(list(gpt2.encode_stream(["hello"]))).tolist() == gpt2.encode("hello")


def test_one_text_in_place_of_several_is_not_its_letters(gpt2):
    for call in (
        lambda: gpt2.encode("ab", allowed_special="ab"), lambda: gpt2.encode("ab", disallowed_special="ab"),
        lambda: gpt2.encode_batch("ab"), lambda: gpt2.encode_batch(b"ab"),
        lambda: fast.train(["ab"], 300, special_tokens="ab", texts=True),
        lambda: counting.count(["ab"], special_tokens="ab", texts=True),
        lambda: Vocabulary.build(range(256), [], "ab"), lambda: tokenizer_folder.load("gpt2", special_tokens="ab"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"^((dis)?allowed_special|texts|special_tokens): one .* list, \[b?'ab'\]"):
            call()
    for ids in (b"ab", bytearray(8), "15496"):
        with pytest.raises(InputError, match=r"^ids: one (bytes|bytearray|str).*a list or an array"):
            gpt2.decode(ids)


def test_numbers_are_no_text(gpt2):
    """To bytes() a number is that many zeros: ids, or a column of a data set, would be counted and encoded as such."""
    for call in (
        lambda: list(gpt2.encode_stream([15496, 995])), lambda: fast.train([15496, 995], 300, texts=True),
        lambda: BasicTokenizer().train(15496, 300),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"^text: 15496 is neither str nor bytes, but of type int$"):
            call()
    with pytest.raises(InputError, match=r"^text: None is neither str nor bytes, but of type NoneType$"):
        fast.train(["one", None], 300, texts=True)
    ids, = gpt2.encode_stream([b"Hel", bytearray(b"lo"), memoryview(b" world")])
    assert ids.tolist() == [15496, 995]


def test_a_special_token_in_the_text_is_named_by_the_error():
    vocabulary = Vocabulary.build(range(256), [], ["<|im:start|>"])
    with pytest.raises(SpecialTokenInText) as caught:
        Tokenizer(vocabulary).encode("a<|im:start|>")
    again = pickle.loads(pickle.dumps(caught.value))  # as from another process
    assert again.token == "<|im:start|>" and str(again) == str(caught.value)
    assert "'<|im:start|>': allow it with allowed_special" in str(again)


def test_other_kinds_of_text(gpt2):
    expected = gpt2.encode_array("naïve 北京")
    for same in (np.str_("naïve 北京"), bytearray("naïve 北京".encode()), type("Text", (str,), {})("naïve 北京")):
        assert np.array_equal(gpt2.encode_array(same), expected)
