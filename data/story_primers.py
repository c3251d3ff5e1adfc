"""Primers: the first pages of the corpus, a few names and things said again and again, as in a child's first reader.

In a story a name is a few tokens in a hundred, too rare for a small model to find out in minutes that it is to be taken
from the page: without primers it learns the 57 story shapes by heart and draws a new name in every sentence. Training
reads the primers first (pretrain's `--curriculum`; Bengio et al. 2009, "Curriculum learning"), and what they teach
stays: NOTES.md has the measurements.
"""

# ruff: noqa: E501, SIM905

from __future__ import annotations

from story_grammar import AN, Random, choose
from story_lessons import WEIGHTED, memory_game, upper_first
from story_lexicon import COLORS, NOUNS
from story_words import ANIMAL_BOYS, ANIMAL_GIRLS, BOYS, GIRLS, SURNAMES

CHILDREN, ANIMALS = GIRLS + BOYS, ANIMAL_GIRLS + ANIMAL_BOYS
ADULTS = [f"{title} {surname}" for title in ("Mrs.", "Mr.") for surname in SURNAMES]
FOOD = [one for one, _, _, group in NOUNS if group in ("fruit", "vegetable", "kind of food")]
THINGS = [one for one, _, _, group in NOUNS
          if group in ("animal", "toy", "piece of clothing", "vehicle", "thing at school", "thing in the house")]
COLOR = [color for color, _ in COLORS]
TASTE = ["sweet", "fresh", "big", "small", "ripe", "warm"]
VERBS = "run jump sing swim read write dance play climb cook paint laugh hide dig draw skip wait sleep ride count".split()
PLACES = """in the park, at school, at home, by the river, in the garden, in the kitchen, under the tree, on the hill,
at the market, by the lake, in the forest, near the door""".replace("\n", " ").split(", ")

# {A} has one thing {o} with one quality {c}, is in one place {l} and does one thing {v}.
FACTS = ["{A} has a {c} {o}.", "{A} has a {o}. It is {c}.", "{A} is {l}.", "{A} can {v}.", "The {o} of {A} is {c}.",
         "The {c} {o} is for {A}.", "See {A}. {A} is {l}.", "Look at {A}. {A} has a {c} {o}."]  # fmt: skip
ABOUT_ONE = [
    "Look at {A}.", "See {A} {v}.", "{V}, {A}, {v}!", "Look, {A}, look!", "Is that {A}? Yes, that is {A}.", "Come here, {A}.",
    "Oh, {A}! Funny {A}!", '"I am {A}," said {A}.', '"I can {v}," said {A}.', "Good morning, {A}.", "Good night, {A}.",
    '"My name is {A}," said {A}. "I have a {o}."', "Who can {v}? {A} can {v}.", "Who is {l}? {A} is {l}.",
    "Who has a {o}? {A} has a {o}.", "What does {A} have? {A} has a {c} {o}.", "Where is {A}? {A} is {l}.",
    "What can {A} do? {A} can {v}.", 'The teacher asked, "{A}, where is your {o}?" "My {o} is {l}," said {A}.',
    "{A} likes the {c} {o}.", "Then {A} took the {c} {o} and smiled.", "One day, {A} lost the {o}. Then {A} found the {o} {l}.",
]  # fmt: skip
ABOUT_TWO = [
    "See {A} and {B}.", "{A} sees {B}. {B} sees {A}.", "{A} likes {B}, and {B} likes {A}.", "{A} and {B} play {l}.",
    '"Look, {B}," said {A}.', '"Come and {v}, {B}," said {A}.', '"Where is {B}?" asked {A}. "Here I am, {A}," said {B}.',
    '"Thank you, {B}," said {A}. "You are welcome, {A}," said {B}.', "{A} gives the {c} {o} to {B}. {B} smiles.",
    '"What do you have, {A}?" asked {B}. "I have a {c} {o}," said {A}.', '"Who is {l}?" asked {B}. "I am," said {A}.',
    '"Is this your {o}, {A}?" asked {B}. "Yes, {B}, that is my {o}," said {A}.', "{A} helps {B}. {B} helps {A}.",
    'Then {B} said, "I like your {c} {o}, {A}."', "{A} can {v}, and {B} can {v} too.",
]  # fmt: skip


def primer(rnd: Random) -> str:
    """One page about one to three characters, each with a thing, a place and something to do.

    Some are memory games, in which any word can be asked for again, and some are pages of facts about words.
    """
    which = rnd()
    if which < 0.1:
        return memory_game(rnd)[1]
    if which < 0.35:
        _, fact = choose(rnd, WEIGHTED)
        return " ".join(f"{line}." for line in dict.fromkeys(upper_first(AN.sub(r"\1n ", fact(rnd))) for _ in range(8)))
    names = CHILDREN if rnd() < 0.7 else ANIMALS
    people: list[dict[str, str]] = []
    for _ in range(1 + int(rnd() * 3)):
        things, qualities = (FOOD, TASTE) if rnd() < 0.3 else (THINGS, COLOR)
        one = {"A": choose(rnd, ADULTS if rnd() < 0.2 else names), "o": choose(rnd, things), "c": choose(rnd, qualities),
               "l": choose(rnd, PLACES), "v": choose(rnd, VERBS)}  # fmt: skip
        one["V"] = one["v"].capitalize()
        if all(one[key] != other[key] for other in people for key in "Aol"):
            people.append(one)
    lines = [choose(rnd, FACTS).format(**one) for one in people]
    for _ in range(3 + int(rnd() * 6)):
        one, other = choose(rnd, people), choose(rnd, people)
        which = rnd()
        if which < 0.35:
            line = choose(rnd, FACTS).format(**one)
        elif one is other:
            line = choose(rnd, ABOUT_ONE).format(**one)
        else:
            line = choose(rnd, ABOUT_TWO).format(**one, B=other["A"])
        if line not in lines:
            lines.append(line)
    return AN.sub(r"\1n ", " ".join(lines))
