"""The commands of bpe/run.py as a user starts them, from another folder and with spaces in the paths."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import counting
import numpy as np
import pytest
from text_files import Reading, documents

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "bpe" / "sample" / "text.txt"
DATA = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))
END = "<|endoftext|>"


def run(*arguments, cwd=None, stdin: bytes = b"", status: int = 0, **environment) -> subprocess.CompletedProcess:
    """The command's result; a wrong status or a traceback fails the test."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "bpe" / "run.py"), *map(str, arguments)],
        cwd=cwd, input=stdin, capture_output=True, env=os.environ | environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == status, (done.returncode, done.stdout.decode()[-500:], done.stderr.decode()[-2000:])
    assert b"Traceback" not in done.stderr
    return done


def test_training_counts_the_pieces_that_encoding_makes(tmp_path):
    path = tmp_path / "text.txt"
    for text in (f"\none\n\n{END}\r\n\ntwo!\r\n{END}\n{END}three\n", f"a{END}b\n{END}", f"{END}\n\n{END}\nx"):
        path.write_bytes(text.encode())
        for flags in (("--special_tokens", END), ()):
            run("train", path, *flags, "--pattern", "gpt4", "--save_counts", tmp_path / "c.npz")
            texts = [text for text, _ in documents(path, Reading())]
            expected = counting.count(texts, "gpt4", texts=True)
            assert sorted(counting.Counts.load(tmp_path / "c.npz").items()) == sorted(expected.items())


def error(*arguments, **options) -> str:
    """The one or two lines of an error; nothing on standard output but what came before it."""
    done = run(*arguments, status=2, **options)
    lines = [line for line in done.stderr.decode().splitlines() if not line.startswith("bpe: compiling")]
    assert lines[-1].startswith("error: ") and len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a space in its name, holding a text of many documents and a tokenizer trained on it."""
    folder = tmp_path_factory.mktemp("a place")
    paragraphs = [p for p in SAMPLE.read_text(encoding="utf-8").split("\n\n") if p]
    (folder / "text.txt").write_text("".join(f"{p}\n{END}\n" for p in paragraphs * 10), encoding="utf-8")
    for name in ("a.json", "a.csv.gz", "a.parquet", "a.NDJSON", "a.tsv"):
        (folder / name).write_text('{"text": "a"}')
    run("train", "text.txt", "--vocab_size", 600, "--special_tokens", END, "--out", "my tokenizer", cwd=folder)
    return folder


@pytest.mark.parametrize("command", ["", "demo", "train", "encode", "decode", "export", "compare", "show", "bench"])
def test_help_is_quick_and_documents_every_flag(command):
    before = os.times()
    done = run(*command.split(), "--help", PYTHONPROFILEIMPORTTIME="1")
    after = os.times()  # CPU seconds, not those of the clock: the machine may be busy
    assert after.children_user + after.children_system - before.children_user - before.children_system < 2
    assert "numba" not in done.stderr.decode() and " torch" not in done.stderr.decode()
    assert b"--help" in done.stdout
    if command:
        assert b"python bpe/run.py" in done.stdout or command == "demo"


def test_a_python_without_the_packages_is_told_where_they_are():
    done = subprocess.run([sys.executable, "-S", ROOT / "bpe" / "run.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        "error: No module named 'tyro'; first `source .venv/bin/activate`, or `pip install -r requirements.txt`\n"
    )


def test_train_says_what_it_did_and_writes_every_format(place):
    names = set(os.listdir(place / "my tokenizer"))
    assert names == {
        "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "my tokenizer.vocab", "ranks.tiktoken"
    }  # fmt: skip
    done = run("train", SAMPLE, "--vocab_size", 300, "--out", place / "other", cwd="/")
    out = done.stdout.decode()
    assert "made 44 merges" in out and "vocabulary: 300 tokens" in out and "bytes per token" in out


def test_the_longest_token_is_an_ordinary_one(tmp_path):
    (tmp_path / "a.txt").write_text("abc abc abc")
    out = run("train", "a.txt", "--special_tokens", END, "--out", "t", cwd=tmp_path).stdout.decode()
    assert "the longest ' abc'\n" in out


def test_compression_is_measured_on_the_first_files_that_hold_text(tmp_path):
    for name, text in (("empty", ""), ("one", "a a a a"), ("two", "a a")):
        (tmp_path / f"{name}.txt").write_text(text)
    out = run("train", "empty.txt", "one.txt", "two.txt", "--out", "t", cwd=tmp_path).stdout.decode()
    assert "bytes per token on the first 10 bytes" in out


def test_encode_and_decode_round_trip_through_files_pipes_and_arguments(place):
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(place / "my tokenizer/tokenizer.json"))
    options = ("--tokenizer", "my tokenizer")
    text = SAMPLE.read_text(encoding="utf-8")
    ids = [int(n) for n in run("encode", SAMPLE, *options, cwd=place).stdout.split()]
    assert ids == theirs.encode(text).ids
    piped = run("encode", "-", *options, cwd=place, stdin=text.encode()).stdout
    assert [int(n) for n in piped.split()] == ids
    run("encode", SAMPLE, *options, "--out", "deep/ids.npy", cwd=place)
    array = np.load(place / "deep/ids.npy")
    assert array.dtype == np.uint16 and array.tolist() == ids
    assert run("decode", "deep/ids.npy", *options, cwd=place).stdout == text.encode()
    assert run("decode", *options, cwd=place, stdin=piped).stdout == text.encode()
    run("decode", *options, "--out", "back.txt", cwd=place, stdin=piped)
    assert (place / "back.txt").read_bytes() == text.encode()
    assert run("decode", "15496", "995", cwd=place).stdout == b"Hello world"


def test_encode_a_folder_into_shards(place):
    folder = place / "text"
    folder.mkdir()
    (folder / "train.txt").write_text((place / "text.txt").read_text())
    (folder / "val.txt").write_text(f"one\n{END}\nzwei 中文\n{END}\n")
    done = run("encode", folder, "--tokenizer", "my tokenizer", "--out", "tokens", cwd=place)
    manifest = json.loads((place / "tokens/manifest.json").read_text())
    assert manifest["end_of_text"] == 0 and manifest["vocab_size"] == 600
    assert (ROOT / "data" / manifest["tokenizer"]).resolve() == (place / "my tokenizer").resolve()
    val = np.load(place / "tokens/val_000000.npy")
    assert (val == 0).sum() == 2 and manifest["shards"]["val"][0]["bytes"] == len("onezwei 中文".encode())
    text = run("decode", "tokens/val_000000.npy", "--tokenizer", "my tokenizer", cwd=place).stdout.decode()
    assert text == f"one{END}zwei 中文{END}"
    train = np.concatenate([np.load(place / "tokens" / e["file"]) for e in manifest["shards"]["train"]])
    assert f"{len(train):,} tokens" in done.stdout.decode()
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(place / "my tokenizer/tokenizer.json"))
    whole = (folder / "train.txt").read_text().replace(f"\n{END}\n", END)
    assert train.tolist() == theirs.encode(whole).ids


def test_gpt2_by_name_for_shards(place):
    run("encode", "text.txt", "--out", "gpt2 tokens", "--val_fraction", "0.1", cwd=place)
    manifest = json.loads((place / "gpt2 tokens/manifest.json").read_text())
    assert manifest["end_of_text"] == 50256 and manifest["tokenizer"] == "gpt2" and manifest["dtype"] == "uint16"


def test_shards_of_a_tokenizer_that_is_no_folder_say_what_pretraining_will_miss(place):
    """The built-in one has a place of its own, where `export` writes the very file whose hash the manifest holds."""
    if not (ROOT / "data/tokenizer/gpt2/tokenizer.json").exists():
        done = run("encode", "text.txt", "--out", "g", "--val_fraction", "0.1", cwd=place)
        assert b"python bpe/run.py export gpt2 --out data/tokenizer/gpt2 writes it" in done.stderr
    run("encode", "text.txt", "--out", "g", "--val_fraction", "0.1", cwd=place)
    assert b"wrote 50,257 tokens to gpt2 files:" in run("export", "gpt2", "--out", "gpt2 files", cwd=place).stdout
    sha256 = hashlib.sha256((place / "gpt2 files/tokenizer.json").read_bytes()).hexdigest()
    assert json.loads((place / "g/manifest.json").read_text())["tokenizer_sha256"] == sha256
    ranks = ("--pattern", "gpt2", "--special_tokens", END)
    shards = ("--out", "r", "--val_fraction", "0.1")
    done = run("encode", "text.txt", "--tokenizer", "gpt2 files/ranks.tiktoken", *ranks, *shards, cwd=place)
    assert b"export gpt2 files/ranks.tiktoken --out FOLDER writes one" in done.stderr
    run("export", "gpt2 files/ranks.tiktoken", *ranks, "--out", "again", cwd=place)
    assert (place / "again/vocab.json").read_bytes() == (place / "gpt2 files/vocab.json").read_bytes()
    assert run("encode", SAMPLE, "--tokenizer", "again", cwd=place).stdout == run("encode", SAMPLE).stdout
    assert "holds a model" in error("export", "gpt2", "--out", model_folder(place), cwd=place)


def test_export_gives_the_special_tokens_of_a_rank_file_their_ids(place):
    flags = ("--pattern", "gpt2", "--special_tokens", "<|endoftext|>=50256", "<|prompt|>=50259")
    run("export", "gpt2", "--out", "of gpt2", cwd=place)
    out = run("export", "of gpt2/ranks.tiktoken", *flags, "--out", "gaps", cwd=place).stdout.decode()
    assert out.startswith("special tokens: <|endoftext|> 50256, <|prompt|> 50259\nwrote 50,260 tokens")
    ids = ("--text", "<|prompt|>", "--allowed_special", "<|prompt|>")
    for source in (("gaps",), ("of gpt2/ranks.tiktoken", *flags)):
        assert run("encode", *ids, "--tokenizer", *source, cwd=place).stdout == b"50259\n"


def test_export_adds_special_tokens_behind_the_last_id(place):
    chat = ("--special_tokens", "<|im_start|>", "<|im_end|>")
    out = run("export", "gpt2", *chat, "--out", "chat", cwd=place).stdout.decode()
    assert out.startswith("special tokens: <|im_start|> 50257, <|im_end|> 50258\nwrote 50,259 tokens to chat:")
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(place / "chat/tokenizer.json"))
    text = "<|im_start|>user\nHello world<|im_end|>"
    ids = run("encode", "--text", text, "--tokenizer", "chat", "--allowed_special", "all", cwd=place).stdout.split()
    assert list(map(int, ids)) == theirs.encode(text).ids
    out = run("export", "chat/vocab.json", "--special_tokens", "<|pad|>", "--out", "more", cwd=place).stdout.decode()
    assert out.startswith("special tokens: <|pad|> 50259\n")
    for source, text, message in (
        ("gpt2", END, "is there already, with id 50256"),
        ("chat", "<|im_end|>", "is there already, with id 50258"),
        ("chat", "hello", "'hello' is spelled like an ordinary token"),
        ("chat", "\u0120the", "is spelled like the ordinary token 262"),
        ("chat", "<|pad|>=50300", "only a rank file leaves ids to choose; leave =50300 out"),
        ("chat", " ", "must be printable text"),
    ):
        assert message in error("export", source, "--special_tokens", text, "--out", "refused", cwd=place)
    assert not (place / "refused").exists()


def model_folder(place: Path) -> Path:
    """A folder that looks like a model's."""
    (place / "model").mkdir(exist_ok=True)
    (place / "model/config.json").write_text("{}")
    return place / "model"


def test_a_folder_called_gpt2_does_not_replace_the_built_in(place, tmp_path):
    shutil.copytree(place / "my tokenizer", tmp_path / "gpt2")
    assert run("encode", "--text", "Hello world", cwd=tmp_path).stdout.split() == [b"15496", b"995"]
    assert run("encode", "--text", "Hello world", "--tokenizer", "./gpt2", cwd=tmp_path).stdout.split()[0] != b"15496"
    for name, described in (("gpt2", "gpt2"), ("./gpt2", os.path.relpath(tmp_path / "gpt2", ROOT / "data"))):
        run("encode", place / "text.txt", "--tokenizer", name, "--out", "tokens", cwd=tmp_path)
        assert json.loads((tmp_path / "tokens/manifest.json").read_text())["tokenizer"] == described


def test_same_input_same_files_whatever_hash_seed_threads_and_kind_of_file(place):
    (place / "text.txt.gz").write_bytes(gzip.compress((place / "text.txt").read_bytes()))
    expected = {p.name: p.read_bytes() for p in (place / "my tokenizer").iterdir()}
    for n, (seed, threads, file) in enumerate([("0", 1, "text.txt"), ("7", 2, "text.txt"), ("1", 2, "text.txt.gz")]):
        out = place / f"again{n}" / "my tokenizer"
        run("train", file, "--vocab_size", 600, "--special_tokens", END, "--threads", threads, "--out", out,
            cwd=place, PYTHONHASHSEED=seed)  # fmt: skip
        assert {p.name: p.read_bytes() for p in out.iterdir()} == expected


def test_counts_in_shards_merge_to_the_whole(place):
    flags = ("--special_tokens", END, "--save_counts")
    for n in range(3):
        run("train", "text.txt", SAMPLE, "--shard", f"{n}/3", *flags, f"part {n}.npz", cwd=place)
    parts = [f"part {n}.npz" for n in (2, 0, 1)]
    run("train", "--counts", *parts, "--vocab_size", 500, "--out", "merged/t", cwd=place)
    run("train", "text.txt", SAMPLE, "--vocab_size", 500, "--special_tokens", END, "--out", "whole/t", cwd=place)
    for path in (place / "whole/t").iterdir():
        assert path.read_bytes() == (place / "merged/t" / path.name).read_bytes()
    assert "[1] are missing" in error("train", "--counts", *parts[:2], "--out", "x", cwd=place)


def test_extend_keeps_the_ids_and_equals_training_for_longer(place):
    done = run("train", "text.txt", "--vocab_size", 700, "--extend", "my tokenizer", "--out", "longer", cwd=place)
    assert b"the new merges follow the tie rule hf: --ties must be the rule of the first training" in done.stdout
    run("train", "text.txt", "--vocab_size", 700, "--special_tokens", END, "--out", "once/longer", cwd=place)
    one, other = (json.loads((place / p / "tokenizer.json").read_text()) for p in ("longer", "once/longer"))
    assert one == other
    smaller = ("--vocab_size", 500, "--extend", "my tokenizer", "--out", "y")
    assert "has already 600" in error("train", "text.txt", *smaller, cwd=place)


def test_an_interrupted_run_takes_up_its_counts(place, monkeypatch, capsys):
    import command_train
    import tokenizer_folder

    monkeypatch.setattr(command_train, "KEEP_COUNTS_AFTER", -1)
    settings = command_train.Train(files=(place / "text.txt",), out=place / "resumed", vocab_size=500)
    save = tokenizer_folder.save
    monkeypatch.setattr(tokenizer_folder, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        command_train.run(settings)
    assert [p.name.startswith("counts-") for p in settings.out.iterdir()] == [True]
    monkeypatch.setattr(tokenizer_folder, "save", save)
    command_train.run(settings)
    assert "took up the counts" in capsys.readouterr().out
    assert not list(settings.out.glob("counts-*"))


def test_compare_counts_tokens_of_any_number_of_tokenizers(place):
    tokenizers = ("gpt2", "my tokenizer", "my tokenizer/tokenizer.json")
    out = run("compare", *tokenizers, "--text", "Hello world, 你好", "--html", "c.html", cwd=place).stdout.decode()
    assert "| gpt2" in out and "Hello| world|,| |\\xe4\\xbd|" in out
    assert (place / "c.html").read_text().count("<article>") == 3
    out = run("compare", "gpt2", "--tokens", 0, cwd=place).stdout.decode()
    assert "paragraph_en" in out and "paragraph_zh" in out


def test_show_writes_a_page_that_needs_nothing_else(place):
    run("show", SAMPLE, "--tokenizer", "my tokenizer", "gpt2", "--html", "page.html", cwd=place)
    page = (place / "page.html").read_text(encoding="utf-8")
    assert "http" not in page and "src=" not in page and page.count("<article>") == 2
    theirs = run("encode", SAMPLE, cwd=place).stdout.split()
    ours = run("encode", SAMPLE, "--tokenizer", "my tokenizer", cwd=place).stdout.split()
    assert page.count('<span class="t ') == len(theirs) + len(ours)
    out = run("show", "--text", "a<b>\n\t&", "--ids", cwd=place).stdout.decode()
    assert "a|<|b|>|↵|⇥|&" in out


def test_demo_trains_verifies_compares_and_draws(place):
    flags = ("--out", "d/demo", "--results", "d/demo.json", "--figure", "d/demo.png", "--timing_bytes", 5000)
    out = run("demo", "--text", SAMPLE, *flags, cwd=place).stdout.decode()
    assert "decode(encode(text)) == text" in out and "all three made the same" in out
    numbers = json.loads((place / "d/demo.json").read_text())
    assert {row["tokenizer"] for row in numbers["comparison"]} == {"demo", "gpt2"}
    assert [row["vocab_size"] for row in numbers["sweep"]][:2] == [257, 513]
    assert all(row["seconds"] > 0 for row in numbers["trainers"])
    assert (place / "d/demo.png").read_bytes().startswith(b"\x89PNG")


def test_questions_print_answers_with_evidence():
    done = subprocess.run([sys.executable, ROOT / "bpe/questions.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for evidence in ("21271, 22823", "大模型", "[43453]", "50256", "18,304"):
        assert evidence in done.stdout


@pytest.mark.skipif(not DATA.is_dir(), reason="SHARED_DATA is absent: no manual.txt")
def test_the_seed_s_own_table(tmp_path):
    """Tokens of the English and the Chinese paragraph, trained on manual.txt and GPT-2's."""
    flags = ("--vocab_size", 1024, "--pattern", "none", "--ties", "ids")
    run("train", DATA / "manual.txt", *flags, "--out", tmp_path / "t")
    expected = {str(tmp_path / "t"): (937, 118), "gpt2": (185, 306)}
    for tokenizer, counts in expected.items():
        for name, count in zip(("sentence_en.txt", "sentence_zh.txt"), counts, strict=True):
            assert len(run("encode", DATA / name, "--tokenizer", tokenizer).stdout.split()) == count


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("train",), "--out FOLDER"),
        (("train", "--out", "x"), "text files or --counts"),
        (("train", "none.txt", "--out", "x"), "none.txt: no such file"),
        (("train", ".", "--out", "x"), "is a folder"),
        (("train", "text.txt", "--out", "text.txt"), "text.txt"),
        (("train", "text.txt", "--out", "x", "--shard", "0/2"), "--save_counts"),
        (("train", "text.txt", "--save_counts", "c.npz", "--shard", "2/2"), "--shard 2/2"),
        (("train", "--counts", "c.npz", "--out", "x", "--shard", "nonsense"), "--shard nonsense: give i/n"),
        (("train", "--counts", "c.npz", "--out", "x", "--shard", "0/2"), "--shard 0/2: is a part of text files"),
        (("train", "text.txt", "--out", "x", "--vocab_size", "1048577"), "--vocab_size 1048577: must be at most"),
        (("train", "text.txt", "--out", "x", "--pattern", "(a"), "not a regular expression"),
        (("train", "text.txt", "--out", "x", "--special_tokens", "a", "a"), "twice"),
        (("train", "text.txt", "--out", "x", "--special_tokens", ""), "--special_tokens ''"),
        (("train", "--counts", "text.txt", "--out", "x"), "text.txt: not a file of counts"),
        (("train", "text.txt", "--out", "text.txt"), "is a file; a folder is needed"),
        (("train", "text.txt", "--out", "x", "--pattern", ""), "pattern: ''"),
        (("train", "text.txt", "--out", "x", "--pattern", "(ab){2}+"), "write the group"),
        (("train", "text.txt", "--out", "x", "--special_tokens", " "), "--special_tokens ' '"),
        (("train", "text.txt", "--out", "x", "--threads", "-1"), "--threads -1"),
        (("encode", "text.txt", "--threads", "-1"), "--threads -1"),
        (("encode", "-", "--out", "z"), "--val_fraction 0"),
        (("compare", "gpt2", "--tokens", "-1"), "--tokens -1"),
        (("encode",), "--text"),
        (("encode", "text.txt", "--tokenizer", "nowhere"), "nowhere: no such tokenizer"),
        (("encode", "text.txt"), "--allowed_special all"),
        (("encode", "text.txt", "--allowed_special", "<|pad|>"), "'<|pad|>'"),
        (("encode", "text.txt", "--out", "z", "--val_fraction", "2"), "--val_fraction 2"),
        (("encode", "text.txt", "--out", "z", "--shard_tokens", "0"), "--shard_tokens 0"),
        (("encode", ".", "--out", "z", "--val_fraction", "0.2"), "--val_fraction: a folder has its own val.* files"),
        (("encode", "--text", "a", "--out", "z"), "--text"),
        (("decode", "50257"), "50257"),
        (("decode", "-5x"), "-5x"),
        (("decode", "none.npy"), "none.npy"),
        (("decode", "12", "x.npy"), "x.npy"),
        (("compare", "nowhere"), "nowhere"),
        (("show", "none.txt"), "none.txt"),
        (("show", "text.txt", "--text", "a"), "not both"),
        (("demo", "--vocab_size", "100"), "257"),
        (("bench", "--only", "nothing"), "train_english"),
        (("bench", "--rounds", "0"), "--rounds 0: must be at least 1"),
        (("bench", "--size", "-1"), "--size -1.0: must be at least 0"),
        (("bench", "--size", "inf"), "--size inf: must be at least 0 and finite"),
        (("train", "text.txt", "--out", "x", "--pattern", "gpt-4"), "'gpt-4' is none of gpt2, gpt4 and none"),
        (("encode", "--text", "a", "--tokenizer", "my tokenizer", "--pattern", "gpt4"), "splits by 'gpt2'"),
        (("export", "gpt2", "--pattern", "gpt4", "--out", "z"), "--pattern 'gpt4': gpt2 splits by 'gpt2'"),
        (("decode", "1", "--special_tokens", "<|pad|>"), "gpt2 has the special tokens: <|endoftext|>"),
        (("decode", "12", "x.npy"), "do not mix"),
        (("decode", "1", "--out", "."), "is no file"),
        (("compare", "--files", "text.txt", "--html", "./text.txt"), "is one of the inputs"),
        (("compare", "my tokenizer/tokenizer.json", "--json", "my tokenizer/tokenizer.json"), "is one of the inputs"),
        (("show", "text.txt", "--limit", "0"), "--limit 0"),
        (("demo", "--timing_bytes", "-1"), "--timing_bytes -1"),
        (("train", "--out", "x", "--special_tokens", END, "text.txt"), "put text.txt before --special_tokens"),
        (("encode", "--allowed_special", "all", "text.txt"), "put text.txt before --allowed_special"),
        (("train", "a.json", "--out", "x"), "a.json: holds texts among other things; take them out"),
        (("encode", "a.csv.gz"), "python data/prepare.py file a.csv.gz --name NAME"),
        (("encode", "a.json", "--tokenizer", "my tokenizer", "--out", "z"), "python data/prepare.py file a.json"),
        (("encode", "a.json", "--out", "z.npy"), "python data/prepare.py file a.json --name NAME"),
        (("compare", "--files", "a.parquet"), "python data/prepare.py file a.parquet --name NAME"),
        (("show", "a.NDJSON"), "python data/prepare.py file a.NDJSON --name NAME"),
        (("demo", "--text", "a.tsv"), "python data/prepare.py file a.tsv --name NAME"),
        (("demo", "--timing_vocab_size", "255"), "--timing_vocab_size 255"),
        (("train", "text.txt", "--out", "text.txt/x/y"), "text.txt cannot be written to (Not a directory)"),
        (("train", "text.txt", "--save_counts", "text.txt/c.npz"), "text.txt cannot be written to (Not a directory)"),
    ],
)
def test_mistakes_are_one_line_with_status_2_and_leave_nothing(place, arguments, message):
    before = sorted(os.listdir(place))
    assert message in error(*arguments, cwd=place)
    assert sorted(os.listdir(place)) == before


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_training_leaves_the_old_tokenizer(place, number, status):
    big = place / "big.txt"
    if not big.exists():
        rng = np.random.default_rng(0)
        big.write_bytes(rng.integers(97, 123, 6_000_000, np.uint8).tobytes())
    out = place / f"stopped {status}"
    run("train", SAMPLE, "--vocab_size", 300, "--out", out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    flags = ("--pattern", "none", "--vocab_size", "60000", "--out", out)
    command = [sys.executable, ROOT / "bpe/run.py", "train", big, *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()  # counted, now merging
    time.sleep(0.3)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in stderr, stderr
    assert {p.name: p.read_bytes() for p in out.iterdir() if not p.name.startswith("counts-")} == before


def test_output_cut_short_by_the_reader_is_no_error(place):
    for command, reader, shown in (
        (f"encode '{place}/text.txt' --ordinary", "head -c 5", 5),
        ("encode --text short", "true", 0),
        ("bench --help", "true", 0),
    ):
        command = f"'{sys.executable}' '{ROOT}/bpe/run.py' {command} | {reader}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert done.stderr == "" and len(done.stdout) == shown


def shell(command: str, **options) -> subprocess.CompletedProcess:
    """A line of bash in which `run` is python bpe/run.py."""
    command = f"run() {{ '{sys.executable}' '{ROOT}/bpe/run.py' \"$@\"; }}; {command}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300, **options)


def test_streams_are_read_once_and_their_counts_not_kept(place, monkeypatch):
    import command_train

    done = shell("run train <(cat text.txt) --vocab_size 400 --out piped/t", cwd=place)
    assert done.returncode == 0, done.stderr
    run("train", "text.txt", "--vocab_size", 400, "--out", "read/t", cwd=place)
    assert (place / "piped/t/merges.txt").read_bytes() == (place / "read/t/merges.txt").read_bytes()

    monkeypatch.setattr(command_train, "KEEP_COUNTS_AFTER", -1)
    settings = command_train.Train(files=(Path("-"),), out=place / "stdin")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one text")))
    counts, kept = command_train._counted(settings, "gpt2", ())
    assert kept is None and not (place / "stdin").exists() and len(counts) == 2


def test_counts_saved_over_the_corpus_or_anything_else_are_refused(place):
    for path, message in (("text.txt", "is one of the inputs"), ("my tokenizer/vocab.json", "no file of counts")):
        before = (place / path).read_bytes()
        assert message in error("train", "text.txt", "--save_counts", path, cwd=place)
        assert (place / path).read_bytes() == before
    for _ in range(2):  # counts may be replaced by counts
        run("train", SAMPLE, "--save_counts", "c.npz", cwd=place)
    assert "c.npz: is there twice" in error("train", "--counts", "c.npz", "./c.npz", "--out", "x", cwd=place)
    assert "is one of the inputs" in error("train", "--counts", "c.npz", "--save_counts", "c.npz", cwd=place)
    message = error("train", "--counts", "c.npz", "--extend", "my tokenizer", "--out", "x", cwd=place)
    assert f"counted with none, the tokenizer has {END}" in message
    (place / "c.npz").unlink()


def test_rank_files_can_be_extended(place):
    flags = ("--extend", "ranks.tiktoken", "--pattern", "gpt2", "--vocab_size", 300, "--out", "grown")
    (place / "tiny.txt").write_text("ab ab cd cd")
    run("train", "tiny.txt", "--ties", "ids", "--vocab_size", 258, "--out", "tiny", cwd=place)
    run("train", "tiny.txt", *flags[:1], "tiny/ranks.tiktoken", *flags[2:], cwd=place)
    old, new = (json.loads((place / f / "vocab.json").read_text()) for f in ("tiny", "grown"))
    assert len(new) > len(old) == 258 and old.items() <= new.items()
    assert "contradicts" in error("train", "tiny.txt", "--extend", "gpt2", "--pattern", "gpt4",
                                  "--vocab_size", 60000, "--out", "x", cwd=place)  # fmt: skip


def test_texts_and_tokenizers_of_the_same_name_are_kept_apart(place):
    for n in (1, 2):
        (place / f"{n}").mkdir()
        (place / f"{n}/a.txt").write_text("a" * n)
    run("train", SAMPLE, "--vocab_size", 300, "--out", "1/my tokenizer", cwd=place)
    names = ("gpt2", "my tokenizer", "1/my tokenizer")
    run("compare", *names, "--files", "1/a.txt", "2/a.txt", "--json", "c.json", cwd=place)
    numbers = json.loads((place / "c.json").read_text())
    assert {name: row["gpt2"]["bytes"] for name, row in numbers.items()} == {"1/a.txt": 1, "2/a.txt": 2}
    assert numbers["1/a.txt"].keys() == set(names)


def test_arguments_that_are_not_utf8(place):
    done = shell("run encode --text $'a\\xff'", cwd=place)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "--text: byte 1 is not UTF-8 (ff)" in done.stderr
    done = shell("run encode --text $'a\\xff' --errors replace", cwd=place)
    assert done.stdout.split() == ["64", "4210"]


def test_a_special_token_with_a_colon_is_named_in_full(place):
    run("train", SAMPLE, "--vocab_size", 257, "--special_tokens", "<|im:start|>", "--out", "im", cwd=place)
    message = error("encode", "--text", "a<|im:start|>", "--tokenizer", "im", cwd=place)
    assert message.endswith("'<|im:start|>': --allowed_special all takes it as one id, --ordinary as text")


def test_here_has_the_name_of_its_folder(place):
    assert b"\nmy tokenizer: 1 token\n" in run("compare", ".", "--text", "a", cwd=place / "my tokenizer").stdout


def test_every_size_of_the_sweep_is_there_once():
    from command_demo import _sweep
    from vocabulary import Vocabulary

    chain = [(97, 97), *((256 + n, 97) for n in range(255))]  # 256 merges
    for merges, expected in ((256, [0, 256]), (0, [0])):
        rows = _sweep(Vocabulary.build(range(256), chain[:merges]), b"aaa")
        assert [row["merges"] for row in rows] == expected


def test_too_little_memory_is_one_line():
    script = "from run import orderly\nwith orderly():\n    raise MemoryError('8 GiB')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT / "bpe", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: not enough memory: 8 GiB\n")


def test_ctrl_c_while_modules_are_imported(tmp_path):
    (tmp_path / "tyro.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, ROOT / "bpe/run.py", "--help"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("interrupted\n", 130)


def test_out_is_where_we_stand(tmp_path):
    (tmp_path / "here").mkdir()
    train = f"run train '{SAMPLE}' --vocab_size 300 --out ."
    out = shell(f"{train} && {train} && ls", cwd=tmp_path / "here")
    assert out.returncode == 0 and "tokenizer.json" in out.stdout.split(), out.stderr
    file = tmp_path / "here/tokenizer.json"
    assert not run("train", SAMPLE, "--out", file, status=2).stdout  # refused before it counts


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.parametrize("flag", ["--out", "--save_counts"])
def test_a_place_that_cannot_be_written_to_is_refused_before_it_counts(flag):
    """Not even by root."""
    done = run("train", SAMPLE, flag, "/proc/x/y", status=2)
    assert not done.stdout and b"error: /proc/x/y: /proc cannot be written to (" in done.stderr


def test_special_tokens_can_be_allowed_in_shards(place):
    (place / "chat.txt").write_text("hi<|im|>there")
    run("train", "chat.txt", "--vocab_size", 258, "--special_tokens", END, "<|im|>", "--out", "chat", cwd=place)
    for name in ("<|im|>", "all"):
        run("encode", "chat.txt", "--tokenizer", "chat", "--allowed_special", name, "--val_fraction", 0,
            "--out", "chat tokens", cwd=place)  # fmt: skip
        assert np.load(place / "chat tokens/train_000000.npy").tolist().count(1) == 1


def test_sequences_replaced_in_two_splits_are_counted_once(tmp_path):
    (tmp_path / "bad.txt").write_bytes(f"a\xff\n{END}\nb\n{END}\n".encode("latin-1"))
    flags = ("--errors", "replace", "--val_fraction", "0.5", "--out", "tokens")
    assert b"replaced 1 sequences" in run("encode", "bad.txt", *flags, cwd=tmp_path).stderr


def test_arrays_that_are_no_ids_and_inputs_stay(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.npy", "w") as file:
        file.writestr("a", "b")
    assert "z.npy: not a .npy file of numbers" in error("decode", "z.npy", cwd=tmp_path)
    np.save(tmp_path / "ids.npy", np.array([1, 2]))
    assert "ids.npy: is one of the inputs" in error("decode", "ids.npy", "--out", "./ids.npy", cwd=tmp_path)
    assert np.load(tmp_path / "ids.npy").tolist() == [1, 2]
    os.mkfifo(tmp_path / "pipe")  # as /dev/null, which root would have replaced by a file
    assert "pipe: is no file that could be replaced" in error("decode", "1", "--out", "pipe", cwd=tmp_path)
    assert "standard input 2" in error("decode", stdin=b"1 \xff", PYTHONIOENCODING="utf-8:strict")


def test_ids_may_be_written_as_a_list_and_a_bad_one_names_its_file(tmp_path):
    for ids in (("15496,995",), ("[15496, 995]",), ("15496,", "995")):
        assert run("decode", *ids).stdout == b"Hello world"
    assert run("decode", stdin=b"[15496,\n 995]\n").stdout == b"Hello world"
    for name, n in (("a", 1), ("b", 50257)):
        np.save(tmp_path / f"{name}.npy", np.array([n]))
    done = run("decode", "a.npy", "b.npy", cwd=tmp_path, status=2)
    assert b"error: b.npy: id 50257 at position 0" in done.stderr


def test_a_link_stays_a_link_and_a_second_writer_is_refused(tmp_path):
    from folder_swap import replacing_file

    (tmp_path / "link.txt").symlink_to("real.txt")
    run("decode", "15496", "--out", "link.txt", cwd=tmp_path)
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "Hello"
    with replacing_file(tmp_path / "real.txt") as beside:
        beside.write_text("first")
        assert "another run" in error("decode", "15496", "--out", "real.txt", cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.txt", "real.txt"]
    assert (tmp_path / "link.txt").read_text() == "first"


@pytest.mark.parametrize("command", ["encode --text hi >&-", "decode 1 >&-", "encode - <&-", "decode - <&-"])
def test_closed_streams_are_no_traceback(command):
    done = shell(f"run {command}")
    assert (done.returncode, done.stderr) == (0, "")


def test_names_that_are_not_utf8(tmp_path):
    given = "export PYTHONIOENCODING=utf-8:strict; echo hi >$'\\xff.txt'"
    done = shell(f"{given}; run encode *.txt --out $'\\xff.npy' | cat -v; run show *.txt --html x.html", cwd=tmp_path)
    assert (done.stderr, done.stdout) == ("", "wrote 2 ids (uint16) to M-^?.npy\nwrote x.html\n")


def test_show_says_what_it_leaves_out(place):
    done = run("show", "text.txt", "--limit", 10, cwd=place)
    assert done.stderr.decode() == "text.txt: its first 10 bytes; --limit shows more\n"


def test_records_are_shown_as_their_texts(place):
    (place / "two.jsonl").write_text('{"text": "one", "url": "x"}\n{"text": "two"}\n')
    shown = f"one|↵|{END}|↵|two|↵|{END}|↵"
    assert shown in run("show", "two.jsonl", cwd=place).stdout.decode()
    assert f"gpt2: 8 tokens\n{shown}" in run("compare", "--files", "two.jsonl", cwd=place).stdout.decode()


def test_questions_may_be_read_in_part():
    command = f"'{sys.executable}' '{ROOT}/bpe/questions.py' | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True)
    assert (done.stderr, done.stdout[:5]) == (b"", b"### 1")


def test_bench_says_that_it_needs_linux(tmp_path):
    assert "bench runs on Linux only" in error("bench", "--out", tmp_path / "b.json", PATH=str(tmp_path))
    done = subprocess.run([sys.executable, ROOT / "bpe/bench_worker.py"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: Linux only") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [
    "encode long.txt --out x.npy", "encode long.txt --out x --val_fraction 0", "train long.txt --out x",
])  # fmt: skip
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, command):
    (tmp_path / "long.txt").write_text("".join(map(str, range(9000))))
    done = shell(f"ulimit -f 8; run {command}", cwd=tmp_path)  # a write beyond so many blocks fails
    assert done.returncode == 2 and re.fullmatch(r"error: .*/x(\.npy)?: File too large\n", done.stderr), done.stderr
    assert os.listdir(tmp_path) == ["long.txt"]
