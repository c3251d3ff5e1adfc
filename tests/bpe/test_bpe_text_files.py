"""Reading text: blocks, bad UTF-8, documents, packed files."""

import gzip
import json
import time

import pytest
import text_files
from hypothesis import given, settings
from hypothesis import strategies as st
from text_files import BLOCK, Reading, blocks, documents
from vocabulary import InputError

END = b"<|endoftext|>"


def read(path, reading=None) -> list[bytes]:
    """Whole documents of a file."""
    result, parts = [], []
    for part, ends in documents(path, reading or Reading()):
        parts.append(part)
        if ends:
            result.append(b"".join(parts))
            parts = []
    assert not parts
    return result


@given(st.text(max_size=60), st.integers(1, 9))
@settings(deadline=None)
def test_blocks_join_to_the_file_and_hold_whole_characters(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("blocks") / "text.txt"
    data = text.encode("utf-8", "ignore") + "中🙂é\r\n\x00\ufeff".encode()
    path.write_bytes(data)
    parts = list(blocks(path, Reading(), size))
    assert b"".join(parts) == data
    for part in parts:
        part.decode()


@pytest.mark.parametrize("size", [1, 7, 100])
def test_text_of_jsonl_is_that_of_a_txt(tmp_path, size):
    texts = ["one 中文🙂", "two\nlines"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text, "url": "x"}) + "\n" for text in texts))
    (tmp_path / "a.txt").write_text("".join(f"{text}\n<|endoftext|>\n" for text in texts))
    parts = list(text_files.text_blocks(tmp_path / "a.jsonl", Reading(), size))
    assert b"".join(parts) == b"".join(text_files.text_blocks(tmp_path / "a.txt", Reading(), size))
    for part in parts:
        part.decode()


def test_long_documents_and_many_short_ones_of_jsonl_take_linear_time(tmp_path):
    path = tmp_path / "a.jsonl"
    for texts, size in ((["中a" * 1_000_000], 40), (["ab"] * 200_000, BLOCK)):
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        start = time.process_time()
        assert sum(map(len, text_files.text_blocks(path, Reading(), size))) == sum(
            len(text.encode()) + len(END) + 2 for text in texts
        )
        assert time.process_time() - start < 5  # what is left is moved neither for each block nor for each document


@given(st.lists(st.text("ab\n\r中<|", min_size=1, max_size=12), max_size=5), st.integers(20, 60))
@settings(deadline=None)
def test_documents_do_not_depend_on_the_block_size(tmp_path_factory, texts, size):
    path = tmp_path_factory.mktemp("documents") / "text.txt"
    path.write_bytes(b"".join(text.encode() + b"\n" + END + b"\n" for text in texts))
    whole = read(path)
    before = text_files.BLOCK
    try:
        text_files.blocks.__defaults__ = (size,)
        text_files.BLOCK = size
        assert read(path) == whole
    finally:
        text_files.BLOCK = before
        text_files.blocks.__defaults__ = (before,)
    expected = [text.removesuffix("\r").encode() for text in texts]  # "\r\n" is one line end
    assert whole == [text for text in expected if text]


def test_separators_on_lines_inside_lines_and_missing(tmp_path):
    path = tmp_path / "t.txt"
    for data, expected in {
        b"one\n<|endoftext|>\ntwo\nlines\n<|endoftext|>\n": [b"one", b"two\nlines"],
        b"one\r\n<|endoftext|>\r\ntwo\r\n<|endoftext|>\r\n": [b"one", b"two"],
        b"one<|endoftext|>two": [b"one", b"two"],
        b"\n\none\n\n<|endoftext|>\n\n two": [b"\n\none\n", b"\n two"],
        b"no separator\n": [b"no separator\n"],
        b"<|endoftext|>\n<|endoftext|>\n\n<|endoftext|>": [],
        b"": [],
    }.items():
        path.write_bytes(data)
        assert read(path) == expected, data


def test_long_documents_come_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK", 64)
    monkeypatch.setattr(text_files.blocks, "__defaults__", (64,))
    path = tmp_path / "t.txt"
    texts = ["中文" * 100, "short", "x" * 64 * 5, "é" * 77]
    path.write_text("".join(f"{text}\n<|endoftext|>\n" for text in texts))
    reading = Reading()
    assert read(path, reading) == [text.encode() for text in texts]
    assert reading.documents == 4 and reading.size == sum(len(text.encode()) for text in texts)
    assert max(len(part) for part, _ in documents(path, Reading())) <= 3 * 64


def test_packed_and_json_lines(tmp_path):
    with gzip.open(tmp_path / "t.txt.gz", "wb") as file:
        file.write("eins\n<|endoftext|>\nzwei 中".encode())
    assert read(tmp_path / "t.txt.gz") == [b"eins", "zwei 中".encode()]
    (tmp_path / "t.jsonl").write_text('{"text": "a\\nb", "n": 1}\n\n{"text": ""}\n{"text": "\\u4e2d"}\n')
    assert read(tmp_path / "t.jsonl") == [b"a\nb", "中".encode()]


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", r"line 2, column \d: not JSON"),
        ('{"txt": "a"}', 'line 2: no field "text"'),
        ('{"text": 3}', 'line 2: no field "text"'),
        ("[1]", 'line 2: no field "text"'),
        ('{"text": "\\ud800"}', r"line 2: text, byte 0 is not UTF-8"),
        ('{"text": "a", "n": ' + "1" * 5000 + "}", "line 2: JSON nested too deeply, or a number"),
        ("[" * 100_000, "line 2: JSON nested too deeply"),
    ],
)
def test_bad_json_lines_name_the_line(tmp_path, line, message):
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "fine"}) + "\n" + line + "\n")
    with pytest.raises(InputError, match=message):
        read(tmp_path / "t.jsonl")


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3(", b"\xe4\xb8", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"])
@pytest.mark.parametrize("before", [b"", b"abc ", "中文".encode() * 9])
def test_bad_utf8_names_file_and_offset_or_is_replaced(tmp_path, bad, before):
    path = tmp_path / "t.txt"
    for after in (b"", b" more"):
        path.write_bytes(before + bad + after)
        for size in (1, 2, 3, 5, 1000):
            with pytest.raises(InputError, match=rf"t\.txt: byte {len(before)} .*--errors replace"):
                list(blocks(path, Reading(), size))
        reading = Reading("replace")
        expected = (before + bad + after).decode("utf-8", "replace")
        assert b"".join(blocks(path, reading, 1000)).decode() == expected
        assert reading.replaced == expected.count("\ufffd")


def test_missing_folder_and_damaged_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "none.txt")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"some text" * 1000)[:40])
    with pytest.raises(InputError, match=r"cut\.txt\.gz: damaged or cut off gzip"):
        read(tmp_path / "cut.txt.gz")
    (tmp_path / "no.txt.gz").write_bytes(b"not packed")
    with pytest.raises(InputError, match=r"no\.txt\.gz: damaged or cut off gzip"):
        read(tmp_path / "no.txt.gz")
