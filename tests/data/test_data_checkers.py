import json
import os
import subprocess
import sys
from pathlib import Path

import checkers
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
STORY = (
    "There was once a kind girl named Mia. She had a red kite. One day, the kite was stuck in a tree. "
    'Mia thought hard. "I know what to do," she said. She took a long stick and pulled the kite down. Mia was proud.'
)
MEMBERS = ["apple", "apples", "pear", "pears", "plum", "plums"]


@pytest.mark.parametrize(
    ("check", "reply", "passes"),
    [
        # exact
        ({"kind": "exact", "answers": ["small", "little"]}, "small", True),
        ({"kind": "exact", "answers": ["small", "little"]}, ' "Little." \n', True),
        ({"kind": "exact", "answers": ["small"]}, "The opposite is small.", False),
        ({"kind": "exact", "answers": ["small"]}, "", False),
        ({"kind": "exact", "answers": ["Tom ran home."]}, "Tom  ran home", True),
        ({"kind": "exact", "answers": ["Tom ran home."]}, "Tom ran home. Then he slept.", False),
        ({"kind": "exact", "answers": ["ant, cat, dog"]}, "ant, cat, dog", True),
        ({"kind": "exact", "answers": ["ant, cat, dog"]}, "ant, dog, cat", False),
        # answer
        ({"kind": "answer", "answers": ["red kite"], "wrong": ["Tom"]}, "It was a Red Kite.", True),
        ({"kind": "answer", "answers": ["cat"], "wrong": []}, "cattle", False),
        ({"kind": "answer", "answers": ["Mia"], "wrong": ["Tom"]}, "Mia and Tom", False),
        ({"kind": "answer", "answers": ["Mia"]}, "Mia", True),
        ({"kind": "answer", "answers": ["Mia"]}, "Mia " * 16, False),
        ({"kind": "answer", "answers": ["Mrs. Hill"]}, "Mrs. Hill", True),
        # number
        ({"kind": "number", "value": 3}, "3", True),
        ({"kind": "number", "value": 3}, "There are three words.", True),
        ({"kind": "number", "value": 3}, "three or four", False),
        ({"kind": "number", "value": 3}, "13", False),
        ({"kind": "number", "value": 3}, "", False),
        ({"kind": "number", "value": 3}, "3" * 5000, False),
        ({"kind": "number", "value": 3}, "three of the words are in the long list", False),
        ({"kind": "number", "value": 3}, "-3", False),
        ({"kind": "number", "value": -3}, "It is -3.", True),
        ({"kind": "number", "value": 3}, "thirty-three", False),
        ({"kind": "number", "value": 3}, "3-4", False),
        # chinese
        ({"kind": "chinese", "answers": ["猫"]}, "猫", True),
        ({"kind": "chinese", "answers": ["猫"]}, "It is 猫.", True),
        ({"kind": "chinese", "answers": ["猫"]}, "猫头鹰", False),
        ({"kind": "chinese", "answers": ["猫"]}, "cat", False),
        # list
        ({"kind": "list", "count": 2, "members": MEMBERS}, "apple, pear", True),
        ({"kind": "list", "count": 2, "members": MEMBERS}, "Apples and pears.", True),
        ({"kind": "list", "count": 2, "members": MEMBERS}, "1. an apple\n2. a plum", True),
        ({"kind": "list", "count": 3, "members": MEMBERS}, "- apple\n- pear\n- plum", True),
        ({"kind": "list", "count": 3, "members": MEMBERS}, "apple, pear, and plum", True),
        ({"kind": "list", "count": 2, "members": MEMBERS}, "Apple AND pear", True),
        ({"kind": "list", "count": 2, "members": MEMBERS}, "apple, apple", False),
        ({"kind": "list", "count": 2, "members": MEMBERS}, "apple, apples", False),
        ({"kind": "list", "count": 3, "members": MEMBERS}, "apple, pears, pear", False),
        ({"kind": "list", "count": 2, "members": MEMBERS}, "apple", False),
        ({"kind": "list", "count": 2, "members": MEMBERS}, "apple, pear, plum", False),
        ({"kind": "list", "count": 2, "members": MEMBERS}, "apple, chair", False),
        # sentence
        ({"kind": "sentence", "words": ["cat", "box"]}, "The cat slept in a box.", True),
        ({"kind": "sentence", "words": ["cat", "box"]}, "Mr. Hill put the cat into the box.", True),
        ({"kind": "sentence", "words": ["cat"]}, '"I saw a cat!" said Mia.', True),
        ({"kind": "sentence", "words": ["cat", "box"]}, "The cat slept.", False),
        ({"kind": "sentence", "words": ["cat"]}, "The cat slept. It was late.", False),
        ({"kind": "sentence", "words": ["cat"]}, "the cat slept in a box.", False),
        ({"kind": "sentence", "words": ["cat"]}, "The cat slept in a box", False),
        ({"kind": "sentence", "words": ["cat"], "absent": ["dog"]}, "The cat saw a dog.", False),
        ({"kind": "sentence", "words": ["cat"]}, "The cat " * 21 + ".", False),
        # story
        ({"kind": "story", "name": "Mia", "words": ["kind", "kite"]}, STORY, True),
        ({"kind": "story", "name": "Tom", "words": ["kite"]}, STORY, False),
        ({"kind": "story", "name": "Mia", "words": ["drum"]}, STORY, False),
        ({"kind": "story", "name": "Mia", "words": ["kite"]}, STORY[:-1], False),
        ({"kind": "story", "name": "Mia", "words": ["kite"]}, STORY.split(" One day")[0], False),
    ],
)
def test_replies(check, reply, passes):
    assert checkers.score({"check": check, "reply": reply}) is passes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One.", 1),
        ("No end", 1),
        ("One. Two", 2),
        ('"Stop!" he said.', 1),
        ('He said, "Stop! Now."', 2),
        ("Mr. Hill met Mrs. Brown. They talked.", 2),
        ('"Who is there?" asked Tom. "Me," said Mia.', 2),
    ],
)
def test_sentences_are_counted(text, count):
    assert checkers.sentences(text) == count


@given(st.text(max_size=80), st.sampled_from(sorted(checkers.CHECKERS)))
def test_any_reply_is_scored_without_an_error(reply, kind):
    check = {"kind": kind, "answers": ["x"], "value": 3, "count": 2, "members": ["a"], "words": ["cat"], "name": "Mia"}
    assert checkers.score({"check": check, "reply": reply}) in (True, False)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"reply": "x"}, "check"),
        ({"check": {"kind": "exact", "answers": []}}, "reply"),
        ({"check": {"kind": "exact", "answers": []}, "reply": 3}, "reply"),
        ({"check": {"kind": "magic"}, "reply": "x"}, "magic"),
        ({"check": {}, "reply": "x"}, "unknown kind"),
        ({"check": {"kind": "exact"}, "reply": "x"}, "answers"),
        ({"check": {"kind": "story", "name": "Mia"}, "reply": STORY}, "words"),
        ({"check": {"kind": ["x"]}, "reply": "x"}, r"unknown kind of check \['x'\]"),
        ({"check": {"kind": "exact", "answers": 5}, "reply": "x"}, '"answers" of the check is 5, wanted a list of str'),
        ({"check": {"kind": "answer", "answers": ["x"], "wrong": None}, "reply": "x"}, '"wrong" of the check is null'),
        ({"check": {"kind": "sentence", "words": [1]}, "reply": "A b c d."}, r'"words" of the check is \[1\], wanted'),
        ({"check": {"kind": "story", "name": 3, "words": []}, "reply": STORY}, '"name" of the check is 3, wanted a st'),
        ({"check": {"kind": "number", "value": "3"}, "reply": "3"}, '"value" of the check is "3", wanted a whole num'),
    ],
)
def test_malformed_records_are_refused(record, words):
    with pytest.raises(checkers.InputError, match=words):
        checkers.score(record)


def line(model="lora", family="opposite", reply="small", **more):
    check = {"kind": "exact", "answers": ["small"]}
    return json.dumps({"model": model, "family": family, "check": check, "reply": reply, **more})


def test_shares_and_macro_average(tmp_path):
    path = tmp_path / "replies.jsonl"
    path.write_text("\n".join([line(), line(reply="big"), line(family="plural"), line(model="base", reply="big"), ""]))
    result = checkers.summary(checkers.score_file(path))
    assert result["lora"] == {"families": {"opposite": 0.5, "plural": 1.0}, "macro_average": 0.75, "records": 3}
    assert result["base"]["macro_average"] == 0.0
    table = checkers.table(result).splitlines()
    assert table[0].split() == ["lora", "base"]
    assert table[1].split() == ["opposite", "50.0%", "0.0%"]
    assert table[2].split() == ["plural", "100.0%", "-"]
    assert table[3].split() == ["macro", "average", "75.0%", "0.0%"]
    assert len({len(row) for row in table}) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no replies"),
        (line() + "\n{oops\n", "line 2: not JSON"),
        (line() + "\n\n[1]\n", "line 3: needs an object"),
        (json.dumps({"model": "a", "check": {}, "reply": ""}), 'line 1: needs an object with "model" and "family"'),
        (line(check={"kind": "magic"}), "line 1: unknown kind of check 'magic'"),
        (line() + "\n" + line(check={"kind": "exact", "answers": 5}), 'line 2: "answers" of the check is 5'),
        ('{"model": ' + "1" * 5000 + "}", "line 1: a whole number of more than 4300 digits"),
        (line(reply=None), "line 1: a record needs"),
        (line() + "\n" + "[" * 100_000, "line 2: JSON nested too deeply"),
    ],
)
def test_bad_files_are_refused_with_the_line(tmp_path, text, message):
    path = tmp_path / "replies.jsonl"
    path.write_text(text, encoding="utf-8")
    run = command(path)
    assert run.returncode == 2 and not run.stdout
    assert run.stderr.startswith(f"error: {path}") and message in run.stderr
    assert "Traceback" not in run.stderr and len(run.stderr.splitlines()) <= 2


def command(*arguments):
    line = [sys.executable, str(ROOT / "data" / "checkers.py"), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_command_prints_the_table_and_writes_json(tmp_path):
    path, scores = tmp_path / "replies with space.jsonl", tmp_path / "new" / "scores.json"
    path.write_text(line() + "\n" + line(reply="big"), encoding="utf-8")
    run = command(path, "--json", scores)
    assert run.returncode == 0, run.stderr
    assert "opposite" in run.stdout and "50.0%" in run.stdout
    assert json.loads(scores.read_text())["lora"]["macro_average"] == 0.5


def test_scores_replace_neither_replies_nor_devices_nor_links(tmp_path):
    path = tmp_path / "replies.jsonl"
    path.write_text("\ufeff" + line(), encoding="utf-8")  # a byte order mark, as Windows begins files
    (tmp_path / "link.json").symlink_to("real.json")
    os.mkfifo(tmp_path / "pipe")
    for name in ("replies.jsonl", "pipe"):
        run = command(path, "--json", tmp_path / name)
        assert run.returncode == 2 and f"{name}: is the replies, or no file" in run.stderr
    assert command(path, "--json", tmp_path / "link.json").returncode == 0
    assert (tmp_path / "link.json").is_symlink() and "lora" in json.loads((tmp_path / "real.json").read_text())


@pytest.mark.parametrize("what", ["missing", "folder", "not utf-8"])
def test_unreadable_files(tmp_path, what):
    path = tmp_path / "replies.jsonl"
    if what == "folder":
        path.mkdir()
    elif what == "not utf-8":
        path.write_bytes(b'{"model": "\xff"}')
    run = command(path)
    assert run.returncode == 2 and run.stderr.startswith("error:") and "Traceback" not in run.stderr
    assert str(path) in run.stderr
