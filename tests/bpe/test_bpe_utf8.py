"""The compiled UTF-8 against str.encode."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from utf8 import AT_A_TIME, write_utf8

LARGEST = ["\x7f", "\xff", "\uffff", "\U0010ffff"]  # of a str of one byte a character (ASCII or not), two, four


def converted(text: str, start: int, end: int) -> bytes:
    out = np.zeros(4 * (end - start), np.uint8)
    size = write_utf8(text, start, end, out)
    assert not out[size:].any()
    return out[:size].tobytes()


@given(st.sampled_from(LARGEST), st.text(st.characters(), max_size=60), st.data())
def test_any_part_of_any_text(largest, text, data):
    text = "".join(min(c, largest) for c in text) + "plain letters " * 3 + largest + text
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    assert converted(text, start, end) == text[start:end].encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("largest", LARGEST)
def test_every_place_of_one_character_among_ascii(largest):
    size = 2 * int(AT_A_TIME) + 3
    for place in range(size):
        text = "a" * place + largest + "b" * (size - place)
        assert converted(text, 0, len(text)) == text.encode()


def test_every_code_point_surrogates_too():
    text = "".join(map(chr, range(0x110000)))
    assert converted(text, 0, len(text)) == text.encode("utf-8", "surrogatepass")
