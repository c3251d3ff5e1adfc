"""The three kinds of data in data/README.md: their fields, and the writing of them, split into train and val.

text          {"text"}                                                    -> text/NAME/{train,val}.txt
instructions  {"instruction", "input", "output"} or {"prompt", "completion"} or {"text", "label"}, or what
              `as_instruction` makes the first of: a chat, question + answer ...; or chats kept whole, {"messages"}
-> instructions/NAME_{train,val}.json
choices       {"ctx", "endings", "label"}                                 -> choices/NAME.jsonl
"""

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from staging import MARKER, InputError

END = f"\n{MARKER}\n".encode()
CHUNK = 2**20  # bytes buffered per file: 1 MiB
BROKEN_MARKER = MARKER.replace("|>", " |>")  # reads almost the same, and ends no document
INSTRUCTION_FIELDS = (("instruction", "output"), ("prompt", "completion"), ("text", "label"))
PAIRS = (("instruction", "response"), ("prompt", "response"), ("question", "answer"), ("question", "response"),
         ("input", "output"))  # other names of instruction and output
CHATS = {"messages": ("role", "content"), "conversations": ("from", "value")}  # lists of who says what
WHOLE_CHAT = ("messages",)
ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "developer": "system"}
OTHER_FIELDS = ("context", *CHATS, *dict.fromkeys(sum(PAIRS, ())))
CHOICE_FIELDS = ("ctx", "endings", "label")
CHOICE_EXTRAS = ("activity_label", "ctx_a", "ctx_b", "split", "split_type", "source", "source_id", "family")
WANTED = {
    "text": "text",
    "instructions": "instruction (+ input) + output, or prompt + completion, or text + label"
    " (or a chat: messages, conversations; or question + answer, prompt + response, input + output)",
    "choices": "ctx + endings + label",
}


def kind_of(record: dict, text_field: str) -> str | None:
    """Tell text, instructions or choices by the fields; None if it is none of them."""
    if all(name in record for name in CHOICE_FIELDS):
        return "choices"
    if any(all(name in record for name in names) for names in INSTRUCTION_FIELDS):
        return "instructions"
    if text_field in record:
        return "text"
    other = any(all(name in record for name in names) for names in PAIRS) or any(name in record for name in CHATS)
    return "instructions" if other else None


def wrong_fields(where: str, record: dict, wanted: str) -> InputError:
    """Return the error for a record that has other fields than those wanted."""
    return InputError(f"{where}: found the fields {', '.join(map(repr, record)) or '(none)'}; wanted {wanted}")


def _string(record: dict, name: str, where: str, wanted: str = "a string") -> str:
    value = record[name]
    if not isinstance(value, str):
        raise InputError(f"{where}: {name} is {json.dumps(value, default=str)[:40]}, wanted {wanted}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: {name} has half of a surrogate pair at character {error.start}") from None
    return value


def _extras(record: dict, names: tuple[str, ...], where: str) -> dict:
    """Those of the fields that are there, with whatever they hold, if JSON can hold it."""
    kept = {name: record[name] for name in names if name in record}
    for name, value in kept.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError):  # Parquet's dates and bytes, half of a surrogate pair
            raise InputError(f"{where}: {name} is {str(value)[:40]!r}, which JSON in UTF-8 cannot hold") from None
    return kept


def text_of(where: str, record: dict, field: str, in_text: str, noticed: Counter) -> Iterator[bytes]:
    """Give the document(s) in a record. `in_text` says what to do with a marker inside: refuse, split or break it."""
    if field not in record:
        raise wrong_fields(where, record, f"{field!r} (--text_field names another)")
    text = _string(record, field, where)
    if MARKER not in text:
        yield text.encode()
        return
    if in_text == "refuse":
        raise InputError(
            f"{where}: the text has {MARKER} in it, which would end a document there; "
            f"--marker_in_text split lets it, break writes {BROKEN_MARKER} instead"
        )
    if in_text == "split":
        noticed[f"{MARKER} inside a text, which ended a document there"] += text.count(MARKER)
        yield from (part.encode() for part in text.split(MARKER))
    else:
        noticed[f"{MARKER} inside a text, written as {BROKEN_MARKER}"] += text.count(MARKER)
        yield text.replace(MARKER, BROKEN_MARKER).encode()


class TextSplit:
    """Writes documents to train.txt and val.txt, each followed by a line `<|endoftext|>`.

    A document's own bytes decide its side (crc32 / 2^32 < val_share), so the split is the same in any order, on any
    machine, and equal documents never stand on both sides. Line breaks at a document's ends are dropped.
    """

    def __init__(self, folder: Path, val_share: float, noticed: Counter):
        folder.mkdir(parents=True, exist_ok=True)
        self.val_share = val_share
        self.noticed = noticed
        self.files = {side: (folder / f"{side}.txt").open("w+b", buffering=CHUNK) for side in ("train", "val")}
        self.documents = Counter(train=0, val=0)
        self.bytes = Counter(train=0, val=0)  # of text, without the lines between documents
        self.last = ("train", 0)  # side and bytes of the document written last

    def __enter__(self) -> "TextSplit":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            file.close()

    def add(self, document: bytes, side: str | None = None) -> None:
        """Write a document, to `side` if that is given."""
        document = document.strip(b"\r\n")
        if not document.strip():
            self.noticed["empty documents left out"] += 1
            return
        side = side or ("val" if zlib.crc32(document) < self.val_share * 2**32 else "train")
        self.files[side].write(document + END)
        self.documents[side] += 1
        self.bytes[side] += len(document)
        self.last = (side, len(document))

    def require(self, side: str, source: object) -> None:
        """Raise InputError if a side has got no text from its source."""
        if not self.documents[side]:
            raise InputError(f"{source}: no text in it, only blanks")

    def settle(self, source: str) -> None:
        """See that both sides have something: the last document changes sides, or the only one is cut in two."""
        if not self.documents["train"]:
            self.require("val", source)
        if 0 in self.documents.values():
            side = self.last[0]
            document = self._take_back()
            if self.documents.total():
                self.add(document, "val" if side == "train" else "train")
            else:
                self._cut(document, source)

    def _take_back(self) -> bytes:
        side, size = self.last
        file = self.files[side]
        start = file.tell() - size - len(END)
        file.seek(start)
        document = file.read(size)
        file.seek(start)
        file.truncate()
        self.documents[side] -= 1
        self.bytes[side] -= size
        return document

    def _cut(self, document: bytes, source: str) -> None:
        text = document.decode()
        cut = round(len(text) * (1 - self.val_share))
        for gap in ("\n\n", "\n", " "):  # the last one before that place, but not far before it
            if (found := text.rfind(gap, cut // 2, cut)) > 0:
                cut = found
                break
        parts = text[:cut].encode(), text[cut:].encode()
        if not all(part.strip() for part in parts):
            raise InputError(f"{source}: {len(document)} bytes of text are too few to train and to validate on")
        self.add(parts[0], "train")
        self.add(parts[1], "val")
        self.noticed["document cut in two, its end being the validation text"] += 1


def as_instruction(where: str, record: dict, noticed: Counter, whole_chats: bool = False) -> dict:
    """A record of other usual fields as instruction, input, output (a chat, if asked to, as messages) and what else
    it has; any other as it is.
    """
    prompt, completion = record.get("prompt"), record.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):  # a chat as TRL cuts it in two
        rest = {name: value for name, value in record.items() if name not in ("prompt", "completion")}
        record = rest | {"messages": prompt + completion}
    if any(all(name in record for name in names) for names in INSTRUCTION_FIELDS):
        return record
    for question, answer in PAIRS:
        if question in record and answer in record:
            rest = {name: value for name, value in record.items() if name not in (question, answer)}
            context = rest.get("input") is None and isinstance(rest.get("context"), str)
            if context:
                rest["input"] = rest.pop("context")
            to = f"instruction{' + input' * context} + output"
            noticed[f"records of {question}{' + context' * context} + {answer}, taken as {to}"] += 1
            return rest | {"instruction": record[question], "output": record[answer]}
    for name in CHATS:
        if name in record:
            rest = {key: value for key, value in record.items() if key != name}
            messages = _messages(where, name, record[name])
            noticed[f"chats ({name}), {'kept whole' if whole_chats else 'taken as instruction + output'}"] += 1
            return rest | (_up_to_last_answer if whole_chats else _first_exchange)(where, messages, noticed)
    return record


def _joined(content: Any) -> Any:
    """The text of a message whose content comes in parts, [{"type": "text", "text": ...}]; any other as it is."""
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    return "\n".join(texts) if texts and all(isinstance(text, str) for text in texts) else content


def _messages(where: str, name: str, turns: Any) -> list[dict]:
    """A chat as a list of role + content, whatever it calls them; a user's words are answered somewhere in it."""
    who, what = CHATS[name]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and turn.keys() >= {who, what} for turn in turns):
        raise InputError(f"{where}: {name} is {json.dumps(turns, default=str)[:40]}, wanted a list of {who} + {what}")
    roles = [ROLES.get(str(turn[who]), str(turn[who])) for turn in turns]
    if ("user", "assistant") not in pairwise(roles):
        raise InputError(f"{where}: {name} are of {', '.join(roles) or 'nobody'}; wanted user, then assistant")
    return [{"role": role, "content": _joined(turn[what])} for role, turn in zip(roles, turns, strict=True)]


def _first_exchange(where: str, messages: list[dict], noticed: Counter) -> dict:
    """Instruction and output of a chat: what the system says, a blank line, the user's words; the assistant's."""
    roles = [message["role"] for message in messages]
    at = list(pairwise(roles)).index(("user", "assistant"))
    system = [message for message in messages[:at] if message["role"] == "system"]
    if left_out := len(messages) - len(system) - 2:
        noticed["messages of chats beside their first exchange, left out"] += left_out
    words = [_string(message, "content", where) for message in (*system, messages[at])]
    return {"instruction": "\n\n".join(filter(None, words)), "output": _string(messages[at + 1], "content", where)}


def _up_to_last_answer(where: str, messages: list[dict], noticed: Counter) -> dict:
    """The messages up to the assistant's last, of user, assistant and, first, system: what lora/ reads."""
    for number, message in enumerate(messages, 1):
        allowed = ("system", "user", "assistant") if number == 1 else ("user", "assistant")
        if message["role"] not in allowed:
            raise InputError(f"{where}: message {number} is of {message['role']}, wanted {' or '.join(allowed)}")
        _string(message, "content", where)
    last = max(number for number, message in enumerate(messages) if message["role"] == "assistant")
    if left_out := len(messages) - last - 1:
        noticed["messages of chats after their last answer, left out"] += left_out
    return {"messages": messages[: last + 1]}


def instruction_of(where: str, record: dict, first: tuple[str, ...] | None) -> tuple[tuple[str, ...], dict]:
    """Check a record and keep the fields of its schema; `first` is the schema of the records before it."""
    schemas = (*INSTRUCTION_FIELDS, WHOLE_CHAT) if first is None else (first,)
    schema = next((names for names in schemas if all(name in record for name in names)), None)
    if schema is None:
        wanted = WANTED["instructions"] if first is None else " + ".join(first) + ", as in the records before"
        raise wrong_fields(where, record, wanted)
    if schema == WHOLE_CHAT:
        return schema, {"messages": record["messages"]} | _extras(record, ("family", "check"), where)
    kept: dict[str, Any] = {schema[0]: _string(record, schema[0], where)}
    if not kept[schema[0]].strip():
        raise InputError(f"{where}: {schema[0]} is empty")
    if schema[0] == "instruction":
        kept["input"] = _string(record, "input", where) if record.get("input") is not None else ""
    answer = record[schema[1]]
    if schema[1] == "label" and isinstance(answer, int) and not isinstance(answer, bool):
        kept["label"] = answer
    else:
        wanted = "a string or a whole number" if schema[1] == "label" else "a string"
        kept[schema[1]] = _string(record, schema[1], where, wanted)
    return schema, kept | _extras(record, ("family", "check"), where)  # for checkers.py


def choice_of(where: str, record: dict) -> dict:
    """Check a multiple-choice record and keep HellaSwag's fields; a label given as a digit becomes a number."""
    if not all(name in record for name in CHOICE_FIELDS):
        raise wrong_fields(where, record, WANTED["choices"])
    _string(record, "ctx", where)
    endings, label = record["endings"], record["label"]
    if not isinstance(endings, list) or len(endings) < 2:
        shown = json.dumps(endings, default=str)[:40]
        raise InputError(f"{where}: endings is {shown}, wanted a list of two or more strings")
    for number, ending in enumerate(endings):
        _string({f"endings[{number}]": ending}, f"endings[{number}]", where)
    if isinstance(label, str) and label.isdecimal():
        label = int(label)
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(endings):
        shown = json.dumps(label, default=str)[:40]
        raise InputError(f"{where}: label is {shown}, wanted the number of an ending, 0 to {len(endings) - 1}")
    extras = _extras(record, ("ind", *CHOICE_EXTRAS), where)
    return {"ind": None, **extras, "ctx": record["ctx"], "endings": endings, "label": label}


def write_array(path: Path, items: Iterable[dict]) -> None:
    """Write a JSON array, one record per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, item in enumerate(items):
            file.write((",\n" if number else "[\n") + json.dumps(item, ensure_ascii=False))
        file.write("\n]\n")


def write_lines(path: Path, items: Iterable[dict]) -> int:
    """Write JSON lines; return how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for item in items:
            file.write(json.dumps(item, ensure_ascii=False) + "\n")
            count += 1
    return count
