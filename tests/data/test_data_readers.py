"""data/readers.py and kinds.py: every format gives back the documents put in; faults are named by file and place."""

import codecs
import gzip
import json
import shlex
import subprocess
import sys
import tracemalloc
from collections import Counter

import kinds
import pyarrow
import pyarrow.parquet
import pytest
import readers
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import Reading, find_files, records, text_documents
from staging import MARKER, InputError

TEXTS = ["One day, a cat.", "第二个故事\n两行", "naïve café 🦊", "a\r\nb", "\ttabs and \0 NUL"]


def write(path, content):
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read_texts(path, **how):
    if readers.suffix_of(path) in readers.TEXT_SUFFIXES:
        return [document.decode().strip("\n") for document in text_documents(path, Reading(**how))]
    return [record["text"] for _, record in records(path, Reading(**how))]


@pytest.mark.parametrize("between", [f"\n{MARKER}\n", MARKER, f"{MARKER}\n"])
@pytest.mark.parametrize("name", ["a.txt", "A.TXT.gz"])
def test_text_separators(tmp_path, name, between):
    path = write(tmp_path / name, between.join(TEXTS) + between)
    assert read_texts(path) == TEXTS
    assert read_texts(write(path, between.join(TEXTS))) == TEXTS  # none after the last document


def test_records_of_every_format(tmp_path):
    rows = [{"text": text, "other": n} for n, text in enumerate(TEXTS)]
    lines = "\n".join(json.dumps(row, ensure_ascii=n % 2 == 0) for n, row in enumerate(rows))
    paths = [
        write(tmp_path / "a.jsonl", lines + "\n"),
        write(tmp_path / "b.jsonl.gz", lines.replace("\n", "\r\n\r\n")),  # blank lines, CRLF, no last line break
        write(tmp_path / "c.json", json.dumps(rows, indent=2)),
        write(tmp_path / "d.json.gz", codecs.BOM_UTF8 + json.dumps(rows).encode()),
        write(tmp_path / "e.json", lines),  # JSON lines under the name of an array
        tmp_path / "f.parquet",
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), paths[-1], row_group_size=2)
    for path in paths:
        assert read_texts(path) == TEXTS, path.name
    _, row = next(records(paths[-1], Reading(), ["text", "absent"]))
    assert row == {"text": TEXTS[0]}  # other columns are not even read


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip("\r\n"))


@settings(max_examples=60, deadline=None)
@given(st.lists(ANY_TEXT, min_size=2), st.integers(1, 40))
def test_any_text_survives_any_chunk_size(tmp_path_factory, texts, chunk):
    texts = [text.replace(MARKER, "").strip("\r\n").removeprefix("\ufeff") or "x" for text in texts]
    path = tmp_path_factory.mktemp("chunks") / "a.txt"
    path.write_bytes(MARKER.join(texts).encode())
    before, readers.CHUNK = readers.CHUNK, chunk
    try:
        found = [document.decode() for document in text_documents(path, Reading())]
    finally:
        readers.CHUNK = before
    while texts and not texts[-1].encode().strip():
        texts.pop()  # blanks after the last marker are nothing
    assert found[: len(texts)] == texts and all(not document.strip() for document in found[len(texts) :])


def test_memory_is_bounded_by_a_document(tmp_path):
    path = write(tmp_path / "a.txt.gz", (("x" * 1000 + "\n") * 50 + MARKER + "\n") * 1000)  # 50 MB of text
    tracemalloc.start()
    assert sum(1 for _ in text_documents(path, Reading())) == 1000
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.stop()


def test_endless_document_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LARGEST_DOCUMENT", 2_000_000)
    path = write(tmp_path / "a.txt", "word " * 800_000)
    with pytest.raises(InputError, match=r"a\.txt: no '<\|endoftext\|>' in 2 MB from byte 0 .*--separator"):
        list(text_documents(path, Reading()))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.json"])
def test_bad_utf8_is_named_by_byte_or_replaced(tmp_path, name):
    good = f"fine{MARKER}" if ".txt" in name else '[{"text": "fine"},\n' if name == "a.json" else '{"text": "fine"}\n'
    start, end = ("", "") if ".txt" in name else ('{"text": "', '"}]' if name == "a.json" else '"}')
    path = write(tmp_path / name, (good + start).encode() + b"b\xffd\xc3" + end.encode())
    where = len((good + start).encode()) + 1
    with pytest.raises(InputError, match=rf"{name}: not UTF-8, byte {where} .*0xFF.*--errors replace"):
        read_texts(path)
    reading = Reading(errors="replace")
    found = (
        [d.decode() for d in text_documents(path, reading)]
        if ".txt" in name
        else [record["text"] for _, record in records(path, reading)]
    )
    assert found == ["fine", "b\ufffdd\ufffd"]
    assert reading.noticed == {"faults in UTF-8, now U+FFFD": 2}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a"}\n\n{"text": }', r"a\.jsonl line 3, column 10: not JSON"),
        ("a.jsonl", '{"text": "a"}\n[1]', r"line 2: wanted an object with named fields, found list"),
        ("a.json", '[{"text": "a"},\n {"text": "b"}', r"a\.json, line 2, column \d+: not JSON"),
        ("a.json", "[1]", "record 1: wanted an object"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.jsonl", '{"a": 1}\n{"a": ' + "1" * 5000 + "}", r"a\.jsonl line 2: a whole number of more than 4300 digits"),
        ("a.parquet", "PAR1 no", "not a readable Parquet file"),
        ("a.jsonl.gz", None, "damaged gzip file"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b'{"text": "abc"}' * 1000)[:40] if content is None else content.encode())
    with pytest.raises(InputError, match=message):
        list(records(path, Reading()))


def test_utf16_is_told(tmp_path):
    with pytest.raises(InputError, match="iconv -f UTF-16"):
        read_texts(write(tmp_path / "a.txt", "hi".encode("utf-16")))


def test_find_files(tmp_path):
    for name in ("b.txt", "a/z.jsonl", "a/.hidden.txt", ".cache/x.txt", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, "x")
    assert find_files([tmp_path]) == [tmp_path / "a/z.jsonl", tmp_path / "b.txt"]
    assert find_files([tmp_path / "b.txt", tmp_path]) == [tmp_path / "b.txt", tmp_path / "a/z.jsonl"]
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/folder").symlink_to(tmp_path / "a")
    (tmp_path / "linked/loop").symlink_to(tmp_path / "linked")
    assert find_files([tmp_path / "linked"]) == [tmp_path / "linked/folder/z.jsonl"]
    (tmp_path / "none").mkdir()
    (tmp_path / "empty.txt").touch()
    for path, message in (
        ("none", "no file in this folder ends in"),
        ("empty.txt", "is empty"),
        ("missing.txt", "no such file"),
        ("picture.png", "told by the ending"),
    ):
        with pytest.raises(InputError, match=message):
            find_files([tmp_path / path])


def test_files_of_other_endings_in_a_folder_are_counted(tmp_path):
    for name in ("a.txt", "b.md", "c.csv", ".hidden.md"):
        write(tmp_path / name, "x")
    noticed = Counter()
    assert find_files([tmp_path], noticed) == [tmp_path / "a.txt"]
    ((what, count),) = noticed.items()
    assert (count, str(tmp_path) in what, "b.md" in what) == (2, True, True)
    assert find_files([tmp_path / "a.txt"], noticed) and noticed.total() == 2


def test_rows_of_excel_s_table_become_records(tmp_path):
    path = write(tmp_path / "a.csv", '\ufeffinstruction;output\r\n"one; two";"""2"", say,\nwe"\r\n')
    with pytest.raises(InputError) as error:
        find_files([path])
    command = str(error.value).split("first: ")[1].replace("python", shlex.quote(sys.executable))
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    read = [record for _, record in records(tmp_path / "rows.jsonl", Reading())]
    assert read == [{"instruction": "one; two", "output": '"2", say,\nwe'}]


@pytest.mark.parametrize("name, between", [("a.csv", ","), ("a.tsv.gz", "\t"), ("my table's.csv", ",")])
def test_rows_of_a_table_become_records(tmp_path, name, between):
    path = write(tmp_path / name, f'text{between}n\n"one, ""two"""{between}1\n')
    with pytest.raises(InputError, match="is a table; make JSON lines of its rows first: ") as error:
        find_files([path])
    command = str(error.value).split("first: ")[1].replace("python", shlex.quote(sys.executable))
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    read = [record for _, record in records(tmp_path / "rows.jsonl", Reading())]
    assert read == [{"text": 'one, "two"', "n": "1"}]


def test_ndjson_is_another_name_of_jsonl(tmp_path):
    path = write(tmp_path / "a.ndjson", '{"text": "one"}\n{"text": "two"}\n')
    assert find_files([path]) == [path] and read_texts(path) == ["one", "two"]


def split_of(tmp_path, documents, share=0.5):
    noticed = Counter()
    with kinds.TextSplit(tmp_path, share, noticed) as split:
        for document in documents:
            split.add(document)
        split.settle("a.txt")
    sides = {}
    for side in ("train", "val"):
        text = (tmp_path / f"{side}.txt").read_bytes()
        assert text.endswith(f"\n{MARKER}\n".encode())
        sides[side] = text.split(f"\n{MARKER}\n".encode())[:-1]
        assert split.documents[side] == len(sides[side])
        assert split.bytes[side] == sum(map(len, sides[side]))
    return sides, noticed


def test_split_depends_on_the_document_only(tmp_path):
    documents = [f"document {n % 300}".encode() for n in range(1000)]  # each three or four times
    first, _ = split_of(tmp_path, documents)
    second, _ = split_of(tmp_path, documents[::-1])
    assert Counter(first["train"]) == Counter(second["train"])
    assert not set(first["train"]) & set(first["val"])
    assert sorted(first["train"] + first["val"]) == sorted(documents)
    assert 300 < len(first["val"]) < 700


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_both_sides_get_a_document(tmp_path, share):
    sides, _ = split_of(tmp_path, [b"one", b"two", b"three"], share)
    assert {len(side) for side in sides.values()} == {1, 2}
    assert (sides["val"] if share < 0.5 else sides["train"]) == [b"three"]


def test_only_document_is_cut_between_paragraphs(tmp_path):
    text = b"\n\n".join(b"Paragraph %d." % n for n in range(100))
    sides, noticed = split_of(tmp_path, [text], 0.1)
    assert b"\n\n".join(sides["train"] + sides["val"]) == text
    assert 0.08 < len(sides["val"][0]) / len(text) < 0.12
    assert noticed.total() == 1
    with pytest.raises(InputError, match="too few"):
        split_of(tmp_path, [b"x"])
    with pytest.raises(InputError, match="only blanks"):
        split_of(tmp_path, [b" ", b"\r\n"])


def test_marker_in_a_record(tmp_path):
    noticed = Counter()
    arguments = ({"text": f"a{MARKER}b{MARKER}c"}, "text")
    with pytest.raises(InputError, match=r"x line 1: the text has <\|endoftext\|> in it"):
        list(kinds.text_of("x line 1", *arguments, "refuse", noticed))
    assert list(kinds.text_of("", *arguments, "split", noticed)) == [b"a", b"b", b"c"]
    assert list(kinds.text_of("", *arguments, "break", noticed)) == [b"a<|endoftext |>b<|endoftext |>c"]
    assert list(noticed.values()) == [2, 2]


GOOD_CHOICE = {"ctx": "a", "endings": ["b", "c"], "label": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"endings": ["b"]}, r"endings is \[\"b\"\], wanted a list of two or more"),
        ({"endings": ["b", 3]}, r"endings\[1\] is 3, wanted a string"),
        ({"label": 2}, "label is 2, wanted the number of an ending, 0 to 1"),
        ({"label": ""}, 'label is ""'),
        ({"label": True}, "label is true, wanted the number of an ending"),
        ({"ctx": None}, "ctx is null, wanted a string"),
    ],
)
def test_choice_faults(change, message):
    with pytest.raises(InputError, match="^here: " + message):
        kinds.choice_of("here", GOOD_CHOICE | change)


def test_choice_is_kept():
    assert kinds.choice_of("", {**GOOD_CHOICE, "label": "1", "x": 1}) == {"ind": None, **GOOD_CHOICE}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"instruction": "a"}, "found the fields 'instruction'; wanted instruction"),
        ({"instruction": "", "output": "b"}, "instruction is empty"),
        ({"instruction": "a", "input": 3, "output": "b"}, "input is 3, wanted a string"),
        ({"prompt": "a", "completion": None}, "completion is null"),
        ({"text": "a", "label": 0.5}, "label is 0.5, wanted a string or a whole number"),
        ({"instruction": "\ud83d", "output": "b"}, "instruction has half of a surrogate pair at character 0"),
    ],
)
def test_instruction_faults(record, message):
    with pytest.raises(InputError, match="^here: " + message):
        kinds.instruction_of("here", record, None)


def test_instruction_fields():
    alpaca = {"instruction": "a", "input": None, "output": "", "text": "x", "check": {"kind": "exact"}}
    schema, kept = kinds.instruction_of("", alpaca, None)
    assert kept == {"instruction": "a", "input": "", "output": "", "check": {"kind": "exact"}}
    with pytest.raises(InputError, match="as in the records before"):
        kinds.instruction_of("", {"prompt": "a", "completion": "b"}, schema)
