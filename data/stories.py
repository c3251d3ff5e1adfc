"""The offline data set: short children's stories in English and Chinese, made from a grammar of story shapes.

    python data/prepare.py stories                 # 24 MB of text, instructions and choices under data/
    python data/prepare.py stories --mb 1          # the same in a second
    python data/stories.py --count 3               # print a few stories and write nothing

Everything comes from one seed through random.random() only, and no order depends on hashing, so the same seed gives the
same bytes on every platform and Python version. A story belongs to validation by the CRC-32 of its content key (shape,
main character, main thing): the two parts never share one, let alone a story.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import story_choices
import story_report
import story_tasks
from orderly import status_of
from staging import InputError
from story_grammar import END_OF_TEXT, Random, Shape, Story, choose, compose, read_shapes
from story_lessons import lesson, memory_game, upper_first
from story_primers import primer
from story_shapes_far import FAR
from story_shapes_home import HOME
from story_shapes_wild import WILD
from story_words import POOLS
from story_zh import POOLS_ZH, SHAPES_ZH

SHAPES: list[Shape] = [shape for text in (HOME, WILD, FAR) for shape in read_shapes(text)]
CHINESE_SHAPES: list[Shape] = read_shapes(SHAPES_ZH, POOLS_ZH, space="")
PRIMERS = 0.05  # share of the training text, at its start
MEMORY_GAMES, LESSONS, CHINESE = 0.05, 0.2, 0.06  # shares of the documents; the rest are English stories
HEADINGS, QUESTIONS = 0.3, 0.25  # shares of the English stories that say first what they are about, or are talked about
HEADING_FORMS = ["This is a story about {}.", "A story about {}.", "Let me tell you about {}."]
CHOICES = 600  # multiple-choice items
INSTRUCTIONS = (20_000, 400)  # records to train on and to hold out
LONGEST = 850  # characters of a story in an instruction; with the prompt about 240 tokens, the base model sees 256
INSTRUCTIONS_HELD_OUT = 0.1  # share of the keys of the word families that only validation may use
VALIDATION_PARTS = 10_000  # granularity of the validation share


def is_validation(key: str, share: float) -> bool:
    """Whether content with this key belongs to validation: by its CRC-32, so never in both parts."""
    return zlib.crc32(key.encode()) % VALIDATION_PARTS < share * VALIDATION_PARTS


def english_stories(rnd: Random) -> Iterator[Story]:
    """Endless stories of every shape."""
    while True:
        yield compose(choose(rnd, SHAPES), rnd)


def short_stories(rnd: Random) -> Iterator[Story]:
    """Endless stories for the instructions, short ones that name the character's trait."""
    while True:
        story = compose(choose(rnd, SHAPES), rnd, short=True, trait=True)
        if len(story.tell()) <= LONGEST:
            yield story


def talk(rnd: Random, story: Story, told: str) -> str:
    """A grown-up asks a child who is not in the story about it; the story as told has the answer."""
    question, answer = story_tasks.question_and_answer(rnd, story)
    adult, child = choose(rnd, POOLS["parent"])["call"], choose(rnd, POOLS["child"])[""]
    while child in told:
        child = choose(rnd, POOLS["child"])[""]
    return f'\n"{question}" asked {adult}. "{upper_first(answer)}," said {child}.'


def document(rnd: Random) -> tuple[str, str]:
    """(key, text) of one document: mostly English stories, some lessons, some Chinese stories."""
    which = rnd()
    if which < MEMORY_GAMES:
        return memory_game(rnd)
    if which < MEMORY_GAMES + LESSONS:
        return lesson(rnd)
    if which < MEMORY_GAMES + LESSONS + CHINESE:
        story = compose(choose(rnd, CHINESE_SHAPES), rnd)
        return story.key, story.tell()
    headed = rnd() < HEADINGS
    story = compose(choose(rnd, SHAPES), rnd, trait=headed)
    heading = choose(rnd, HEADING_FORMS).format(story_tasks.about(story)) + "\n" if headed else ""
    told = story.tell()
    return story.key, heading + told + (talk(rnd, story, told) if rnd() < QUESTIONS else "")


def primers(seed: int) -> Iterator[str]:
    """Endless primers, the beginning of the training text."""
    rnd = random.Random(f"primers {seed}").random
    while True:
        yield primer(rnd)


def documents(seed: int) -> Iterator[tuple[str, str]]:
    """Endless (key, text) from a seed."""
    rnd = random.Random(seed).random
    while True:
        yield document(rnd)


def write_file(path: Path, text: str) -> None:
    """Write beside the file, flush to disk, rename: the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    with beside.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def write_texts(folder: Path, megabytes: float, seed: int, share: float) -> dict:
    """Write train.txt (primers first) and val.txt; each document is followed by a line `<|endoftext|>`."""
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    room = {"val": megabytes * 1e6 * share, "train": megabytes * 1e6 * (1 - share)}  # bytes still to write
    paths = {part: folder / f"{part}.txt" for part in room}
    documents_of, bytes_of = dict.fromkeys(room, 0), dict.fromkeys(room, 0)
    start = time.perf_counter()
    files = {part: path.with_suffix(".txt.tmp").open("wb") for part, path in paths.items()}
    try:
        with tqdm(total=int(megabytes * 1e6), unit="B", unit_scale=True, desc="stories",
                  mininterval=0.5 if sys.stderr.isatty() else 10, disable=None) as bar:
            def add(part: str, text: str) -> None:
                data = f"{text}\n{END_OF_TEXT}\n".encode()
                files[part].write(data)
                documents_of[part] += 1
                bytes_of[part] += len(data)
                bar.update(len(data))

            for text in primers(seed):
                if bytes_of["train"] >= PRIMERS * room["train"]:
                    break
                add("train", text)
            for key, text in documents(seed):
                part = "val" if is_validation(key, share) else "train"
                if bytes_of[part] < room[part]:
                    add(part, text)
                elif all(bytes_of[p] >= room[p] for p in room):
                    break
        for part, file in files.items():
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(file.name, paths[part])
    finally:
        for file in files.values():
            file.close()
            Path(file.name).unlink(missing_ok=True)
    return {
        **{part: {"documents": documents_of[part], "bytes": bytes_of[part]} for part in ("train", "val")},
        "MB/s": sum(bytes_of.values()) / 1e6 / (time.perf_counter() - start),
    }


def write(out_root: Path, megabytes: float, seed: int, validation_share: float = 0.02) -> dict:
    """Write the whole data set under `out_root` (text/stories, instructions/, choices/) and return a report.

    Raises:
        InputError: a size or share that leaves no room for either part.

    """
    if megabytes <= 0 or not 0 < validation_share < 1:
        raise InputError(f"megabytes must be above 0 and validation_share between 0 and 1, "
                         f"not {megabytes} and {validation_share}")
    out_root = Path(out_root)
    report = write_texts(out_root / "text" / "stories", megabytes, seed, validation_share)
    rnd = random.Random(seed + 1).random
    held_out = (story for story in english_stories(rnd) if is_validation(story.key, validation_share))
    choices = story_choices.items(held_out, CHOICES, rnd)
    rnd = random.Random(seed + 2).random
    train, val = story_tasks.instruction_set(
        short_stories(rnd), rnd, *INSTRUCTIONS,
        held_out=lambda key: is_validation(key, INSTRUCTIONS_HELD_OUT),
        story_held_out=lambda key: is_validation(key, validation_share),
    )  # fmt: skip
    for part, made in (("train", train), ("val", val)):
        lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in made)
        write_file(out_root / "instructions" / f"stories_{part}.json", f"[\n{lines}\n]\n")
    write_file(out_root / "choices" / "stories.jsonl",
               "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in choices))
    made = {"instructions": {"train": len(train), "val": len(val)}, "choices": len(choices)}
    return {**report, **story_report.report(out_root / "text" / "stories"), **made}


@dataclass
class Settings:
    """Settings of `python data/stories.py`."""

    count: int = 3  # stories to print
    seed: int = 1  # the same seed prints the same stories


def main() -> None:
    """Print a few stories."""
    import tyro

    settings = tyro.cli(Settings, description=__doc__, config=(tyro.conf.OmitArgPrefixes,), use_underscores=True)
    if settings.count < 1:
        raise InputError(f"--count {settings.count}: must be at least 1")
    stream = documents(settings.seed)
    for _ in range(settings.count):
        print(next(stream)[1], END_OF_TEXT, sep="\n")


if __name__ == "__main__":
    sys.exit(status_of(main))
