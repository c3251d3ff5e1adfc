"""The instruction set: Alpaca records with a check for data/checkers.py, in 14 families.

What is held out differs by family. In the story families (story, ending, question) the validation records come from
stories whose content key is held out. In rename, past, pronoun, sort, count, sentence the combination of words is new.
In the look-up families (opposite, plural, translate, fact, list) a word must have been seen to be known, so there the
combination of word and wording is new, while the word itself occurs in training with other wordings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from checkers import sentences
from story_grammar import AN, Random, Story, choose, expand, fill
from story_lexicon import COLOR_OF, COLORS, NOUNS, NUMBERS, OPPOSITES, SOUNDS, VERBS
from story_wordings import FRAMES, WORDINGS
from story_words import BOYS, GIRLS

Made = tuple[str, str, str, str, dict]  # key, instruction, input, output, check
GROUPS = list(dict.fromkeys(group for *_, group in NOUNS))
BY_GROUP = {group: [noun for noun in NOUNS if noun[3] == group] for group in GROUPS}
PETS = ("cat", "dog", "mouse", "rabbit", "bird", "frog", "hen")
BY_GROUP["animal in the house"] = [noun for noun in NOUNS if noun[0] in PETS]

MATERIALS = ["snow", "coal", "grass", "milk", "chocolate"]
SUBJECTS = [("The girl", "her"), ("The boy", "his"), ("My sister", "her"), ("My brother", "his"), ("The farmer", "his"),
            ("The queen", "her"), ("She", "her"), ("He", "his")]  # fmt: skip


def group_plural(group: str) -> str:
    """`piece of clothing` -> `pieces of clothing`."""
    head, *rest = group.split(" ", 1)
    plural = {"person": "people"}.get(head, head + "s")
    return " ".join([plural, *rest])


def a(phrase: str) -> str:
    """`owl` -> `an owl`."""
    return AN.sub(r"\1n ", f"a {phrase}")


def wording(rnd: Random, family: str) -> str:
    """One of the family's wordings."""
    return choose(rnd, WORDINGS[family])


def about(story: Story) -> str:
    """`a kind girl named Mia who loses a ball`; a few shapes do not introduce A by a trait."""
    slots = story.slots
    trait = [slots["T"]] if "T" in slots else []
    return a(" ".join([*trait, slots["A.kind"], "named", slots["A"], fill(story.shape.topic, slots)]))


def question_and_answer(rnd: Random, story: Story) -> tuple[str, str]:
    """One of the questions that a shape has, and its answer in this story."""
    texts = []
    for parts in choose(rnd, story.shape.questions):
        out: list[str] = []
        expand(parts, rnd, out)
        texts.append(fill("".join(out), story.slots))
    return texts[0], texts[1]


def story_task(rnd: Random, story: Story) -> Made | None:
    """Write a story about a kind girl named Mia who ..."""
    slots = story.slots
    trait = [slots["T"]] if "T" in slots else []
    named = dict.fromkeys(re.findall(r"%\(([\w.]+)\)", story.shape.topic))
    check = {"kind": "story", "name": slots["A"], "words": [*trait, *(fill(slots[key], slots) for key in named)]}
    return story.key, wording(rnd, "story").format(about(story)), "", story.tell(), check


def ending_task(rnd: Random, story: Story) -> Made | None:
    """Write the last sentence of this story."""
    ending = fill(story.ending, story.slots)
    if sentences(ending) != 1 or story.slots["A"] not in ending:
        return None
    check = {"kind": "sentence", "words": [story.slots["A"]]}
    return story.key, wording(rnd, "ending"), story.tell(ending=False, paragraphs=False), ending, check


def question_task(rnd: Random, story: Story) -> Made | None:
    """A question about a story."""
    question, answer = question_and_answer(rnd, story)
    people = [story.slots[slot] for slot, _ in story.shape.slots if f"{slot}.he" in story.slots]
    wrong = [person for person in people if person != answer and person not in question] if answer in people else []
    check = {"kind": "answer", "answers": [answer], "wrong": wrong}
    return story.key, wording(rnd, "question").format(question), story.tell(paragraphs=False), answer, check


def sentence_task(rnd: Random) -> Made:
    """Write a sentence with two words."""
    first, second, frame = choose(rnd, FRAMES)
    x, y = choose(rnd, BY_GROUP[first])[0], choose(rnd, BY_GROUP[second])[0]
    instruction = AN.sub(r"\1n ", wording(rnd, "sentence").format(x, y))
    check = {"kind": "sentence", "words": [x, y], "absent": ["sentence", "words"]}  # no echo
    return f"{x}|{y}", instruction, "", AN.sub(r"\1n ", frame.format(x, y)), check


def list_task(rnd: Random) -> Made:
    """List three fruits."""
    group, count = choose(rnd, GROUPS), 2 + int(rnd() * 4)
    picked: list[str] = []
    while len(picked) < count:
        noun = choose(rnd, BY_GROUP[group])[0]
        if noun not in picked:
            picked.append(noun)
    form = wording(rnd, "list")
    instruction = form.format(n=NUMBERS[count], things=group_plural(group))
    check = {"kind": "list", "count": count, "members": [word for noun in BY_GROUP[group] for word in noun[:2]]}
    return f"{group}|{count}|{form}", instruction, "", ", ".join(picked), check


def simple_sentence(rnd: Random, tense: int, subject: str, his: str) -> str:
    """`Mia walks to the park.` (tense 0) or `Mia walked to the park.` (tense 1)."""
    verb = choose(rnd, VERBS)
    return f"{subject} {verb[tense]} {choose(rnd, verb[2])}.".replace("{P}", his)


def name(rnd: Random) -> tuple[str, str]:
    """A child's name and possessive pronoun."""
    return (choose(rnd, GIRLS), "her") if rnd() < 0.5 else (choose(rnd, BOYS), "his")


def rename_task(rnd: Random) -> Made:
    """Change one name to another of the same kind."""
    (old, his), (new, other) = name(rnd), name(rnd)
    while other != his or new == old:
        new, other = name(rnd)
    text = simple_sentence(rnd, 1, old, his)
    changed = text.replace(old, new, 1)
    return text + new, wording(rnd, "rename").format(old, new), text, changed, {"kind": "exact", "answers": [changed]}


def past_task(rnd: Random) -> Made:
    """Present to past tense."""
    subject, his = name(rnd) if rnd() < 0.6 else choose(rnd, SUBJECTS)
    present, past, rest = choose(rnd, VERBS)
    tail = choose(rnd, rest).replace("{P}", his)
    output = f"{subject} {past} {tail}."
    return f"{subject} {past} {tail}", wording(rnd, "past"), f"{subject} {present} {tail}.", output, \
        {"kind": "exact", "answers": [output]}


def pronoun_task(rnd: Random) -> Made:
    """He to she, his to her."""
    verb = choose(rnd, VERBS)
    tense, tail = int(rnd() * 2), choose(rnd, verb[2])
    more = choose(rnd, ["", " with {P} dad"] if tense == 0 else ["", " before {he} went home", " with {P} dad"])
    text = f"{{he}} {verb[tense]} {tail}{more}."
    before, after = (text.replace("{he}", he).replace("{P}", his) for he, his in (("he", "his"), ("she", "her")))
    before, after = before[0].upper() + before[1:], after[0].upper() + after[1:]
    return before, wording(rnd, "pronoun"), before, after, {"kind": "exact", "answers": [after]}


def opposite_task(rnd: Random) -> Made:
    """The opposite of a word."""
    pair = choose(rnd, OPPOSITES)
    word, other = pair if rnd() < 0.5 else pair[::-1]
    answers = [y for x, y in OPPOSITES if x == word] + [x for x, y in OPPOSITES if y == word]
    instruction = wording(rnd, "opposite").format(word)
    instruction = instruction[0].upper() + instruction[1:]
    return instruction, instruction, "", other, {"kind": "exact", "answers": answers}


def plural_task(rnd: Random) -> Made:
    """The plural of a noun."""
    singular, plural, *_ = choose(rnd, NOUNS)
    instruction = wording(rnd, "plural").format(singular)
    return instruction, instruction, "", plural, {"kind": "exact", "answers": [plural, f"two {plural}"]}


def different_nouns(rnd: Random, count: int, initials: bool) -> list[str]:
    """Distinct nouns; with `initials`, of distinct first letters."""
    picked: list[str] = []
    while len(picked) < count:
        noun = choose(rnd, NOUNS)[0]
        if noun not in picked and not (initials and noun[0] in {other[0] for other in picked}):
            picked.append(noun)
    return picked


def sort_task(rnd: Random) -> Made:
    """Three or four words into alphabetical order."""
    picked = sorted_picked = []
    while picked == sorted_picked:  # a list in order already would make an echo right
        picked = different_nouns(rnd, 3 if rnd() < 0.7 else 4, initials=True)
        sorted_picked = sorted(picked)
    output = ", ".join(sorted_picked)
    check = {"kind": "exact", "answers": [output]}
    return output, wording(rnd, "sort"), ", ".join(picked), output, check


def count_task(rnd: Random) -> Made:
    """How many words there are."""
    picked = different_nouns(rnd, 2 + int(rnd() * 6), initials=False)
    listed = ", ".join(picked)
    return listed, wording(rnd, "count"), listed, NUMBERS[len(picked)], {"kind": "number", "value": len(picked)}


def translate_task(rnd: Random) -> Made:
    """An English word into Chinese."""
    words = [(noun[0], noun[2]) for noun in NOUNS] + [color for color in COLORS if color[0] != "orange"]
    english, translation = choose(rnd, words)
    instruction = wording(rnd, "translate").format(english)
    instruction = instruction[0].upper() + instruction[1:]
    return instruction, instruction, "", translation, {"kind": "chinese", "answers": [translation]}


def fact_task(rnd: Random) -> Made:
    """Sounds of animals, colors of things, and what kind of thing a thing is."""
    which = rnd()
    if which < 0.3:
        word, output = choose(rnd, SOUNDS)
        instruction = AN.sub(r"\1n ", wording(rnd, "sound").format(word))
        return instruction, instruction, "", output, {"kind": "answer", "answers": [output]}
    if which < 0.6:
        word, output = choose(rnd, COLOR_OF)
        thing = word if word in MATERIALS else f"the {word}" if word in ("sky", "sea") else a(word)
        instruction = wording(rnd, "color").format(thing)
        wrong = [color for color, _ in COLORS if color not in (output, word)]
        return instruction, instruction, "", output, {"kind": "answer", "answers": [output], "wrong": wrong}
    noun = choose(rnd, NOUNS)
    other = choose(rnd, [group for group in GROUPS if group != noun[3]])
    groups = [a(noun[3]), a(other)] if rnd() < 0.5 else [a(other), a(noun[3])]
    instruction = wording(rnd, "group").format(a(noun[0]), *groups)
    return instruction, instruction, "", a(noun[3]), {"kind": "answer", "answers": [noun[3]], "wrong": [other]}


STORY_FAMILIES: dict[str, Callable[[Random, Story], Made | None]] = {
    "story": story_task, "ending": ending_task, "question": question_task}  # fmt: skip
WORD_FAMILIES: dict[str, Callable[[Random], Made]] = {
    "sentence": sentence_task, "list": list_task, "rename": rename_task, "past": past_task, "pronoun": pronoun_task,
    "opposite": opposite_task, "plural": plural_task, "sort": sort_task, "count": count_task,
    "translate": translate_task, "fact": fact_task}  # fmt: skip
FAMILIES = [*STORY_FAMILIES, *WORD_FAMILIES]
# Fewer records to train on where an answer has a hundred times the tokens of the others: every token counts the same in
# the loss, and with equal numbers three quarters of them belong to the stories, one in a hundred to a translation.
LESS = {"story": 0.35, "ending": 0.35}


def records(
    family: str, stories: Iterator[Story], rnd: Random, train: int, val: int, held_out: Callable[[str], bool],
    story_held_out: Callable[[str], bool],
) -> tuple[list[dict], list[dict]]:  # fmt: skip
    """`train` and up to `val` records of a family, disjoint in their keys; training ones repeat where words run out."""
    parts: dict[bool, list[dict]] = {False: [], True: []}
    seen: set[tuple[str, str, str]] = set()
    for _ in range(60 * (train + val)):
        if len(parts[False]) >= train and len(parts[True]) >= val:
            break
        made = STORY_FAMILIES[family](rnd, next(stories)) if family in STORY_FAMILIES else WORD_FAMILIES[family](rnd)
        if made is None:
            continue
        key, instruction, context, output, check = made
        is_val = story_held_out(key) if family in STORY_FAMILIES else held_out(f"{family}|{key}")
        part = parts[is_val]
        if len(part) < (val if is_val else train) and (instruction, context, output) not in seen:
            seen.add((instruction, context, output))
            part.append({"instruction": instruction, "input": context, "output": output,
                         "family": family, "check": check})  # fmt: skip
    short_of = train - len(parts[False])  # few words in few wordings: these are trained on more than once
    parts[False] += [parts[False][i % len(parts[False])] for i in range(short_of)]
    return parts[False], parts[True]


def instruction_set(
    stories: Iterator[Story], rnd: Random, train: int, val: int, held_out: Callable[[str], bool],
    story_held_out: Callable[[str], bool],
) -> tuple[list[dict], list[dict]]:  # fmt: skip
    """About `train` and `val` records over all families, in random order."""
    all_train: list[dict] = []
    all_val: list[dict] = []
    whole = len(FAMILIES) - sum(1 - share for share in LESS.values())
    for index, family in enumerate(FAMILIES):
        train_share = int(train * LESS.get(family, 1) / whole)
        val_share = val // len(FAMILIES) + (index < val % len(FAMILIES))
        part_train, part_val = records(family, stories, rnd, train_share, val_share, held_out, story_held_out)
        all_train += part_train
        all_val += part_val
    return sorted(all_train, key=lambda _: rnd()), sorted(all_val, key=lambda _: rnd())
