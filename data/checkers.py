"""Score replies to the stories' instructions by program: pass or fail, no judge.

    python data/checkers.py data/runs/lora/stories/replies.jsonl              # a table: families x models
    python data/checkers.py replies.jsonl --json scores.json                  # and the numbers in a file

Each line of the input is {"model", "family", "check", "reply", ...}; `check` says what a right reply is:

    {"kind": "exact", "answers": [...]}                   the reply is one of them (case, quotes, last dot aside)
    {"kind": "answer", "answers": [...], "wrong": [...]}  at most 15 words, with one answer and none of the wrong ones
    {"kind": "number", "value": 3}                        at most 8 words, one number: 3 or three
    {"kind": "chinese", "answers": ["猫"]}                its Chinese characters are exactly one of the answers
    {"kind": "list", "count": 3, "members": [...]}        so many different ones: singular, plural, singular, ...
    {"kind": "sentence", "words": [...], "absent": [...]} one sentence of 4 to 40 words with all words, no absent one
    {"kind": "story", "name": "Mia", "words": [...]}      4 sentences, 40 words or more, the name twice, all words
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orderly import status_of
from staging import InputError

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
END_OF_SENTENCE = re.compile(r"(?<!\bMr)(?<!\bMrs)[.!?]+[\"”’]?(?=\s+[\"“]?[A-Z]|$)")
CHINESE = re.compile(r"[\u4e00-\u9fff]+")


FIELDS = {
    "answers": list, "wrong": list, "members": list, "words": list, "absent": list,
    "name": str, "value": int, "count": int,
}  # fmt: skip
WANTED = {list: "a list of strings", str: "a string", int: "a whole number"}


def tidy(text: str) -> str:
    """Lower case, single spaces, no quotes around it and no mark at its end: `' "Small." '` -> `small`."""
    text = " ".join(text.split()).casefold()
    return text.strip("\"'“”‘’ ").rstrip(".!。！ ").strip("\"'“”‘’ ")


def has(text: str, phrase: str) -> bool:
    """Whether the phrase stands in the text as whole words, in any case: "cat" is in "A cat." but not in "Cattle"."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None


def sentences(text: str) -> int:
    """Number of sentences: ends of sentences, and one more if the text does not finish with an end."""
    text = text.strip()
    ends = [match.end() for match in END_OF_SENTENCE.finditer(text)]
    return len(ends) + (bool(text) and (not ends or ends[-1] < len(text)))


def finished(text: str) -> bool:
    """Whether the text begins with a capital letter (or a quote) and ends with a sentence mark."""
    text = text.strip()
    return bool(re.match(r"[\"“]?[A-Z]", text)) and bool(re.search(r"[.!?][\"”]?$", text))


def exact(check: dict, reply: str) -> bool:
    """The reply is one of check["answers"]."""
    return tidy(reply) in {tidy(answer) for answer in check["answers"]}


def answer(check: dict, reply: str) -> bool:
    """A short reply that holds a right answer and no wrong one."""
    return (
        len(reply.split()) <= 15
        and any(has(reply, right) for right in check["answers"])
        and not any(has(reply, wrong) for wrong in check.get("wrong", []))
    )


def number(check: dict, reply: str) -> bool:
    """A short reply whose only number is check["value"], in digits or as a word."""
    found = []
    for word in re.findall(r"[-−]?\w+(?:-\w+)*", reply.casefold()):  # -3 is not 3, thirty-three not three
        size = word.lstrip("-−")
        if (size.isascii() and size.isdigit()) or size in NUMBERS:
            value = float(size) if size.isdigit() else NUMBERS.index(size)
            found.append(value if size == word else -value)
    return len(reply.split()) <= 8 and found == [check["value"]]


def chinese(check: dict, reply: str) -> bool:
    """The Chinese characters of the reply are one of check["answers"]."""
    return "".join(CHINESE.findall(reply)) in check["answers"]


def listing(check: dict, reply: str) -> bool:
    """check["count"] different items split by commas, lines, "and"; members are singular and plural in turn."""
    parts = [re.sub(r"^\s*(?:\d+[.)]|[-*•])", "", part) for part in re.split(r",|\n|;|(?i:\band\b)", reply)]
    items = [re.sub(r"^(?:an?|the) ", "", tidy(part)) for part in parts if tidy(part)]
    nouns = {form: n // 2 for n, form in enumerate(check["members"])}
    return len(items) == check["count"] == len({nouns[item] for item in items if item in nouns})


def sentence(check: dict, reply: str) -> bool:
    """One finished sentence with all the words."""
    return (
        sentences(reply) == 1
        and finished(reply)
        and 4 <= len(reply.split()) <= 40
        and all(has(reply, word) for word in check["words"])
        and not any(has(reply, word) for word in check.get("absent", []))
    )


def story(check: dict, reply: str) -> bool:
    """A finished story about the one it should be about, with all the words."""
    named = len(re.findall(rf"\b{re.escape(check['name'])}\b", reply))
    return (
        sentences(reply) >= 4
        and finished(reply)
        and len(reply.split()) >= 40
        and named >= 2
        and all(has(reply, word) for word in check["words"])
    )


CHECKERS: dict[str, Callable[[dict, str], bool]] = {
    "exact": exact, "answer": answer, "number": number, "chinese": chinese,
    "list": listing, "sentence": sentence, "story": story,
}  # fmt: skip


def score(record: dict) -> bool:
    """Whether record["reply"] passes record["check"].

    Raises:
        InputError: check or reply missing, a kind of check that does not exist, or a field of another type.

    """
    check, reply = record.get("check"), record.get("reply")
    if not isinstance(check, dict) or not isinstance(reply, str):
        raise InputError('a record needs "check" (an object) and "reply" (a string)')
    kind = check.get("kind")
    if not isinstance(kind, str) or kind not in CHECKERS:
        raise InputError(f"unknown kind of check {kind!r}; known: {', '.join(CHECKERS)}")
    for name, wanted in FIELDS.items():
        value = check.get(name, wanted())
        if not isinstance(value, wanted) or (wanted is list and not all(isinstance(item, str) for item in value)):
            raise InputError(f'"{name}" of the check is {json.dumps(value)[:40]}, wanted {WANTED[wanted]}')
    try:
        return CHECKERS[kind](check, reply)
    except KeyError as missing:
        raise InputError(f"a check of kind {kind!r} needs {missing}") from None


def read_replies(path: Path) -> Iterator[tuple[int, dict]]:
    """(line number, record) of a JSONL file."""
    with path.open("rb") as lines:
        for count, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError:
                raise InputError(f"{path}, line {count}: not UTF-8") from None
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {count}: not JSON ({error.msg})") from None
            except RecursionError:
                raise InputError(f"{path}, line {count}: JSON nested too deeply") from None
            except ValueError:  # Python's guard against numbers that take quadratic time to read
                digits = sys.get_int_max_str_digits()
                raise InputError(f"{path}, line {count}: a whole number of more than {digits} digits") from None
            if not isinstance(record, dict) or not all(isinstance(record.get(k), str) for k in ("model", "family")):
                raise InputError(f'{path}, line {count}: needs an object with "model" and "family" (strings)')
            yield count, record


def score_file(path: Path) -> dict[str, dict[str, list[bool]]]:
    """{model: {family: [pass or fail, ...]}}, models and families in the order of the file.

    Raises:
        InputError: an empty file or a malformed line, with its number.

    """
    scores: dict[str, dict[str, list[bool]]] = {}
    for count, record in read_replies(path):
        try:
            passed = score(record)
        except InputError as error:
            raise InputError(f"{path}, line {count}: {error}") from None
        scores.setdefault(record["model"], {}).setdefault(record["family"], []).append(passed)
    if not scores:
        raise InputError(f"{path}: no replies; write some with lora/generate.py --records ... --replies {path}")
    return scores


def summary(scores: dict[str, dict[str, list[bool]]]) -> dict:
    """{model: {"families": {family: share}, "macro_average": share, "records": n}}; all families weigh the same."""
    result = {}
    for model, families in scores.items():
        shares = {family: sum(passed) / len(passed) for family, passed in families.items()}
        result[model] = {
            "families": shares,
            "macro_average": sum(shares.values()) / len(shares),
            "records": sum(len(passed) for passed in families.values()),
        }
    return result


def table(result: dict) -> str:
    """The summary as text: a row per family, a column per model, the macro average last."""
    families = list(dict.fromkeys(family for model in result.values() for family in model["families"]))
    width = max(len(family) for family in [*families, "macro average"])
    columns = {model: max(len(model), 6) for model in result}
    rows = [["", *columns]]
    for family in families:
        shares = (result[model]["families"].get(family) for model in columns)
        rows.append([family, *("-" if share is None else f"{share:.1%}" for share in shares)])
    rows.append(["macro average", *(f"{result[model]['macro_average']:.1%}" for model in columns)])
    widths = columns.values()
    return "\n".join(
        f"{head:<{width}}" + "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        for head, *cells in rows
    )


@dataclass
class Settings:
    """Settings of `python data/checkers.py`."""

    replies: Path  # JSONL file of replies to score
    json: Path | None = None  # also write the shares of every model and family to this file


def main() -> None:
    """Score a file and print the table."""
    import tyro

    settings = tyro.cli(Settings, description=__doc__, use_underscores=True,
                        config=(tyro.conf.PositionalRequiredArgs,))
    result, out = summary(score_file(settings.replies)), settings.json
    if out:
        if out.exists() and (not out.is_file() or out.samefile(settings.replies)):
            raise InputError(f"--json {out}: is the replies, or no file that could be replaced; choose another name")
        out = out.resolve()  # not a link, but what it leads to
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = out.with_name(out.name + ".tmp")
        beside.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        os.replace(beside, out)
    print(table(result))


if __name__ == "__main__":
    sys.exit(status_of(main))
