"""Columns and sections of replies: widths in cells, Chinese, control characters, narrow terminals."""

from hypothesis import given
from hypothesis import strategies as st
from side_by_side import cell_width, columns, pad, sections, side_by_side, wrap

REPLIES = {
    "base": "Once upon a time there was a fox. 她喜欢在花园里追蝴蝶，也喜欢睡觉。" * 3,
    "full": "从前有一只小猫。" * 9,
    "stories-lora": "Mia was a kind fox.\n\nShe lived by the river.",
}


def test_cell_width_of_wide_and_combining_characters():
    assert [cell_width(t) for t in ("", "ab", "中文", "a中", "é", "e\u0301", "。")] == [0, 2, 4, 3, 1, 1, 2]


def test_wrap_examples():
    assert wrap("one two", 5) == ["one", "two"]
    assert wrap("中文字", 4) == ["中文", "字"]
    assert wrap("中文字", 5) == ["中文", "字"]
    assert wrap("abcdefg", 3) == ["abc", "def", "g"]
    assert wrap("one\n\ntwo", 9) == ["one", "", "two"]
    assert wrap("猫猫。", 4) == ["猫", "猫。"]  # no line begins with a full stop


VISIBLE = st.characters(blacklist_categories=("Cs", "Cc", "Mn", "Me", "Cf", "Zl", "Zp", "Zs"))


@given(st.text(VISIBLE | st.just(" "), max_size=80), st.integers(2, 40))
def test_wrapped_lines_fit_and_lose_nothing_but_spaces(text, width):
    lines = wrap(text, width)
    assert all(cell_width(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_columns_fill_the_width_and_line_up():
    for width in (100, 101, 160):
        rows = columns(REPLIES, width).split("\n")
        assert all(cell_width(row) <= width for row in rows)
        each = (width - 6) // 3
        for row in rows[2:]:
            bars = [i for i, c in enumerate(row) if c == "│"]
            assert [cell_width(row[:i]) for i in bars] == [each + 1, 2 * each + 4][: len(bars)]
    assert rows[0].split() == ["base", "│", "full", "│", "stories-lora"]


def test_narrow_or_no_terminal_gives_sections():
    assert columns(REPLIES, 80) is None
    for width, terminal in ((80, True), (200, False)):
        text = side_by_side("Write a story.", REPLIES, width, terminal)
        assert "[base]" in text and "[stories-lora]\nMia was a kind fox.\n\nShe lived" in text
    assert "[base]" not in side_by_side("Write a story.", REPLIES, 120, True)
    assert sections({"m": "a b"}, 1) == "[m]\na\nb"


def test_replies_cannot_steer_the_terminal():
    text = side_by_side("hi", {"a": "\x1b[31mred\x07\r", "b": "x\ty"}, 120, True)
    assert "\x1b" not in text and "\x07" not in text and "\r" not in text and "x   y" in text


def test_pad_counts_cells():
    assert pad("中", 4) == "中  "


def test_an_empty_reply_is_said_to_be_one():
    for terminal in (True, False):
        assert "ended at once" in side_by_side("hi", {"a": " \n", "b": "words"}, 120, terminal)
