"""Lessons: short documents in which children learn words, so that the model meets every entry of the lexicon.

They say in sentences what the tasks later ask for: opposites, plurals, Chinese words, kinds, sounds, colors, counting,
the order of the alphabet, and what happened yesterday.
"""

# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable

from story_grammar import AN, ROWS, Random, choose
from story_lexicon import COLOR_OF, COLORS, NOUNS, NUMBERS, OPPOSITES, SOUNDS, VERBS
from story_words import BOYS, GIRLS, SURNAMES

OPENINGS = [
    "At school, {T} talked with the children about {topic}.",
    "Today the class of {T} learned about {topic}.",
    "{A} sat in the front row, because today {T} wanted to talk about {topic}.",
    '"What do you know about {topic}?" {T} asked the class.',
    "It was raining outside, so {T} and the children played a game about {topic}.",
    "{A} loved the lessons of {T}. This morning they were about {topic}.",
    '"Let us talk about {topic}," said {T}.',
    "On the way home, {A} and {B} talked about {topic}.",
    "{A} had a little book about {topic}. In the evening, {A} read it aloud to {B}.",
]
CLOSINGS = [
    '"Well done, everyone," said {T}.',
    "{A} was proud to know so much.",
    '"Now we all know a little more," said {B}.',
    "Then the bell rang, and the children ran outside.",
    "{A} could not wait to tell it all at home.",
    '"I will remember that," said {B}.',
    "At home, {A} said it all again, and nothing was wrong.",
    '"You are clever children," said {T}.',
]
AT_HOME = ["{A} was proud to know so much.", '"Now we both know a little more," said {B}.', "They laughed and went on.",
           '"I will remember that," said {B}.', '"Let us do this again tomorrow," said {A}.']  # fmt: skip
SAY = ['"{}," said {A}.', '"{}," said {B}.', '"{}," said {T}.', "{}.", "{}.", "{}.", '"{}," {A} read.', '"{}," added {B}.']


def upper_first(text: str) -> str:
    """`the cat` -> `The cat`."""
    return text[0].upper() + text[1:]


def opposite(rnd: Random) -> str:
    """A pair of opposites in a sentence."""
    x, y = choose(rnd, OPPOSITES)
    if rnd() < 0.5:
        x, y = y, x
    return choose(rnd, [f"the opposite of {x} is {y}", f"{x} is the opposite of {y}", f"{x} and {y} are opposites",
                        f"if it is not {x}, then it may be {y}", f"not {x} but {y}"])  # fmt: skip


def plural(rnd: Random) -> str:
    """One and many."""
    one, many, *_ = choose(rnd, NOUNS)
    n = NUMBERS[2 + int(rnd() * 8)]
    return choose(rnd, [f"one {one}, {n} {many}", f"here is one {one}, and there are {n} {many}", f"a {one} and a {one} make two {many}",
                        f"I saw one {one} and then {n} {many}", f"the plural of {one} is {many}",
                        f"one is a {one}, but two are {many}"])  # fmt: skip


def chinese(rnd: Random) -> str:
    """A word and its Chinese translation."""
    english, translation = choose(rnd, CHINESE_WORDS)
    return choose(rnd, [f"the Chinese word for {english} is {translation}", f"in Chinese, {english} is {translation}",
                        f"{translation} means {english}", f"{english} in Chinese is {translation}",
                        f"the word {english} is {translation} in Chinese"])  # fmt: skip


def kind(rnd: Random) -> str:
    """What kind of thing a thing is."""
    one, _, _, group = choose(rnd, NOUNS)
    other = choose(rnd, NOUNS)
    same = other[3] == group and other[0] != one
    rest = f"a {one} is a {group}, and so is a {other[0]}" if same else f"a {one} is a {group}, not a {other[3]}"
    return rest if other[3] != group or same else f"a {one} is a {group}"


def listing(rnd: Random) -> str:
    """Some things of one kind."""
    group = choose(rnd, NOUNS)[3]
    members = [noun for noun in NOUNS if noun[3] == group]
    picked: list[str] = []
    while len(picked) < 2 + int(rnd() * 4):
        word = choose(rnd, members)[0]
        if word not in picked:
            picked.append(word)
    return f"{', '.join(picked)}: each one is a {group}, and that makes {NUMBERS[len(picked)]}"


def sound(rnd: Random) -> str:
    """What an animal says."""
    animal, noise = choose(rnd, SOUNDS)
    return choose(rnd, [f"the {animal} says {noise}", f"a {animal} goes {noise}, {noise}", f"{noise} is the sound of a {animal}",
                        f"when you hear {noise}, there is a {animal}"])  # fmt: skip


def color(rnd: Random) -> str:
    """The color of a thing."""
    thing, shade = choose(rnd, COLOR_OF)
    return choose(rnd, [f"the color of the {thing} is {shade}", f"{shade} like the {thing}", f"the {thing} is {shade}",
                        f"paint the {thing} {shade}"])  # fmt: skip


def alphabet(rnd: Random) -> str:
    """Three words in the order of the alphabet."""
    picked: list[str] = []
    while len(picked) < 3:
        word = choose(rnd, NOUNS)[0]
        if word[0] not in [other[0] for other in picked]:
            picked.append(word)
    first, second, third = sorted(picked)
    return choose(rnd, [f"{first}, {second}, {third} is the right order", f"first {first}, then {second}, then {third}",
                        f"{first} comes before {second}, and {second} comes before {third}",
                        f"{first[0]} is for {first}, {second[0]} is for {second} and {third[0]} is for {third}"])  # fmt: skip


def yesterday(rnd: Random) -> str:
    """The same thing today and yesterday."""
    present, past, tails = choose(rnd, VERBS)
    tail = choose(rnd, tails)
    who, his = (choose(rnd, GIRLS), "her") if rnd() < 0.5 else (choose(rnd, BOYS), "his")
    tail = tail.replace("{P}", his)
    return choose(rnd, [f"today {who} {present} {tail}, and yesterday {who} {past} {tail}", f"yesterday {who} {past} {tail}",
                        f"every day {who} {present} {tail}"])  # fmt: skip


def memory_game(rnd: Random) -> tuple[str, str]:
    """(key, text) of a game in which children say lists of words after each other.

    Each second list can be foretold from the one before it: copying is what a small model learns last and needs most.
    """
    a, b = choose(rnd, GIRLS), choose(rnd, BOYS)
    title = choose(rnd, ["Mrs. ", "Mr. "]) + choose(rnd, SURNAMES)
    first, second = (a, b) if rnd() < 0.5 else (b, a)
    lines = [choose(rnd, MEMORY_OPENINGS).format(T=title, A=first, B=second)]
    for _ in range(3 + int(rnd() * 4)):
        said = upper_first(", ".join(choose(rnd, WORDS) for _ in range(3 + int(rnd() * 5))))
        lines += [f'"{said}," said {first}.', f'"{said}," said {second}.']
    lines.append(choose(rnd, [f"{second} remembered every word.", '"Well done," said ' + first + ".", "They laughed and went home."]))
    return f"memory|{lines[1]}", " ".join(lines)


MEMORY_OPENINGS = [
    "{A} and {B} played a memory game. {A} said some words, and {B} said them again.",
    "Today {T} showed the class a game. {A} had to say words, and {B} had to remember them.",
    "On a rainy day, {A} and {B} played a game with words.",
    '"Say what I say," said {A}. "I will," said {B}.',
]
WORDS = [noun[0] for noun in NOUNS] + [color for color, _ in COLORS] + GIRLS + BOYS
CHINESE_WORDS = [(noun[0], noun[2]) for noun in NOUNS] + [pair for pair in COLORS if pair[0] != "orange"]
# What the lesson is about, how a fact of it is made, and its weight.
TOPICS: list[tuple[str, Callable[[Random], str], int]] = [
    ("opposites", opposite, 3),
    ("one and many", plural, 3),
    ("Chinese words", chinese, 6),
    ("kinds of things", kind, 2),
    ("lists of things", listing, 2),
    ("animal sounds", sound, 1),
    ("colors", color, 1),
    ("ABC order", alphabet, 2),
    ("today and yesterday", yesterday, 2),
]
WEIGHTED = [(topic, fact) for topic, fact, weight in TOPICS for _ in range(weight)]


def lesson(rnd: Random) -> tuple[str, str]:
    """(key, text) of one lesson of four to eight facts."""
    topic, fact = choose(rnd, WEIGHTED)
    names = {"T": choose(rnd, ["Mrs. ", "Mr. "]) + choose(rnd, SURNAMES), "A": choose(rnd, ROWS["A", "child"])["A"]}
    names["B"] = choose(rnd, ROWS["A", "child"])["A"]
    while names["B"] == names["A"]:
        names["B"] = choose(rnd, ROWS["A", "child"])["A"]
    opening = choose(rnd, OPENINGS)
    there = "{T}" in opening  # the teacher speaks only where there is one
    lines = [opening.format(topic=topic, **names)]
    facts: list[str] = []
    while len(facts) < 4 + int(rnd() * 5):
        made = upper_first(AN.sub(r"\1n ", fact(rnd)))
        if made not in facts:
            facts.append(made)
    says = SAY if there else [form for form in SAY if "{T}" not in form]
    lines += [choose(rnd, says).format(made, **names) for made in facts]
    lines.append(choose(rnd, CLOSINGS if there else AT_HOME).format(**names))
    return f"lesson|{facts[0]}", " ".join(lines)
