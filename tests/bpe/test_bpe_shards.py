"""Token shards and their manifest. The encoder here is one byte, one id: what is tested is the writing."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import text_files
import token_shards
from text_files import BLOCK, Reading
from vocabulary import InputError, Vocabulary

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = Vocabulary.build(range(256), [], ["<|endoftext|>"])  # end-of-text 0, byte b is b + 1
NAMES = {"tokenizer": "tokenizer/bytes", "tokenizer_sha256": "00"}


def encode(blocks):
    """Bytes to ids, end-of-text to 0."""
    data = b"".join(blocks)
    for n, part in enumerate(re.split(re.escape(b"<|endoftext|>"), data)):
        if n:
            yield np.array([0], np.int32)
        yield np.frombuffer(part, np.uint8).astype(np.int32) + 1


def write(tmp_path, inputs, val_fraction=0.01, **options):
    splits = token_shards.sources(inputs, val_fraction)
    return token_shards.write(tmp_path / "tokens", splits, encode, VOCABULARY, NAMES, **options)


def documents(folder: Path, split: str) -> list[bytes]:
    manifest = json.loads((folder / "manifest.json").read_text())
    ids = np.concatenate([np.load(folder / entry["file"], mmap_mode="r") for entry in manifest["shards"][split]])
    assert ids[-1] == 0
    ends = np.flatnonzero(ids == 0)
    return [bytes((part[part > 0] - 1).astype(np.uint8)) for part in np.split(ids, ends + 1)[:-1]]


@pytest.fixture
def folder(tmp_path) -> Path:
    text = tmp_path / "text"
    text.mkdir()
    (text / "train.txt").write_text("".join(f"story {n}\nof 中文\n<|endoftext|>\n" for n in range(50)))
    (text / "val.txt").write_text("one\n<|endoftext|>\ntwo\n<|endoftext|>\n")
    return text


@pytest.mark.parametrize("shard_tokens", [10**8, 100, 7])
def test_manifest_and_shards_hold_every_document(folder, tmp_path, shard_tokens):
    written = write(tmp_path, [folder], shard_tokens=shard_tokens)
    out = tmp_path / "tokens"
    assert documents(out, "train") == [f"story {n}\nof 中文".encode() for n in range(50)]
    assert documents(out, "val") == [b"one", b"two"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert {k: manifest[k] for k in ("format", "dtype", "vocab_size", "end_of_text", *NAMES)} == {
        "format": 1, "dtype": "uint16", "vocab_size": 257, "end_of_text": 0, **NAMES
    }  # fmt: skip
    for split, entries in manifest["shards"].items():
        assert [entry["file"] for entry in entries] == [f"{split}_{n:06d}.npy" for n in range(len(entries))]
        for entry in entries:
            array = np.load(out / entry["file"], mmap_mode="r", allow_pickle=False)
            assert array.dtype == np.uint16 and array.shape == (entry["tokens"],)
            assert hashlib.sha256((out / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
            assert entry["bytes"] == int((array > 0).sum())
            assert entry["tokens"] <= shard_tokens
        assert sum(entry["bytes"] for entry in entries) == written[split].size
    assert written["train"].documents == 50 and written["val"].tokens == 8
    assert set(os.listdir(out)) == {"manifest.json"} | {e["file"] for s in manifest["shards"].values() for e in s}


def test_larger_vocabularies_need_uint32(folder, tmp_path):
    assert token_shards.id_type(VOCABULARY) == "uint16"

    class Large:
        def __len__(self):
            return 65_537

    assert token_shards.id_type(Large()) == "uint32"


@pytest.mark.parametrize("fraction, expected", [(0.5, [1, 3, 5, 7, 9]), (0.1, [9]), (0.25, [3, 7])])
def test_single_files_are_split_by_document(tmp_path, fraction, expected):
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join("0123"))
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"text": n}) for n in "456789"))
    write(tmp_path, [tmp_path / "a.txt", tmp_path / "b.jsonl"], fraction)
    val = documents(tmp_path / "tokens", "val")
    assert val == [str(n).encode() for n in expected]
    assert sorted(val + documents(tmp_path / "tokens", "train")) == [str(n).encode() for n in range(10)]


def test_no_val_and_too_few_documents_for_val(tmp_path):
    (tmp_path / "a.txt").write_text("only one")
    with pytest.raises(InputError, match=r"fewer than 100 documents.*--val_fraction"):
        write(tmp_path, [tmp_path / "a.txt"])
    assert os.listdir(tmp_path) == ["a.txt"]
    write(tmp_path, [tmp_path / "a.txt"], 0)
    assert list(json.loads((tmp_path / "tokens/manifest.json").read_text())["shards"]) == ["train"]


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, 0.8])
def test_wrong_fractions_are_refused(tmp_path, fraction):
    with pytest.raises(InputError, match="--val_fraction"):
        token_shards.sources([tmp_path / "a.txt"], fraction)


def test_what_cannot_be_written_is_refused_and_the_old_shards_stay(folder, tmp_path):
    write(tmp_path, [folder])
    before = {path.name: path.read_bytes() for path in (tmp_path / "tokens").iterdir()}
    (tmp_path / "bad.txt").write_bytes(b"fine\n<|endoftext|>\nbad \xff")
    (tmp_path / "sly.jsonl").write_text('{"text": "a"}\n{"text": "b<|endoftext|>c"}\n')
    (tmp_path / "empty.txt").write_text("")
    for name, message in {
        "bad.txt": r"bad\.txt: byte 23 is not UTF-8",
        "sly.jsonl": r"sly\.jsonl: a document contains '<\|endoftext\|>'.*number 2 of .*--marker_in_text break",
        "empty.txt": r"empty\.txt: no text for train",
        "none.txt": "no such file",
    }.items():
        with pytest.raises(InputError, match=message):
            write(tmp_path, [tmp_path / name], 0)
        assert {path.name: path.read_bytes() for path in (tmp_path / "tokens").iterdir()} == before
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(InputError, match=r"no special token '<\|end\|>'.*<\|endoftext\|>"):
        write(tmp_path, [folder], end_of_text="<|end|>")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match=r"has no train\.txt"):
        write(tmp_path, [tmp_path / "nothing"])


def test_an_end_of_text_across_two_parts_of_a_document_is_noticed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x" * (2 * BLOCK - 18) + "<|end|>" + "y" * BLOCK)
    parts = [part for part, _ in text_files.documents(path, Reading())]
    assert len(parts) > 1 and not any(b"<|end|>" in part for part in parts)
    with pytest.raises(InputError, match=r"a\.txt: a document contains '<\|end\|>'"):
        list(token_shards.Source([path])(Reading(), "<|end|>"))


WRITER = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
import token_shards, test_bpe_shards as t
folder = Path(sys.argv[3])
print("ready", flush=True)
while True:
    splits = token_shards.sources([folder / "text"], 0)
    token_shards.write(folder / "tokens", splits, t.encode, t.VOCABULARY, t.NAMES, shard_tokens=100)
"""


def test_kill_while_writing_leaves_whole_shards(folder, tmp_path):
    for n in range(8):
        command = [sys.executable, "-c", WRITER, str(ROOT / "bpe"), str(ROOT / "tests/bpe"), str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.005 * n + 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (tmp_path / "tokens").exists():
            assert len(documents(tmp_path / "tokens", "train")) == 50
    write(tmp_path, [folder])
    assert sorted(os.listdir(tmp_path)) == ["text", "tokens"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("name", ["manifest.json", "train_000000.npy", "val_000003.npy"])
def test_files_that_only_look_like_ours_are_refused(folder, tmp_path, name):
    out = tmp_path / "tokens"
    out.mkdir()
    (out / name).write_text('{"mine": 1}')
    with pytest.raises(InputError, match=rf"tokens/{name}: no.*choose another folder"):
        write(tmp_path, [folder])
    assert contents(out) == {name: b'{"mine": 1}'}


def test_files_with_similar_names_stay_and_old_shards_go(folder, tmp_path):
    write(tmp_path, [folder], shard_tokens=100)
    mine = {name: name.encode() for name in ("train_data.npy", "val_1.npy", "notes.txt")}
    for name, content in mine.items():
        (tmp_path / "tokens" / name).write_bytes(content)
    os.chmod(tmp_path / "tokens", 0o700)
    write(tmp_path, [folder])
    ours = {"manifest.json": None, "train_000000.npy": None, "val_000000.npy": None}
    found = contents(tmp_path / "tokens")
    assert found.keys() == ours.keys() | mine.keys() and found | mine == found
    assert (tmp_path / "tokens").stat().st_mode & 0o777 == 0o700


def test_a_second_writer_of_the_same_folder_is_refused(folder, tmp_path):
    from folder_swap import replacing

    with replacing(tmp_path / "tokens", lambda name: True, last="x") as beside:
        (beside / "x").write_text("first")
        with pytest.raises(InputError, match="tokens: another run"):
            write(tmp_path, [folder])
    assert contents(tmp_path / "tokens") == {"x": b"first"}
    (tmp_path / ".tokens.lock").touch()  # as a killed writer leaves it
    (tmp_path / "tokens/x").unlink()
    write(tmp_path, [folder])
    assert sorted(os.listdir(tmp_path)) == ["text", "tokens"]


@pytest.mark.parametrize("where", ["tokens", "tokens/sub"])
def test_the_folder_where_we_stand_is_not_exchanged(folder, tmp_path, monkeypatch, where):
    write(tmp_path, [folder], shard_tokens=100)
    (tmp_path / "tokens/sub").mkdir()
    (tmp_path / "tokens/sub/mine").write_text("mine")
    monkeypatch.chdir(tmp_path / where)
    before = (tmp_path / "tokens").stat().st_ino
    write(tmp_path, [folder])
    assert (tmp_path / "tokens").stat().st_ino == before and os.path.samefile(".", tmp_path / where)
    assert contents(tmp_path / "tokens").keys() == {"manifest.json", "train_000000.npy", "val_000000.npy"}
    assert (tmp_path / "tokens/sub/mine").read_text() == "mine"
    assert len(documents(tmp_path / "tokens", "train")) == 50


def test_other_files_are_in_the_folder_at_every_moment(folder, tmp_path, monkeypatch):
    """Also in the one when the folders have changed places and we are killed."""
    import folder_swap

    write(tmp_path, [folder])
    (tmp_path / "tokens/notes.txt").write_text("mine")
    monkeypatch.setattr(folder_swap, "_keep_others", lambda *_: None)  # as if killed before it
    write(tmp_path, [folder], shard_tokens=100)
    assert (tmp_path / "tokens/notes.txt").read_text() == "mine"
    assert len(documents(tmp_path / "tokens", "train")) == 50


@pytest.mark.parametrize("fraction, val", [(0.4, 40), (0.33, 33), (0.03, 3), (0.29, 29)])
def test_the_share_of_val_is_what_was_asked_for(tmp_path, fraction, val):
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(map(str, range(100))))
    written = write(tmp_path, [tmp_path / "a.txt"], fraction)
    assert (written["train"].documents, written["val"].documents) == (100 - val, val)


@pytest.mark.parametrize("k", [2, 3, 7, 20, 49, 100])
def test_one_in_k_takes_every_kth_document(tmp_path, k):
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(map(str, range(300))))
    write(tmp_path, [tmp_path / "a.txt"], 1 / k)
    assert documents(tmp_path / "tokens", "val") == [str(n).encode() for n in range(k - 1, 300, k)]


@pytest.mark.parametrize("fraction", [0.51, 0.66, float("nan")])
def test_fractions_above_a_half_are_refused(tmp_path, fraction):
    with pytest.raises(InputError, match=r"--val_fraction.*at most 0\.5"):
        token_shards.sources([tmp_path / "a.txt"], fraction)


def test_a_folder_s_texts_are_those_with_our_names(folder, capsys):
    for name in ("train_old.txt", "training.txt", "value.txt", "train.txt.bak", "validation.jsonl", "train_0.jsonl.gz"):
        (folder / name).write_text("")
    found = token_shards.sources([folder], 0)
    assert [path.name for path in found["train"].files] == ["train.txt", "train_0.jsonl.gz"]
    assert [path.name for path in found["val"].files] == ["val.txt"]
    said = capsys.readouterr().err
    assert "left out train_old.txt, training.txt, validation.jsonl, value.txt; read are train.txt" in said
    (folder / "val.txt.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"val\.txt: lies beside val\.txt\.gz"):
        token_shards.sources([folder], 0)


def test_a_read_only_folder_stays_as_it_is(folder, tmp_path, monkeypatch):
    write(tmp_path, [folder])
    before = contents(tmp_path / "tokens")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(InputError, match="tokens: is read-only"):
        write(tmp_path, [folder])
    assert contents(tmp_path / "tokens") == before and sorted(os.listdir(tmp_path)) == ["text", "tokens"]
