"""Lays out the replies of several models: columns side by side where the terminal is wide enough, sections elsewhere.

Widths are in terminal cells: a Chinese character takes two, a combining mark none.
"""

import re
import unicodedata
from itertools import zip_longest

GAP = " │ "
NARROWEST = 26  # cells; columns narrower than this are hard to read
NOT_FIRST = "。，、！？；：）》」』”’…"  # never begin a line with these
PIECES = re.compile(r"[ ]+|[^ ]")  # a run of spaces, or one character


def cell_width(text):
    """Terminal cells that `text` takes: `cell_width("a中") == 3`."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text)


def printable(text):
    """`text` without control characters, so that no reply can move the cursor or colour the terminal."""
    text = text.replace("\r\n", "\n").expandtabs(4)
    return "".join(c if c == "\n" or unicodedata.category(c) != "Cc" else "�" for c in text)


def words(line):
    """Units between which `line` may break: words, runs of spaces, single wide characters."""
    unit = ""
    for piece in PIECES.findall(line):
        wide = cell_width(piece) == 2
        if unit and piece not in NOT_FIRST and (wide or piece.isspace() or unit.isspace() or cell_width(unit[-1]) == 2):
            yield unit
            unit = ""
        unit += piece
    if unit:
        yield unit


def wrap(text, width):
    """Lines of at most `width` cells; breaks at spaces and beside wide characters, inside a word only if it must.

    `wrap("one two", 5) == ["one", "two"]`, `wrap("中文字", 4) == ["中文", "字"]`
    """
    lines = []
    for paragraph in printable(text).split("\n"):
        line = ""
        for word in words(paragraph):
            if cell_width(line + word) <= width:
                line += word
                continue
            if line.strip():
                lines.append(line.rstrip())
            line = "" if word.isspace() else word
            while cell_width(line) > width:
                cut = next(i for i in range(len(line), 0, -1) if cell_width(line[:i]) <= width or i == 1)
                lines.append(line[:cut])
                line = line[cut:]
        lines.append(line.rstrip())
    return lines


def pad(line, width):
    """`line` with spaces up to `width` cells."""
    return line + " " * (width - cell_width(line))


def columns(replies, width):
    """{name: reply} as columns side by side, `width` cells in all; None where the columns would be too narrow."""
    each = (width - len(GAP) * (len(replies) - 1)) // len(replies)
    if each < NARROWEST:
        return None
    blocks = [[*wrap(name, each), "─" * each, *wrap(reply.strip(), each)] for name, reply in replies.items()]
    rows = zip_longest(*blocks, fillvalue="")
    return "\n".join(GAP.join(pad(cell, each) for cell in row).rstrip() for row in rows)


def sections(replies, width):
    """{name: reply} one under the other, lines of at most `width` cells."""
    return "\n\n".join("\n".join([f"[{name}]", *wrap(reply.strip(), width)]) for name, reply in replies.items())


def side_by_side(prompt, replies, width, terminal):
    """The prompt and {name: reply} below it, as columns if this is a `terminal` of enough `width` (cells)."""
    replies = {name: reply if reply.strip() else "(no words: it ended at once)" for name, reply in replies.items()}
    body = (columns(replies, width) if terminal else None) or sections(replies, width)
    head = "\n".join(wrap("> " + prompt.strip(), width))
    return f"{'═' * width}\n{head}\n\n{body}\n"
