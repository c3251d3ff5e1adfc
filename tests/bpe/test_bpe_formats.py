"""Tokenizer files against the tools that own the formats: `tokenizers`, `transformers`, `tiktoken`."""

import base64
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import fast
import formats
import pytest
import tiktoken
import tokenizer_folder
import tokenizers
from encoder import SpecialTokenInText, Tokenizer
from pattern import GPT2_REGEX, GPT4_REGEX
from pattern import check as check_pattern
from tokenizers import decoders, models, pre_tokenizers, trainers
from vocabulary import InputError, Vocabulary

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "bpe/sample/text.txt").read_text(encoding="utf-8")
PROBES = [
    TEXT[:3000],
    TEXT[-3000:],
    "  two  spaces\t\ttabs\r\n\r\nCRLF don't WE'LL I'd 1234567 3.14 naïve Ⅷ ½ ſ İ 🙂👩‍👩‍👧 עברית ",
    "\u00a0\u2028\ufeff\x00\x1c\x85 \ue000\u0378 \u202eabc\u3000\u3000x",
    "def f(x):\n        return x  # 中文 注释\n",
    "aaaaaaa aaaa aaaaaaaaaaaa",
    "",
]
REGEX = r"\p{Han}|\p{N}{1,2}|[^\p{Han}\p{N}]+"


def hugging_face(pattern: str = "gpt2", specials=("<|endoftext|>",), size: int = 700) -> tokenizers.Tokenizer:
    """A tokenizer trained by `tokenizers` itself."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == "gpt2")
    regex = {"gpt2": None, "none": None, "gpt4": GPT4_REGEX}.get(pattern, pattern)
    split = regex and pre_tokenizers.Split(tokenizers.Regex(regex), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level]) if split else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT.splitlines(keepends=True), trainer)
    return tokenizer


@pytest.fixture(scope="module")
def small() -> Vocabulary:
    return formats.parse_tokenizer_json(hugging_face().to_str())


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "none", REGEX])
def test_tokenizer_json_is_byte_for_byte_what_hugging_face_saves(pattern):
    theirs = hugging_face(pattern, ["<|endoftext|>", "<|a b|>", "[.*+?]"])
    vocabulary = formats.parse_tokenizer_json(theirs.to_str())
    assert vocabulary.pattern == pattern
    assert vocabulary.special_tokens == {"<|endoftext|>": 0, "<|a b|>": 1, "[.*+?]": 2}
    assert formats.tokenizer_json(vocabulary) == theirs.to_str(pretty=True)


def test_files_read_back_equal_and_saved_again_byte_for_byte(small, tmp_path):
    names = tokenizer_folder.save(small, tmp_path / "one")
    again = tokenizer_folder.load(tmp_path / "one")
    assert again == small
    assert tokenizer_folder.load(tmp_path / "one/vocab.json") == small
    assert tokenizer_folder.load(tmp_path / "one/merges.txt") == small
    (tmp_path / "other").mkdir()
    tokenizer_folder.save(again, tmp_path / "other/one")
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other/one" / name).read_bytes(), name


def test_vocab_and_merges_are_what_hugging_face_saves(small, tmp_path):
    hugging_face().model.save(str(tmp_path))
    assert formats.vocab_json(small) == (tmp_path / "vocab.json").read_text(encoding="utf-8")
    assert formats.merges_txt(small) == (tmp_path / "merges.txt").read_text(encoding="utf-8")


def test_auto_tokenizer_gives_the_ids_of_tokenizers(small, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer_folder.save(small, tmp_path / "one")
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path / "one")
    theirs = hugging_face()
    assert auto.eos_token == "<|endoftext|>" and auto.eos_token_id == 0
    for text in PROBES:
        ids = theirs.encode(text).ids
        assert auto.encode(text) == ids
        assert auto.decode(ids) == text


def test_gpt2_by_name_equals_openai_s_files():
    gpt2 = tokenizer_folder.load("gpt2")
    assert len(gpt2) == 50257 and len(gpt2.merges) == 50000
    assert gpt2.special_tokens == {"<|endoftext|>": 50256} and gpt2.pattern == "gpt2"
    assert gpt2.token_bytes[15496] == b"Hello" and gpt2.token_bytes[995] == b" world"
    data = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared/data"))
    if not data.is_dir():
        pytest.skip("SHARED_DATA is absent: no second copy of GPT-2's files to compare with")
    assert formats.merges_txt(gpt2) == (data / "gpt2_merges.txt").read_text(encoding="utf-8")
    assert json.loads(formats.vocab_json(gpt2)) == json.loads((data / "gpt2_vocab.json").read_text())


def test_rank_file_is_read_by_tiktoken(small, tmp_path):
    path = tmp_path / "ranks.tiktoken"
    path.write_text(formats.rank_file(small))
    ranks = {}
    for line in path.read_text().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    encoding = tiktoken.Encoding("ours", pat_str=GPT2_REGEX, mergeable_ranks=ranks, special_tokens={})
    theirs = hugging_face()
    for text in PROBES:
        assert encoding.encode_ordinary(text) == theirs.encode(text).ids
    loaded = tokenizer_folder.load(path, "gpt2", ["<|endoftext|>"])
    assert loaded.token_bytes == small.token_bytes and loaded.special_tokens == small.special_tokens
    assert set(small.merges) <= set(loaded.merges)


def test_a_rank_file_may_end_in_blank_lines_and_folders_be_strings(small, tmp_path):
    path = tmp_path / "ranks.tiktoken"
    path.write_text(formats.rank_file(small) + "\n \r\n")
    loaded = tokenizer_folder.load(str(path), "gpt2", ["<|endoftext|>"])
    assert "ranks.tiktoken" in tokenizer_folder.save(loaded, str(tmp_path / "t"))
    assert tokenizer_folder.load(str(tmp_path / "t")) == loaded


def test_rank_file_without_split_or_specials_says_what_is_missing(small, tmp_path):
    path = tmp_path / "ranks.tiktoken"
    path.write_text(formats.rank_file(small))
    with pytest.raises(InputError, match="--pattern"):
        tokenizer_folder.load(path)
    with pytest.raises(InputError, match="--special_tokens"):
        tokenizer_folder.load(path, "gpt2")


def test_a_rank_file_with_a_token_that_no_merges_reach_is_refused(tmp_path):
    """Of abab, ba joins first: only a tool that takes tokens whole, as tiktoken does, gives 258."""
    tokens = [*(bytes([n]) for n in range(256)), b"ba", b"ab", b"abab"]
    path = tmp_path / "r.tiktoken"
    path.write_text("".join(f"{base64.b64encode(token).decode()} {n}\n" for n, token in enumerate(tokens)))
    with pytest.raises(InputError, match=r"r\.tiktoken: token 258, b'abab': no merges lead to it"):
        tokenizer_folder.load(path, "none")


def test_merges_as_strings_and_the_splits_of_other_tools(small):
    document = json.loads(formats.tokenizer_json(small))
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    document["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": GPT4_REGEX}, "behavior": "Removed", "invert": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    vocabulary = formats.parse_tokenizer_json(json.dumps(document))
    assert vocabulary.merges == small.merges and vocabulary.pattern == "gpt4"


@pytest.mark.parametrize("regex, message", [(r"\w+|\W", r"\\w means"), (r"a{1,3}+|.", r"\{1,3\}\+ means")])
def test_splits_of_other_tools_that_mean_something_else_here_are_refused(small, tmp_path, regex, message):
    path = tmp_path / "tokenizer.json"
    path.write_text(formats.tokenizer_json(dataclasses.replace(small, pattern=regex)), encoding="utf-8")
    with pytest.raises(InputError, match=rf"tokenizer\.json: pattern: .*{message}"):
        tokenizer_folder.load(path)


def test_what_is_saved_can_be_loaded(small, tmp_path):
    with pytest.raises(InputError, match=r"\\w means something else.*write \[\\p\{L\}"):
        tokenizer_folder.save(dataclasses.replace(small, pattern=r"\w+|\W"), tmp_path / "t")
    assert not list(tmp_path.iterdir())
    trained = fast.train([TEXT], 300, pattern=r"\p{N}{1,3}+|[^\p{N}]+", texts=True)
    tokenizer_folder.save(trained, tmp_path / "t")
    loaded = tokenizer_folder.load(tmp_path / "t")
    assert loaded == dataclasses.replace(trained, pattern=r"(?>\p{N}{1,3})|[^\p{N}]+")
    assert Tokenizer(loaded).encode("In 12345678 years") == Tokenizer(trained).encode("In 12345678 years")


def test_an_inverted_split_is_refused_as_such(small):
    text = formats.tokenizer_json(dataclasses.replace(small, pattern=REGEX))
    with pytest.raises(InputError, match="behavior 'Isolated' with invert True is not supported"):
        formats.parse_tokenizer_json(text.replace('"invert": false', '"invert": true'))


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def test_a_split_by_what_lies_between_is_taken_where_nothing_does(small):
    """cl100k's as many converters write it: what the expression leaves out is removed, and it leaves out nothing."""
    document = json.loads(formats.tokenizer_json(dataclasses.replace(small, pattern=LLAMA3)))
    document["pre_tokenizer"]["pretokenizers"][0] |= {"behavior": "Removed", "invert": True}
    ours = Tokenizer(formats.parse_tokenizer_json(json.dumps(document)))
    theirs = tokenizers.Tokenizer.from_str(json.dumps(document))
    assert ours.vocabulary.pattern == LLAMA3
    for text in PROBES:
        assert ours.encode(text) == theirs.encode(text).ids
    for regex in (LLAMA3.removesuffix(r"|\s+"), r"\p{L}+|\p{N}+", "("):
        document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = regex
        with pytest.raises(InputError, match=r"'Removed' and True of an expression that leaves|not a regular"):
            formats.parse_tokenizer_json(json.dumps(document))


@pytest.mark.parametrize("name", ["gpt2", "gpt4", "none"])
def test_an_expression_that_is_a_name_here_is_not_taken_for_the_split(small, name):
    text = formats.tokenizer_json(dataclasses.replace(small, pattern=REGEX))
    with pytest.raises(InputError, match=rf"pre_tokenizer\.pattern: '{name}' .* write \(\?:{name}\)"):
        formats.parse_tokenizer_json(text.replace(json.dumps(REGEX, ensure_ascii=False), f'"{name}"'))


@pytest.mark.parametrize("steps, form", [([], ""), (["NFC"], "NFC"), (["NFC", "NFC"], "NFC")])
def test_normalizers_in_a_sequence(small, steps, form):
    document = json.loads(formats.tokenizer_json(small))
    document["normalizer"] = {"type": "Sequence", "normalizers": [{"type": step} for step in steps]}
    assert formats.parse_tokenizer_json(json.dumps(document)) == dataclasses.replace(small, normalizer=form)
    document["normalizer"]["normalizers"].append({"type": "Lowercase"})
    with pytest.raises(InputError, match=r"normalizer: .*Sequence.* is not supported, only NFC"):
        formats.parse_tokenizer_json(json.dumps(document))


@pytest.mark.parametrize("individual", [True, False])
def test_digits_and_then_gpt2_s_split_are_one_expression(small, individual):
    """As SmolLM2 has it; checked against the two steps of tokenizers."""
    steps = [{"type": "Digits", "individual_digits": individual},
             {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]
    document = json.loads(formats.tokenizer_json(small))
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    vocabulary = formats.parse_tokenizer_json(json.dumps(document))
    theirs = tokenizers.Tokenizer.from_str(json.dumps(document))
    check_pattern(vocabulary.pattern)
    draw = random.Random(1)
    for _ in range(300):
        parts = ["a", "B", "7", "42", "½", " ", "  ", "\n", "\t ", "'s", "'", "!", "，", "中", "é", "٣"]
        text = "".join(draw.choices(parts, k=12))
        assert Tokenizer(vocabulary).encode(text) == theirs.encode(text).ids, text


def test_a_file_without_the_model_s_type_is_bpe(small):
    document = json.loads(formats.tokenizer_json(small))
    del document["model"]["type"]
    assert formats.parse_tokenizer_json(json.dumps(document)) == small


def test_a_rank_file_with_a_very_long_token_is_read_at_once():
    merges, left = [], 61
    for n in range(13):  # "==", "====", ...
        merges.append((left, left))
        left = 256 + n
    text = formats.rank_file(Vocabulary.build(range(256), merges))
    start = time.perf_counter()
    assert len(formats.parse_rank_file(text, "gpt2").token_bytes[-1]) == 2**13
    assert time.perf_counter() - start < 5


def test_listing_shows_merges_and_escapes_what_is_invisible():
    vocabulary = Vocabulary.build(range(256), [(104, 105), (10, 10), (0xE5, 0xA4), (257 + 0, 32)], ["<|x|>"])
    lines = formats.listing(Vocabulary.build(range(256), [(104, 105), (10, 10), (229, 164)])).split("\n")
    assert lines[65] == "[A] 65" and lines[0] == r"[\u0000] 0" and lines[0xE5] == r"[\xe5] 229"
    assert lines[256:259] == ["[h][i] -> [hi] 256", r"[\u000a][\u000a] -> [\u000a\u000a] 257",
                              r"[\xe5][\xa4] -> [\xe5\xa4] 258"]  # fmt: skip
    assert formats.listing(vocabulary).startswith("[<|x|>] 0\n")
    long = Vocabulary.build(range(256), [(61, 61), *((255 + n, 255 + n) for n in range(1, 10))])
    assert formats.listing(long).split("\n")[265] == f"[{'=' * 200}…][{'=' * 200}…] -> [{'=' * 200}…] 265"
    assert formats.visible("a\u2028\ufeff\u202e\ue000".encode()) == r"a\u2028\ufeff\u202e\ue000"


def damaged(document: dict, path: str, change) -> str:
    """tokenizer.json with one field changed; `path` like model.vocab."""
    copy = json.loads(json.dumps(document))
    *parents, last = path.split(".")
    place = copy
    for name in parents:
        place = place[name]
    place[last] = change(place[last])
    return json.dumps(copy)


DAMAGE = {
    "model type": ("model.type", lambda _: "WordPiece", r"model\.type: 'WordPiece'"),
    "byte fallback": ("model.byte_fallback", lambda _: True, r"model\.byte_fallback"),
    "normalizer": ("normalizer", lambda _: {"type": "NFKC"}, "normalizer"),
    "no vocab": ("model.vocab", lambda _: None, r"model\.vocab"),
    "missing byte": ("model.vocab", lambda v: {k: n for k, n in v.items() if k != "A"}, r"model\.vocab"),
    "byte renamed": ("model.vocab", lambda v: {{"\u00ff": "\u00ff!"}.get(k, k): n for k, n in v.items()}, "byte 0xff"),
    "duplicate id": ("model.vocab", lambda v: v | {"A": v["B"]}, r"model\.vocab: id \d+ is given to two"),
    "id as text": ("model.vocab", lambda v: v | {"A": "7"}, r"model\.vocab\['A'\]: '7' is not an id"),
    "negative id": ("model.vocab", lambda v: v | {"A": -1}, r"model\.vocab\['A'\]: -1"),
    "huge id": ("model.vocab", lambda v: v | {"A": 10**15}, r"model\.vocab: 'A' has id 1000000000000000"),
    "not in the alphabet": ("model.vocab", lambda v: {{"A": "中"}.get(k, k): n for k, n in v.items()}, "中"),
    "merge of unknown tokens": ("model.merges", lambda m: [["A", "qqq"], *m], r"model\.merges\[0\].*'qqq'"),
    "merge into nothing": ("model.merges", lambda m: [*m, ["A", "\u0120"]], r"model\.merges\[\d+\].*'AĠ'"),
    "merge of three": ("model.merges", lambda m: [["A", "B", "C"], *m], r"model\.merges\[0\]"),
    "merge as a number": ("model.merges", lambda m: [*m, 3], r"model\.merges\[\d+\]: 3"),
    "merge twice": ("model.merges", lambda m: [*m, m[0]], "merges: .* is merged twice"),
    "special id taken": ("added_tokens", lambda a: [a[0] | {"id": 5}], "added_tokens: .* has id 5, but 0"),
    "special without text": ("added_tokens", lambda a: [{"id": 0}], r"added_tokens\[0\]\.content"),
    "special that strips": ("added_tokens", lambda a: [a[0] | {"lstrip": True}], r"added_tokens\[0\]\.lstrip"),
    "other splitter": ("pre_tokenizer", lambda _: {"type": "Whitespace"}, "pre_tokenizer: Whitespace"),
    "prefix space": ("pre_tokenizer", lambda p: p | {"add_prefix_space": True}, r"pre_tokenizer\.add_prefix_space"),
    "no splitter": ("pre_tokenizer", lambda _: None, "pre_tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_tokenizer_json_is_refused_and_the_field_named(case, small, tmp_path):
    path, change, message = DAMAGE[case]
    file = tmp_path / "tokenizer.json"
    file.write_text(damaged(json.loads(formats.tokenizer_json(small)), path, change))
    with pytest.raises(InputError, match=message) as error:
        tokenizer_folder.load(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_cut_repeated_or_binary_json_is_refused(small, tmp_path):
    text = formats.tokenizer_json(small)
    file = tmp_path / "tokenizer.json"
    for cut in (1, 100, len(text) // 2, len(text) - 2):
        file.write_text(text[:cut], encoding="utf-8")
        with pytest.raises(InputError, match=r"line \d+, column \d+: not JSON"):
            tokenizer_folder.load(file)
    file.write_text(text.replace('"B": 34', '"B": 34, "B": 34', 1), encoding="utf-8")
    with pytest.raises(InputError, match="'B' is there twice"):
        tokenizer_folder.load(file)
    file.write_bytes(b"{\xff\xfe")
    with pytest.raises(InputError, match="byte 1 is not UTF-8"):
        tokenizer_folder.load(file)
    file.write_text('{"a":' * 100_000)
    with pytest.raises(InputError, match="not"):
        tokenizer_folder.load(file)


def test_damaged_gpt2_files_and_rank_files_are_refused(small, tmp_path):
    (tmp_path / "vocab.json").write_text(formats.vocab_json(small), encoding="utf-8")
    with pytest.raises(InputError, match=r"merges\.txt: missing"):
        tokenizer_folder.load(tmp_path / "vocab.json")
    (tmp_path / "merges.txt").write_text(formats.merges_txt(small) + "one two three\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"merges\.txt\[\d+\]: 'one two three'"):
        tokenizer_folder.load(tmp_path)
    lines = formats.rank_file(small).splitlines()
    for broken, message in {
        "not base64": ([*lines[:5], "!!! 6", *lines[5:]], "line 6"),
        "no rank": ([*lines[:5], "QQ==", *lines[5:]], "line 6"),
        "endless rank": ([*lines[:5], "QQ== " + "9" * 5000, *lines[5:]], "line 6"),
        "token twice": ([*lines, lines[3]], f"line {len(lines) + 1}"),
        "line missing": (lines[:40] + lines[41:], "a line is missing"),
    }.values():
        (tmp_path / "r.tiktoken").write_text("\n".join(broken))
        with pytest.raises(InputError, match=message):
            tokenizer_folder.load(tmp_path / "r.tiktoken", "gpt2", ["<|endoftext|>"])


def test_special_token_spelled_like_an_ordinary_one_is_refused_by_the_files_that_cannot_hold_it():
    vocabulary = Vocabulary.build(range(256), [(105, 106)], ["hi"])
    assert vocabulary.token_bytes[257] == b"hi"
    with pytest.raises(InputError, match=r"'hi'.*choose a longer"):
        formats.tokenizer_json(vocabulary)


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
import tokenizer_folder
from pathlib import Path
from vocabulary import Vocabulary
one = Vocabulary.build(range(256), [(97, 98)])
two = Vocabulary.build(range(256), [(99, 100), (256, 101)])
print("ready", flush=True)
while True:
    tokenizer_folder.save(one, Path(sys.argv[2]))
    tokenizer_folder.save(two, Path(sys.argv[2]))
"""


def test_kill_while_saving_leaves_one_whole_tokenizer_and_the_user_s_own_files(tmp_path):
    folder = tmp_path / "a name with spaces"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for n in range(25):
        command = [sys.executable, "-c", WRITER, str(ROOT / "bpe"), str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.002 * n + 0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (folder / "tokenizer.json").exists():
            continue  # killed before the first save was done
        from_json = tokenizer_folder.load(folder)
        from_pair = tokenizer_folder.load(folder / "vocab.json", pattern="gpt2")
        assert from_json == from_pair and len(from_json) in (257, 258)
        ranks = (folder / "ranks.tiktoken").read_text().splitlines()
        assert len(ranks) == len(from_json)
    tokenizer_folder.save(from_json, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_full_disk_or_read_only_parent_leaves_the_old_tokenizer(small, tmp_path, monkeypatch):
    tokenizer_folder.save(small, tmp_path / "t")
    before = {p.name: p.read_bytes() for p in (tmp_path / "t").iterdir()}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        tokenizer_folder.save(Vocabulary.build(range(256), []), tmp_path / "t")
    assert {p.name: p.read_bytes() for p in (tmp_path / "t").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    shutil.rmtree(tmp_path / "t")


def test_only_our_own_listing_is_replaced_and_a_model_s_folder_refused(small, tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()
    (folder / "words.vocab").write_text("mine")
    tokenizer_folder.save(small, folder)
    tokenizer_folder.save(small, folder)
    assert (folder / "words.vocab").read_text() == "mine"
    for name in ("config.json", "model.safetensors", "pytorch_model.bin"):
        (folder / name).write_text("mine")
        with pytest.raises(InputError, match=f"holds a model .{name}.; choose another"):
            tokenizer_folder.save(small, folder)
        (folder / name).unlink()


def test_merges_that_are_cut_off_at_a_line_are_refused(small, tmp_path):
    lines = formats.merges_txt(small).splitlines(keepends=True)
    cut = "".join(lines[: len(lines) // 2])
    with pytest.raises(InputError, match=r"merges\.txt: no merge makes .*cut off"):
        formats.parse_vocab_merges(formats.vocab_json(small), cut)
    for name in ("<|x|>", "[PAD]", "<s>"):
        vocabulary = Vocabulary.build(range(256), [(104, 105)], [name], specials_first=False)
        assert formats.parse_vocab_merges(formats.vocab_json(vocabulary), formats.merges_txt(vocabulary)) == vocabulary
    named = Vocabulary.build(range(256), [(104, 105)], ["END"], specials_first=False)
    tokenizer_folder.save(named, tmp_path / "t")
    with pytest.raises(InputError, match="no merge makes 'END'"):
        tokenizer_folder.load(tmp_path / "t/vocab.json")
    assert tokenizer_folder.load(tmp_path / "t/vocab.json", special_tokens=["END"]) == named


def test_files_edited_on_windows_are_read(small, tmp_path):
    tokenizer_folder.save(small, tmp_path)
    for name in ("tokenizer.json", "merges.txt", "vocab.json"):
        text = (tmp_path / name).read_bytes().replace(b"\n", b"\r\n")
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text)
    assert tokenizer_folder.load(tmp_path) == tokenizer_folder.load(tmp_path / "merges.txt") == small


@pytest.mark.parametrize("change, message", [
    (lambda d: d | {"added_tokens": 5}, "added_tokens: a int, not a list"),
    (lambda d: d | {"extra": 10**4200}, "digits"),
])  # fmt: skip
def test_odd_json_in_tokenizer_json_is_refused(small, tmp_path, change, message):
    text = json.dumps(change(json.loads(formats.tokenizer_json(small)))).replace("0" * 4200, "0" * 5000)
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=message):
        tokenizer_folder.load(tmp_path)


def test_gpt2_by_name_holds_its_split():
    assert tokenizer_folder.load("gpt2", "gpt4").pattern == "gpt2"


@pytest.mark.parametrize("name", ["empty.tiktoken", "tokenizer.json"])
def test_a_tokenizer_without_tokens_is_refused(tmp_path, name):
    model = {"type": "BPE", "vocab": {}, "merges": []}
    text = json.dumps({"pre_tokenizer": {"type": "ByteLevel"}, "model": model}) if name.endswith("json") else ""
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="no token for the byte 0x00"):
        tokenizer_folder.load(tmp_path / name, "gpt2")


def test_special_tokens_of_rank_files_may_be_odd_but_not_the_same(tmp_path):
    vocabulary = Vocabulary.build(range(256), [(97, 98)], specials_first=False)
    (tmp_path / "x.tiktoken").write_text(formats.rank_file(vocabulary))
    with pytest.raises(InputError, match="a a: one is there twice"):
        tokenizer_folder.load(tmp_path / "x.tiktoken", "gpt2", ("a", "a"))
    odd = tokenizer_folder.load(tmp_path / "x.tiktoken", "gpt2", ("\udcff",))  # a shell's byte that is not UTF-8
    assert odd.special_tokens == {"\udcff": 257}


def test_special_tokens_of_rank_files_with_gaps_between_their_ids(tmp_path):
    """As cl100k_base's: <|endoftext|> behind the ranks, <|endofprompt|> some ids further on."""
    text = formats.rank_file(Vocabulary.build(range(256), [(97, 98)], specials_first=False))
    path = tmp_path / "x.tiktoken"
    path.write_text(text)
    loaded = tokenizer_folder.load(path, "gpt2", ("<|end|>=258", "<|first|>", "<|prompt|>=261"))
    unused = {f"<|unused_{n}|>": n for n in (259, 260)}
    assert loaded.special_tokens == {"<|end|>": 258, "<|first|>": 257, "<|prompt|>": 261} | unused
    ranks = {base64.b64decode(token): int(n) for token, n in map(str.split, text.splitlines())}
    specials = {"<|end|>": 258, "<|first|>": 257, "<|prompt|>": 261}
    theirs = tiktoken.Encoding("x", pat_str=GPT2_REGEX, mergeable_ranks=ranks, special_tokens=specials)
    probe = "ab<|end|>cab<|prompt|><|first|>"
    assert Tokenizer(loaded).encode(probe, allowed_special="all") == theirs.encode(probe, allowed_special="all")
    for specials, message in {
        ("<|a|>=5",): r"<\|a\|>=5: another token has the id 5",
        ("<|a|>=300", "<|b|>=300"): "another token has the id 300",
        ("<|a|>=300", "<|a|>"): "one is there twice",
        ("<|a|>=99999999999999999999",): "ids are below 1,048,576",
    }.items():
        with pytest.raises(InputError, match=message):
            tokenizer_folder.load(path, "gpt2", specials)
    path.write_text("".join(line for line in text.splitlines(True) if not line.endswith(" 200\n")))
    with pytest.raises(InputError, match="a line is missing"):
        tokenizer_folder.load(path, "gpt2", ("<|end|>=258",))


def test_added_tokens_that_are_not_special_are_matched_in_any_text_as_in_tokenizers():
    vocabulary = Vocabulary.build(range(256), [(104, 105)], ["<|endoftext|>", "<tool>", "<tool>>"])
    document = json.loads(formats.tokenizer_json(vocabulary))
    for token in document["added_tokens"][1:]:
        token["special"] = False
    read = formats.parse_tokenizer_json(json.dumps(document))
    ours, theirs = Tokenizer(read), tokenizers.Tokenizer.from_str(json.dumps(document))
    for text in ("hi<tool>hi", "<tool>> <tool", "a <tool><tool>>>hi"):
        assert ours.encode(text) == theirs.encode(text).ids
        assert ours.decode(ours.encode(text)) == text == theirs.decode(ours.encode(text))
    with pytest.raises(SpecialTokenInText):
        ours.encode("<tool><|endoftext|>")
    assert json.loads(formats.tokenizer_json(read)) == document


@pytest.mark.parametrize("form", [None, "NFC"])
def test_normalized_tokens_are_looked_for_after_the_others_and_in_the_normal_form(form):
    """As Pythia's runs of spaces. What the first turn has taken is not there in the second, whatever begins first."""
    contents = ["<a>", "x<a>", "<a><b>", "b>", "  ", "    ", "e\u0301", "\u212b", "[K", "> "]
    draw = random.Random(5)
    for _ in range(40):
        theirs = tokenizers.Tokenizer.from_str(formats.tokenizer_json(Vocabulary.build(range(256), [(104, 105)])))
        theirs.normalizer = form and tokenizers.normalizers.NFC()
        theirs.add_tokens([
            tokenizers.AddedToken(content, normalized=draw.random() < 0.5, special=draw.random() < 0.5)
            for content in draw.sample(contents, 5)
        ])  # fmt: skip
        vocabulary = formats.parse_tokenizer_json(theirs.to_str())
        ours = Tokenizer(vocabulary)
        assert formats.parse_tokenizer_json(formats.tokenizer_json(vocabulary)) == vocabulary
        for _ in range(20):
            text = "".join(draw.choices([*contents, "x", "é", "[\u212a", " ", "hi", "<", "<b>"], k=9))
            ids = ours.encode(text, allowed_special="all")
            assert ids == theirs.encode(text).ids, (text, vocabulary)
            assert [n for part in ours.encode_stream(text, "all") for n in part.tolist()] == ids
    theirs.add_special_tokens([tokenizers.AddedToken("[K]", normalized=True)])
    ours = Tokenizer(formats.parse_tokenizer_json(theirs.to_str()))
    for text in ("[K]", "a[\u212a]")[: 1 + bool(form)]:
        assert ours.encode(text, "all") == theirs.encode(text).ids
        with pytest.raises(SpecialTokenInText, match=r"'\[K\]'"):
            ours.encode(text)


def test_added_tokens_that_hugging_face_would_number_otherwise_are_refused():
    """It gives those that model.vocab lacks the ids after its own, in the order of the file, and does not say so."""
    document = json.loads(formats.tokenizer_json(Vocabulary.build(range(256), [], ["<a>", "<b>"], "none", False)))
    a, b = document["added_tokens"]
    for text in ("<a>", "<b>"):
        del document["model"]["vocab"][text]
    for added, refused in (([a, b], False), ([b, a], True), ([a, b | {"id": 258}], True)):
        document["added_tokens"] = added
        theirs = tokenizers.Tokenizer.from_str(json.dumps(document))
        if refused:
            assert theirs.token_to_id(added[1]["content"]) != added[1]["id"]
            with pytest.raises(InputError, match=r"added_tokens: '<b>' has id 25[78], but .* give it 25[67]"):
                formats.parse_tokenizer_json(json.dumps(document))
        else:
            assert formats.parse_tokenizer_json(json.dumps(document)).special_tokens == {"<a>": 256, "<b>": 257}
    document |= {"added_tokens": [a, b]}
    document["model"]["vocab"]["<b>"] = 257
    with pytest.raises(InputError, match=r"'<a>' has id 256, but .* give it 257"):
        formats.parse_tokenizer_json(json.dumps(document))


def test_a_tokenizer_without_tokens_for_some_bytes(tmp_path):
    """As SmolLM2's: taken if asked for; its ids are Hugging Face's, and a text with such a byte is refused."""
    theirs = tokenizers.Tokenizer(models.BPE())
    theirs.pre_tokenizer, theirs.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    theirs.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=900, show_progress=False))
    theirs.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=r"no token for the byte 0x00; all 256 are needed.* missing_bytes takes it"):
        tokenizer_folder.load(tmp_path)
    vocabulary = tokenizer_folder.load(tmp_path, missing_bytes=True)
    assert {0, 4, 0xC0, 0xFF} <= vocabulary.missing_bytes and not {*b"aeiou \n"} & vocabulary.missing_bytes
    tokenizer = Tokenizer(vocabulary)
    assert tokenizer.encode(TEXT) == theirs.encode(TEXT).ids and tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    for text in ("a\x00b", "\U0010ffff", b"\xff"):
        with pytest.raises(InputError, match=r"the text has the byte 0x(00|f4|ff), for which this tokenizer has no"):
            tokenizer.encode(text)
    with pytest.raises(InputError, match="the text has the byte 0x00"):
        list(tokenizer.encode_stream([b"fine, ", b"not \x00 fine"], threads=2))
    assert formats.parse_tokenizer_json(formats.tokenizer_json(vocabulary), missing_bytes=True) == vocabulary
    whole = json.loads(formats.tokenizer_json(vocabulary))
    del whole["model"]["vocab"]["e"]
    with pytest.raises(InputError, match=r"model\."):  # merges need it: a damaged file
        formats.parse_tokenizer_json(json.dumps(whole), missing_bytes=True)


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", REGEX])
def test_a_tokenizer_that_normalises_is_theirs_and_decodes_to_the_normal_form(pattern, tmp_path):
    """As Qwen's: NFC, but for special tokens, which a mark that follows them must not join."""
    theirs = hugging_face(pattern)
    theirs.normalizer = tokenizers.normalizers.NFC()
    theirs.save(str(tmp_path / "tokenizer.json"))
    vocabulary = tokenizer_folder.load(tmp_path)
    assert vocabulary.normalizer == "NFC"
    assert formats.parse_tokenizer_json(formats.tokenizer_json(vocabulary)) == vocabulary
    tokenizer, random_ = Tokenizer(vocabulary), random.Random(3)
    letters = ["e", "a", "A", " ", "\n", "\u0301", "\u0308", "\u0338", "\u212b", "\u1100\u1161\u11a8", "=", "中", "ﬁ",
               "<|endoftext|>", ">"]
    for _ in range(300):
        text = "".join(random_.choices(letters, k=random_.randint(0, 30)))
        ids = tokenizer.encode(text, allowed_special="all")
        assert ids == theirs.encode(text).ids, text
        parts = tokenizer.encode_stream(list(text), allowed_special="all")
        assert [n for part in parts for n in part.tolist()] == ids
        if "<|" not in text:
            assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
    assert tokenizer.encode(b"e\xcc\x81\xff") == tokenizer.encode("é".encode() + b"\xff")
    with pytest.raises(InputError, match="NFC changes texts, but they are counted as they are"):
        fast.extend(vocabulary, fast.count(["some text"], pattern, ("<|endoftext|>",), texts=True), 800)


def test_what_only_becomes_a_special_token_when_normalised_is_none():
    """The Kelvin sign is K in NFC (Cohere's have a K: <|END_OF_TURN_TOKEN|>); tokens that are not special are found."""
    theirs = hugging_face(specials=["<|TOKEN|>", "\u0301x"])
    theirs.normalizer = tokenizers.normalizers.NFC()
    theirs.add_tokens(["café"])
    tokenizer = Tokenizer(formats.parse_tokenizer_json(theirs.to_str()))
    kelvin = "<|TO\u212aEN|>"
    for text in (kelvin, f"a<|TOKEN|>b\u212a{kelvin} <|TOKEN|>\u0301", "\u0344x \u0301x", "un cafe\u0301"):
        ids = tokenizer.encode(text, allowed_special="all")
        assert ids == theirs.encode(text).ids, text
        assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text), text
    assert 0 not in tokenizer.encode(kelvin)
