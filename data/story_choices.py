"""Multiple-choice items from validation stories, in HellaSwag's schema: a story without its ending, and four endings.

Two things in the ending are changed, and the four endings are the 2 x 2 combinations of right and wrong. One draws a
slot once more (another character, object, place, feeling, ...) or exchanges two characters, so that the wrong one does
what the other did. Every value stands in two endings of four: without the story nothing tells them apart, not length,
not style, not which ending is most like the others; and where characters are exchanged, no word is new to the story.
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


def exchanged(story: Story, one: str, other: str) -> dict[str, str]:
    """Slot values with two characters in each other's place."""
    partner = {one: other, other: one}
    moved = {key: partner[key[0]] + key[1:] for key in story.slots if key[0] in partner}
    return {key: story.slots[source] for key, source in moved.items() if source in story.slots}


def change(story: Story, swap: str, rnd: Random) -> dict[str, str] | None:
    """New values for a swap of the shape: a slot such as `O`, or two characters, `A/B`."""
    return exchanged(story, *swap.split("/")) if "/" in swap else other_row(story, swap, rnd)


def item(story: Story, label: int, rnd: Random) -> dict | None:
    """One item with its right ending at `label`; None when fewer than two things of this ending can be changed."""
    usable = [swap for swap in story.shape.swaps if f"%({swap[0]}" in story.ending]
    pairs = [(x, y) for x in usable for y in usable if not set(x.split("/")) & set(y.split("/"))]
    if not pairs:
        return None
    first, second = choose(rnd, [pair for pair in pairs if "/" in pair[0]] or pairs if rnd() < 0.6 else pairs)
    changes = [change(story, swap, rnd) for swap in (first, second)]
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
    made, beginnings = [], set()
    while len(made) < count:
        story = next(stories)
        record = item(story, labels[len(made)], rnd)
        if record and record["ctx"] not in beginnings:
            beginnings.add(record["ctx"])
            made.append({"ind": len(made), **record})
    return made
