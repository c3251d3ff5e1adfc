"""The scanners, special tokens and safe cuts against `regex` and against splitting the whole."""

import random
import time

import numpy as np
import pytest
import regex
from bit_masks import PADDING
from hypothesis import given, settings
from hypothesis import strategies as st
from pattern import GPT2_REGEX, GPT4_REGEX, check, matches_everything, portable
from scanner import AT, INVALID, SCANNERS, character_classes, gpt2_ends, new_state
from split import PATTERN_OF, Cutter, piece_ends, possible_specials, split_pieces, split_specials
from vocabulary import InputError, to_bytes

CLASSES = character_classes()
ODD = (
    "aZs dtmllverer''''  \n\r\t\v\f1234567890.,!?-\u3000\u00a0\u0085\u2028\u2003中文字。①²½éßſ'ſKK\u001c\u001f\u0300"
    "\u200d\U0001f600\U00020000\U0001d7ce٣שלום\ufeff\x00\ue000\U000e0001\u0378/AÉǅʰ\u0903"
)


def scanned(data: bytes, pattern: str, room: int = 1000, rng=random) -> list[int]:
    """Ends by the scanner, with noise after the text and room for `room` ends at a time."""
    buffer = np.frombuffer(bytearray(data + rng.randbytes(PADDING)), np.uint8)
    state, ends, block = new_state(), [], np.empty(room, np.int32)
    while state[AT] < len(data):
        ends += block[: SCANNERS[pattern](buffer, state, len(data), CLASSES, block)].tolist()
    return ends


def test_reference_pattern_is_openais():
    """GPT-2's pattern as it was published; with `\\s++$` split off it is the same language."""
    published = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    rng = random.Random(0)
    for _ in range(500):
        text = "".join(rng.choice(ODD) for _ in range(rng.randrange(40)))
        assert [p.decode() for p in split_pieces(text.encode(), "gpt2")] == published.findall(text)


def test_classes_are_those_of_regex():
    for number, name in ((1, r"\p{L}"), (2, r"\p{N}"), (3, r"\s")):
        for point in range(0, 0x110000, 17):
            assert (CLASSES[point] == number) == bool(regex.match(name, chr(point)))


@pytest.mark.parametrize("pattern", SCANNERS)
def test_scanner_on_generated_text(pattern):
    rng = random.Random(1)
    for number in range(6000):
        letters = rng.sample(ODD, rng.choice([3, 8, len(ODD)]))
        data = "".join(rng.choice(letters) for _ in range(rng.randrange(rng.choice([4, 70, 200])))).encode()
        if number % 4 == 0:  # bytes that are not UTF-8
            data = bytearray(data)
            for _ in range(rng.randrange(1, 6)):
                data.insert(rng.randrange(len(data) + 1), rng.randrange(128, 256))
            data = bytes(data)
        assert scanned(data, pattern, rng.choice([70, 130, 1000]), rng) == piece_ends(data, pattern), data


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=90).map(lambda t: t.encode("utf-8", "surrogatepass")), st.binary(max_size=90)))
def test_scanner_on_any_text_and_bytes(data):
    for pattern in SCANNERS:
        assert scanned(data, pattern) == piece_ends(data, pattern)


@pytest.mark.parametrize("pattern", [p for p in SCANNERS if p not in PATTERN_OF])
def test_expressions_that_have_a_scanner_are_split_as_tokenizers_does(pattern):
    """Users give them as they find them: Llama 3's, Qwen's, minbpe's, nanochat's, GPT-4o's."""
    import tokenizers

    assert portable(pattern) == pattern
    theirs, rng = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"), random.Random(3)
    for _ in range(1500):
        text = "".join(rng.choice(ODD) * rng.choice([1, 1, 1, 3]) for _ in range(rng.randrange(25)))
        ends = np.cumsum([len(piece.encode()) for piece, _ in theirs.pre_tokenize_str(text)]).tolist()
        assert scanned(text.encode(), pattern) == ends, text


@pytest.mark.parametrize("pattern", SCANNERS)
@pytest.mark.parametrize("unit", ["a", " ", "\n", "0", "^", "'s", "中", "\u3000", "a \n", "'ll'"])
def test_scanner_across_many_blocks(pattern, unit):
    for repeats in (1, 21, 63, 64, 65, 129, 1000):
        for lead in ("", "x", " ", "中"):
            data = (lead + unit * repeats).encode()
            assert scanned(data, pattern) == piece_ends(data, pattern)


def test_scanner_finds_the_first_bad_byte():
    for good in (b"", b"abc " * 40, "中文 ".encode() * 30):
        for bad in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", b"\xe4\xb8"):
            data = good + bad + b" end"
            buffer, state = np.frombuffer(bytearray(data + bytes(PADDING)), np.uint8), new_state()
            gpt2_ends(buffer, state, len(data), CLASSES, np.empty(4000, np.int32))
            with pytest.raises(UnicodeDecodeError) as error:
                data.decode()
            assert state[INVALID] == error.value.start == len(good)


def test_longest_special_token_first_and_leftmost_always():
    tokens = ["<|a|>", "<|a|><|b|>", " end.*", "[x]"]
    data = b"1<|a|><|b|>2<|a|>3 end.*[x][x]"
    parts = split_specials(data, tokens)
    assert [text for _, _, text in parts] == [None, "<|a|><|b|>", None, "<|a|>", None, " end.*", "[x]", "[x]"]
    assert b"".join(data[a:b] for a, b, _ in parts) == data
    assert split_specials(b"aab", ["aa", "ab"]) == [(0, 2, "aa"), (2, 3, None)]
    assert split_specials(b"", ["x"]) == []


@settings(max_examples=300, deadline=None)
@given(st.text("ab<|>", max_size=40))
def test_special_tokens_are_found_as_regex_finds_them(text):
    few = ["<|a|>", "<|a|>b", "|>", "ab"]
    for tokens in (few, [*few, "aa", "<<", "bb", "a<", "a<a", "|a", *(f"<|{n}|>" for n in range(256))]):
        expected = regex.findall("|".join(map(regex.escape, sorted(tokens, key=len, reverse=True))), text)
        assert [special for _, _, special in split_specials(text.encode(), tokens) if special] == expected
        occur = {token for token in tokens if token in text}
        assert occur <= possible_specials(text.encode(), tokens)


@settings(max_examples=400, deadline=None)
@given(st.text("abA. \n\r/中\u3000。1's<|", max_size=60), st.sampled_from(["none", r"\w+|\s+", *SCANNERS]))
def test_every_safe_cut_splits_as_the_whole_does(text, pattern):
    data = (text + "<|x y|>" + text).encode()
    specials = ["<|x y|>", "b<|"]

    def pieces(part: bytes) -> list[bytes]:
        result = []
        for start, end, special in split_specials(part, specials):
            result += split_pieces(part[start:end], pattern) if special is None else [special.encode()]
        return result

    whole, cutter = pieces(data), Cutter(pattern, specials)
    for p in cutter.cuts(data, 0, len(data) - 1):
        assert pieces(data[:p]) + pieces(data[p:]) == whole
    for same in (data, data.decode()):
        spans = list(cutter.spans(same, 5))
        assert [piece for a, b in spans for piece in pieces(to_bytes(same[a:b]))] == whole
        assert all(b - a >= 5 for a, b in spans[:-1])


def test_text_the_pattern_skips_is_kept():
    assert split_pieces(b"ab12cd3", r"\d+") == [b"ab", b"12", b"cd", b"3"]
    assert split_pieces("é1\xff".encode(), r"x*") == ["é1\xff".encode()]


def test_patterns_that_are_none():
    for pattern in ("(", "", "[a", "GPT4", "cl100k_base", "gpt-2"):  # a name would be searched for in the text
        with pytest.raises(InputError, match="pattern"):
            split_pieces(b"text", pattern)


def test_catastrophic_backtracking_times_out(monkeypatch):
    monkeypatch.setattr("split.SECONDS_AT_LEAST", 0.3)
    start = time.perf_counter()
    with pytest.raises(InputError, match="did not finish"):
        split_pieces(b"a" * 40 + b"!", r"(?:a|aa|a?a)+$|(a+)+b(a+)+b")
    assert time.perf_counter() - start < 5
    assert PATTERN_OF


def test_known_expressions_get_their_names():
    cl100k = r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    cl100k += r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    r50k = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    assert [portable(p) for p in (cl100k, r50k, PATTERN_OF["gpt2"], "none", None)] == [
        "gpt4", "gpt2", "gpt2", "none", None
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", [
    r"\p{N}{1,3}+| ?[^\s\p{N}]++|\s", r"[{1,3}+]{2}+|\d{,2}+\d|.", r"\x41{2,}+|\{3}+|.",
    r"[^]a]{1,2}+|[[:alpha:]]{3}+|.",
])  # fmt: skip
def test_rewritten_expressions_split_alike_here_and_in_tokenizers(pattern):
    import tokenizers

    text = "12345 AAA {{{333}} ]]+{1,3}+ abcabc aa 中文12"
    rewritten = portable(pattern)
    assert rewritten != pattern
    theirs = tokenizers.pre_tokenizers.Split(tokenizers.Regex(rewritten), "isolated").pre_tokenize_str(text)
    pieces = split_pieces(text.encode(), pattern)
    assert split_pieces(text.encode(), rewritten) == pieces == [piece.encode() for piece, _ in theirs]


@pytest.mark.parametrize("pattern, message", [
    (r"(?:ab){1,3}+", r"as \(\?>\(\.\.\.\)\{1,3\}\)"), (r"(?V1)a", r"\(\?V1 .* write it without"), ("", "neither"),
    ("(a", "not a regular"), (r"a|\w+", r"\\w means .* write \[\\p\{L\}"), (r"[\p{N}\W]", r"\\W means"),
    (r"\bx", r"\\b means"), (r"\h", r"\\h means"), (r"\X", r"\\X means"), (r"x\Z", r"\\Z means"),
    ("x*", "may match nothing"), (r"a|\d?", "may match nothing"),
    (r"\pL", r"\\p means"), (r"^a", r"\^ means .* write \\A"), (r"a$|b", r"\$ means"), (r"[a-z&&b]", "&& means"),
    (r"[a[b]]", r"\[ means"), (r"(?s:.)", r"\(\?s means"), (r"(?im)a", r"\(\?im means"), (r"\p{L&}", "L&. means"),
    (r"\p{script=Greek}", "Greek. means"), (r"[[:^digit:]]", "digit:. means"), (r"a{2}?", r"\{2\}\? means"),
    ("(?:abc){e<=1}", r"\{e<=1\} means"),
    ("a{2i+1d<=3}b", r"\{2i\+1d<=3\} means"), ("ab{s}", r"\{s\} means"),
    (r"(?P<w>\p{L}+)|.", r"\(\?P means .* write \(\?:"), ("(?|a|b)|.", r"\(\?\| means"),
    (r"[a-z\xe0-\xff]|.", r"xe0 means"), (r"\xff|.", r"xff means .* the character itself"),
    (r"\p{IsGreek}|.", "IsGreek. means"), (r"(a)\g<1>|.", r"\\g means"),
    ("(?i:[a-z])|.", r"\[a-z\] within \(\?i"), ("(?i:gross)|.", "s within"), ("(?i)s+|.", r"\+ within"),
    ("(?i:f[fx])|.", "within"), (r"(?i:\p{Lu})|.", "within"), ("(?i:ẞ)|.", "within"), ("(?i:a(?:b|Fi))|.", "i within"),
])  # fmt: skip
def test_expressions_that_cannot_be_carried_over_are_refused(pattern, message):
    with pytest.raises(InputError, match=message):
        portable(pattern)


@pytest.mark.parametrize("pattern, sure", [
    (GPT2_REGEX, True), (GPT4_REGEX, True), (r"[\s\S]", True), (r"\p{L}|\P{L}", True), (r"\(?=?|[^(=]", True),
    (r"\p{L}+", False), (r"\S|\s(?!\S)", False), (r"\A.|\n", False), (r"(?:xy)?+[\s\S]", False),
    (r"(?>(?:xy)?)[\s\S]", False), (r"\S|(?<=a)\s|\n", False),
])  # fmt: skip
def test_patterns_that_surely_match_everything(pattern, sure):
    assert matches_everything(pattern) == sure


LETTERS = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"


@pytest.mark.parametrize("pattern", [
    r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    LETTERS + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|\s+""",
    r"\$\^\\w|[^$^]|[&^]|{x}", r"(?<x>a)(?<!b)(?>c)(?-i:d)", GPT2_REGEX, GPT4_REGEX,
    r"(?i:ab(?-i:ss)c)|\p{Inherited}|\x41|.",
], ids=["llama 3", "o200k", "deepseek", "escaped", "groups", "gpt2", "gpt4", "case"])  # fmt: skip
def test_expressions_that_both_engines_read_alike_are_taken(pattern):
    check(pattern)
