"""Multiple-choice items from validation stories, in HellaSwag's schema: a story without its ending, and four endings.

Two slots of the ending (the character, the object, the feeling, ...) are each drawn once more, and the four endings are
the 2 x 2 combinations of right and wrong. So every value stands in two endings of four: without the story nothing tells
them apart, not length, not style, not which ending is most like the others.
"""

from __future__ import annotations

from collections.abc import Iterator

from story_grammar import ROWS, Random, Slots, Story, choose, fill


def other_row(story: Story, slot: str, rnd: Random) -> dict[str, str] | None:
    """Another row of the slot's pool, with a word that the story does not use, or None when there is none."""
    told = story.tell().lower()
    rows = ROWS[slot, dict(story.shape.slots)[slot]]
    for _ in range(20):
        row = choose(rnd, rows)
        if fill(row[slot], story.slots).lower() not in told:
            return row
    return None


def item(story: Story, label: int, rnd: Random) -> dict | None:
    """One item with its right ending at `label`; None when fewer than two slots of this ending can be redrawn."""
    usable = [slot for slot in story.shape.swaps if f"%({slot}" in story.ending]
    if len(usable) < 2:
        return None
    first = usable.pop(int(rnd() * len(usable)))
    second = choose(rnd, usable)
    changes = [other_row(story, slot, rnd) for slot in (first, second)]
    if None in changes:
        return None
    endings = []
    for wrong in range(4):  # bit 0: first slot wrong, bit 1: second slot wrong; 0 is the right ending
        slots = Slots(story.slots)
        for bit, row in enumerate(changes):
            if wrong >> bit & 1:
                slots.update(row)
        endings.append(fill(story.ending, slots))
    if len(set(endings)) < 4:
        return None
    wrong_endings = sorted(endings[1:], key=lambda _: rnd())
    return {
        "ctx": story.tell(ending=False),
        "endings": [*wrong_endings[:label], endings[0], *wrong_endings[label:]],
        "label": label,
        "shape": story.shape.name,
        "changed": [first, second],
    }


def items(stories: Iterator[Story], count: int, rnd: Random) -> list[dict]:
    """`count` items from different stories, every label equally often."""
    labels = sorted((i % 4 for i in range(count)), key=lambda _: rnd())
    made, keys = [], set()
    while len(made) < count:
        story = next(stories)
        if story.key in keys:
            continue
        keys.add(story.key)
        record = item(story, labels[len(made)], rnd)
        if record:
            made.append({"ind": len(made), **record})
    return made
