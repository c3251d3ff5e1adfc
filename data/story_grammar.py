"""The grammar of the stories: how a story shape is written, compiled and drawn.

One block per shape, blocks separated by an empty line (story_shapes_*.py):

    name: A=child O=toy            the slots and the pool (story_words.py) that each one is drawn from
    text [this|that] {A} {O.facet} one of the alternatives (they nest); slots; @macro; {^O} with a capital
    / text                         begins a new paragraph, and so does a line that begins with a quote
    - text                         left out in three stories of ten, and in short ones (as is every bracket of whole
                                   sentences about A alone)
    > text                         the ending
    ? question = answer            for the instruction set
    ! who loses a {O}              what the story is about, after "a girl named Mia"; its slots occur in the story
    ~ A/B O                        slots of the ending that a multiple-choice item may replace, or exchange

{he} {him} {his} {himself} are the main character's (A's) own; {B.he} is B's. "a" becomes "an" where it must.
Chance comes only from a `random.Random(seed).random`, whose numbers are the same on every platform and version.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from story_words import POOLS

END_OF_TEXT = "<|endoftext|>"  # the line that ends a document
Random = Callable[[], float]  # random.Random(seed).random: the only source of chance

MACROS = {
    "meet": """[Once upon a time, there was a [|little |young |small ]{A.kind} named {A}. {He} lived in {H}.
|{A} was a [|little |young ]{A.kind} who lived in {H}.|In {H}, there lived a [little|young] {A.kind} named {A}.
|There was once a [little|young] {A.kind} [called|named] {A}.|{A} was a {A.kind} from {H}.]""".replace("\n", ""),
    "trait": """[Once upon a time, there was a {T} {A.kind} named {A}. {He} lived in {H}.
|{A} was a {T} {A.kind} who lived in {H}.|In {H}, there lived a {T} {A.kind} named {A}.
|There was once a {T} {A.kind} [called|named] {A}.|{A} was a {T} {A.kind} from {H}.]""".replace("\n", ""),
    "day": """[One day,|One morning,|One afternoon,|Early one morning,|One fine day,|On a warm afternoon,
|On a quiet morning,|One day after breakfast,]""".replace("\n", ""),
}
AN = re.compile(r"\b([Aa]) (?=[aeioAEIO](?!ne\b|nce\b)|[uU](?!ni|se|su)|hour|honest)")
SLOT = re.compile(r"\{(\^?[\w.]+\^?)\}")
OWN = {"he", "him", "his", "himself", "He", "His"}  # bare pronouns belong to A


def choose(rnd: Random, rows):
    """One element, each equally likely."""
    return rows[int(rnd() * len(rows))]


class Slots(dict):
    """Slot values; `^O` is `O` with a capital first letter, made when asked for."""

    def __missing__(self, key: str) -> str:
        if not key.startswith("^"):
            raise KeyError(key)
        value = self[key[1:]] % self
        return value[0].upper() + value[1:]


def slot_reference(match: re.Match) -> str:
    """`{he}` -> `%(A.he)s`: the notation of Python's own `%` operator, which fills a whole story at once."""
    key = match[1]
    if key.lstrip("^") in OWN:
        key = key.replace(key.lstrip("^"), "A." + key.lstrip("^"))
    return f"%({key})s"


def compile_text(text: str) -> list:
    """`"a [b|c]"` -> `["a ", (["b"], ["c"])]`: strings, and tuples of alternatives, which are such lists again."""
    for name, macro in MACROS.items():
        text = re.sub(rf"@{name}\b", lambda _, macro=macro: macro, text)
    text = SLOT.sub(slot_reference, text)
    position = 0

    def sequence(closing: bool) -> list[list]:
        nonlocal position
        branches: list[list] = [[]]
        while position < len(text):
            mark = text[position]
            if mark == "[":
                position += 1
                branches[-1].append(tuple(sequence(closing=True)))
            elif closing and mark in "|]":
                if mark == "]":
                    position += 1
                    return branches
                branches.append([])
                position += 1
            else:
                stop = re.compile(r"[\[|\]]" if closing else r"\[").search(text, position)
                end = stop.start() if stop else len(text)
                branches[-1].append(text[position:end])
                position = end
        if closing:
            raise ValueError(f"unclosed bracket in {text[:80]!r}")
        return branches

    return sequence(closing=False)[0]


def is_aside(part: str | tuple) -> bool:
    """Whether a bracket holds whole sentences about A alone: the story goes on without it."""
    def is_sentence(branch: list) -> bool:
        text = "".join(piece if type(piece) is str else "x" for piece in branch)
        starts = text.startswith("%(A") or text[:1].isupper()
        return starts and text.endswith((".", "!")) and not re.search(r"%\((?!A\b)", text)

    return type(part) is tuple and all(map(is_sentence, part))


def expand(parts: list, rnd: Random, out: list[str]) -> None:
    """Append the parts to `out`, one alternative of each bracket."""
    for part in parts:
        if type(part) is str:
            out.append(part)
        else:
            expand(part[int(rnd() * len(part))], rnd, out)


@dataclass
class Shape:
    """One kind of story: slots with the rows they are drawn from, and compiled lines."""

    name: str
    slots: list[tuple[str, str]]  # (slot, pool) in the order of drawing; A is the main character
    lines: list[tuple[str, list]] = field(default_factory=list)  # (mark, compiled text); mark "" or "/" or "-"
    ending: list = field(default_factory=list)
    meet_with_trait: list | None = None  # the first line for "@meet" with a trait; None where the story names T itself
    questions: list[tuple[list, list]] = field(default_factory=list)
    topic: str = ""
    space: str = " "  # between two lines of one paragraph
    swaps: list[str] = field(default_factory=list)  # slots of the ending that make a wrong ending when redrawn


@dataclass
class Story:
    """A drawn story. Its lines keep their `%(slot)s` references, so that a wrong ending is only one more `fill`."""

    shape: Shape
    slots: Slots
    key: str  # what makes its content its own: shape, main character and main thing
    lines: list[tuple[str, str]]
    ending: str
    break_before_ending: bool  # whether the ending is a paragraph of its own

    def tell(self, ending: bool = True, paragraphs: bool = True) -> str:
        """The text; `ending=False` stops before the last part, `paragraphs=False` keeps it on one line."""
        out = []
        for mark, line in self.lines:
            out += ("\n" if paragraphs and mark == "/" else self.shape.space, line)
        if ending:
            out += ("\n" if paragraphs and self.break_before_ending else self.shape.space, self.ending)
        return fill("".join(out[1:]), self.slots)


def fill(text: str, slots: Slots) -> str:
    """Text with its slots filled in (twice: a facet may name slots itself) and every "a" made "an" where it must."""
    text = text % slots
    if "%(" in text:
        text = text % slots
    return AN.sub(r"\1n ", text)


ROWS: dict[tuple[str, str], list[dict[str, str]]] = {}  # (slot, pool) -> prefixed rows, shared by all shapes


def rows_of(slot: str, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of a pool with their keys prefixed: facet "he" of slot B is "B.he", facet "" is "B".

    A word with an article gets a facet "the": `a deep pit` -> `the deep pit`.
    """
    prefixed = []
    for row in rows:
        facets = {**row, "the": re.sub(r"^an? ", "the ", row[""])}
        prefixed.append({f"{slot}.{facet}" if facet else slot: SLOT.sub(slot_reference, text)
                         for facet, text in facets.items()})  # fmt: skip
    return prefixed


def read_shapes(text: str, pools: dict[str, list[dict[str, str]]] = POOLS, space: str = " ") -> list[Shape]:
    """Shapes from their notation (see the top of this file)."""
    shapes = []
    for block in text.strip().split("\n\n"):
        head, *body = block.strip().splitlines()
        name, _, slots = head.partition(": ")
        shape = Shape(name, [tuple(part.split("=")) for part in slots.split()], space=space)
        for line in body:
            mark, rest = (line[0], line[2:]) if line[:2] in ("/ ", "- ", "> ", "? ", "~ ", "! ") else ("", line)
            if rest.startswith('"') and not mark:
                mark = "/"  # a new speaker begins a new paragraph
            if mark == ">":
                shape.ending = compile_text(rest)
            elif mark == "!":
                shape.topic = SLOT.sub(slot_reference, rest)
            elif mark == "~":
                shape.swaps = rest.split()
            elif mark == "?":
                question, _, answer = rest.partition(" = ")
                shape.questions.append((compile_text(question), compile_text(answer)))
            else:
                if rest.startswith("@meet") and "T" not in dict(shape.slots):
                    shape.slots.append(("T", "mild_trait"))
                    shape.meet_with_trait = compile_text(rest.replace("@meet", "@trait"))
                shape.lines.append((mark, compile_text(rest)))
        for slot, pool in shape.slots:
            if (slot, pool) not in ROWS:
                ROWS[slot, pool] = rows_of(slot, pools[pool])
        shapes.append(shape)
    return shapes


def draw(shape: Shape, rnd: Random) -> Slots:
    """Slot values of a new story; no two slots get the same word."""
    slots = Slots()
    for slot, pool in shape.slots:
        taken = [slots[other] for other, _ in shape.slots if other in slots]
        row = choose(rnd, ROWS[slot, pool])
        while row[slot] in taken:
            row = choose(rnd, ROWS[slot, pool])
        slots.update(row)
    return slots


def compose(shape: Shape, rnd: Random, short: bool = False, trait: bool = False) -> Story:
    """A story of this shape; `short` leaves out all that can be left out, `trait` always names A's trait T."""
    slots = draw(shape, rnd)
    lines = []
    shape_lines = shape.lines
    if shape.meet_with_trait and (rnd() < 0.4 or trait):
        shape_lines = [("", shape.meet_with_trait), *shape_lines[1:]]
    for mark, parts in shape_lines:
        if mark == "-" and (short or rnd() < 0.3):
            continue
        out: list[str] = []
        expand([part for part in parts if not is_aside(part)] if short else parts, rnd, out)
        lines.append((mark, " ".join("".join(out).split()) if short else "".join(out)))
    ending: list[str] = []
    expand(shape.ending, rnd, ending)
    key = f"{shape.name}|{slots['A']}|{slots[shape.slots[1][0]]}"
    return Story(shape, slots, key, lines, "".join(ending), rnd() < 0.5)
