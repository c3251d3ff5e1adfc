"""Records to labelled tokens: which file formats are read, where the loss is. How a record becomes a prompt and an
answer stands in prompts.py.

    records = read_records("data/instructions/stories_train.json")
    examples = encode_records(records, tokenizer, template="seed", max_length=512)

A file is a JSON list or JSONL of records, or plain text:

    {"instruction", "input" (or none, or null), "output"}          Alpaca's schema, laid out by a template
    {"prompt", "completion"}                                       taken as they are ("chat": as a dialogue)
    {"messages": [{"role", "content"}, ...]}                       a chat, laid out by the base's chat template whatever
    --template says; the last answer is learned, what comes before it is its prompt
    {"text"} or a .txt file, documents ended by a line <|endoftext|>   text_mode "documents" or "blocks"
    {"text", "label": 0 or 1}                                      as text, or text_mode "sentiment": the label as a
    word

The loss is taken on the answer and its end token only. A label is chosen by its position, never by its token id:
where the padding token is also the end token, as in GPT-2, the end is still learned.

Shapes: L tokens of one example.
"""

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from finetune_settings import InputError
from prompts import (
    SCHEMAS,
    asking_template,
    last_tokens,
    prompt_and_answer,
    schema_of,
    tokenize,
    tokenize_answers,
    tokenize_prompts,
)

END_OF_TEXT = "<|endoftext|>"
CONVERTER = "python data/prepare.py file FILE --name NAME makes such records of many other forms"


def read_records(path) -> list[dict]:
    """The records of a .json, .jsonl or .txt file (each also as .gz); InputError names the file and the record."""
    path = Path(path)
    if path.suffix == ".parquet":
        raise InputError(f"{path}: no Parquet here; make records of it: python data/prepare.py file {path} --name NAME")
    if not path.is_file() and not path.is_fifo():
        raise InputError(f"{path}: {'is a folder; name a file' if path.is_dir() else 'no such file'}")
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: {error}") from None
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "txt":
        documents = [{"text": part.strip()} for part in text.split(END_OF_TEXT) if part.strip()]
        if not documents:
            raise InputError(f"{path}: no document beside {END_OF_TEXT}")
        return documents
    if kind == "jsonl":
        numbered = [(f"line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        records = [(where, parse(line, f"{path}, {where}")) for where, line in numbered]
    else:
        whole = parse(text, path)
        if not isinstance(whole, list) or not whole:
            found = "an empty one" if whole == [] else type(whole).__name__
            raise InputError(f"{path}: expected a non-empty list of records, found {found}")
        records = [(f"record {i}", record) for i, record in enumerate(whole, 1)]
    for where, record in records:
        if isinstance(record, dict) and "instruction" in record and record.get("input", "") is None:
            record["input"] = ""  # as other tools write that there is none
        check_record(record, f"{path}, {where}")
    return [record for _, record in records]


def parse(text: str, where):
    """JSON, its error as InputError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON (its line {error.lineno}: {error.msg})") from None
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{where}: {error}") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply for a record") from None


def check_record(record, where: str):
    """Raises InputError unless the record has one of the schemas, its texts being strings."""
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected an object, found {type(record).__name__}")
    schema = next((keys for keys in SCHEMAS if keys[0] in record), None)
    if schema is None:
        raise InputError(
            f"{where}: needs instruction + output, prompt + completion, messages, or text; it has {sorted(record)}; "
            f"{CONVERTER}"
        )
    if schema == ("messages",):
        check_messages(record["messages"], where)
        check_no_tools(record, where)
        return
    for key in (*schema, *(["input"] if "input" in record and "instruction" in record else [])):
        if key not in record:
            raise InputError(f"{where}: '{key}' is missing")
        check_text(record[key], key, where)


def check_text(text, key: str, where: str):
    """Raises InputError unless the field `key` is a text."""
    if not isinstance(text, str):
        hint = f"; {CONVERTER}" if isinstance(text, list) else ""  # TRL's prompts that are chats, contents in parts
        raise InputError(f"{where}: '{key}' must be text, found {type(text).__name__}{hint}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: '{key}' has half a character (a surrogate) at {error.start}") from None


def check_messages(messages, where: str):
    """Raises InputError unless these are turns of a chat, a system's at most first, with an answer to something."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InputError(f'{where}: \'messages\' must be a list of {{"role": ..., "content": ...}}')
    for number, message in enumerate(messages, 1):
        here = f"{where}, message {number}"
        allowed = ("system", "user", "assistant") if number == 1 else ("user", "assistant")
        if message.get("role") not in allowed:
            raise InputError(f"{here}: the role is {message.get('role')!r}; here it can be {', '.join(allowed)}")
        check_text(message.get("content"), "content", here)
    if "assistant" not in [message["role"] for message in messages[1:]]:
        raise InputError(f"{where}: 'messages' needs an answer of the assistant's after another message")


def check_no_tools(record: dict, where: str):
    """Raises InputError where tools are offered or called: a chat without them would be another one."""
    for part in (record, *record["messages"]):
        for key in ("tools", "tool_calls", "function_call"):
            if part.get(key) not in (None, [], "", "[]"):
                raise InputError(f"{where}: has '{key}'; chats with tools are not trained on here")


def split_records(records: list, eval_ratio: float) -> tuple[list, list]:
    """(training, evaluation): the last eval_ratio of the records, at least one of each where there are two; always
    the same.
    """
    if not 0 <= eval_ratio < 1:
        raise InputError(f"eval_ratio is {eval_ratio}; it must be at least 0 and below 1")
    count = round(len(records) * eval_ratio)
    if eval_ratio > 0 and len(records) > 1:
        count = min(max(count, 1), len(records) - 1)
    return records[: len(records) - count], records[len(records) - count :]


@dataclass
class Examples:
    """Tokenised examples, end to end in one array. Example i is tokens[starts[i]:starts[i + 1]], L = lengths[i]
    tokens, of which those from first_label[i] >= 1 on are predicted. `dropped` had no label left after truncation.
    """

    tokens: np.ndarray  # (sum of L,) int32
    starts: np.ndarray  # (examples + 1,) int64
    first_label: np.ndarray  # (examples,) int64
    dropped: int = 0
    truncated: int = 0

    def __len__(self):
        return len(self.first_label)

    def __getitem__(self, i):
        return self.tokens[self.starts[i] : self.starts[i + 1]]

    @property
    def lengths(self):
        """L of each example."""
        return np.diff(self.starts)

    @property
    def labels(self):
        """Number of predicted tokens of each example, (examples,) int64."""
        return self.lengths - self.first_label


def collect(
    pairs, max_length: int, keep_end_of_prompt: bool = False, train_on_prompt: bool = False, bos: int | None = None
) -> Examples:
    """(prompt ids, answer ids) pairs to Examples of at most max_length tokens.

    Too long an example loses the end of its answer; with keep_end_of_prompt, the start of its prompt, all but the token
    `bos`. train_on_prompt labels the prompt as well.
    """
    parts, first, dropped, truncated = [], [], 0, 0
    for prompt, answer in pairs:
        if len(prompt) + len(answer) > max_length:
            truncated += 1
            if keep_end_of_prompt:
                prompt = last_tokens(prompt, max(max_length - len(answer), 1), bos)
        ids, label = [*prompt, *answer][:max_length], 1 if train_on_prompt else max(len(prompt), 1)
        if label >= len(ids):
            dropped += 1
            continue
        parts.append(np.asarray(ids, np.int32))
        first.append(label)
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.int64)]).astype(np.int64)
    tokens = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    return Examples(tokens, starts, np.asarray(first, np.int64), dropped, truncated)


def kinds_of(records, template: str) -> set[str]:
    """The first fields of the records; InputError where there are several that no template joins."""
    kinds = {schema_of(record) for record in records}
    if len(kinds) > 1 and ("text" in kinds or template != "chat"):  # which asks instructions and prompts alike
        raise InputError(f"records with {' and '.join(sorted(kinds))} are mixed; put them in two files")
    return kinds


def encode_records(
    records: list[dict], tokenizer, template="seed", max_length=512, text_mode="documents", train_on_prompt=False,
    path="", first=1,
) -> Examples:
    """Records of one schema to Examples. InputError names a record that cannot be one; path and first say where they
    are from, and the number of the first there.

    text_mode says what becomes of {"text"} records: "documents" (one example each, cut at max_length), "blocks" (all
    text end to end, cut into max_length tokens) or "sentiment" (the label as the answer). train_on_prompt puts the
    loss on the prompt as well. Prompt and answer are tokenised apart, as they are when the model is asked.
    """
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer names no end token (eos_token), so the end of an answer cannot be learned")
    if max_length < 2:
        raise InputError(f"max_length is {max_length}; it must be at least 2 tokens")
    kinds = kinds_of(records, template)
    texts = "text" in kinds
    if text_mode != "documents" and not texts:
        raise InputError(f"--text_mode {text_mode} is for texts; these records have {min(kinds)}; leave it out")
    if texts and text_mode != "sentiment":
        documents = tokenize([record["text"] + tokenizer.eos_token for record in records], tokenizer, start=True)
        if text_mode == "blocks":
            stream = [token for document in documents for token in document]
            documents = [stream[i : i + max_length] for i in range(0, len(stream), max_length)]
        elif text_mode != "documents":
            raise InputError(f"unknown text_mode '{text_mode}'; use documents, blocks or sentiment")
        return collect((([], document) for document in documents), max_length)
    template, pairs = asking_template(schema_of(records[0]), template), []
    for number, record in enumerate(records, first):
        try:
            pairs.append(prompt_and_answer(record, template, tokenizer))
        except InputError as error:
            raise InputError(f"{path}{', ' if path else ''}record {number}: {error}") from None
    prompts = tokenize_prompts([prompt for prompt, _ in pairs], tokenizer, template)
    answers = tokenize_answers([answer for _, answer in pairs], tokenizer, template)
    both = zip(prompts, answers, strict=True)
    return collect(both, max_length, texts, train_on_prompt, tokenizer.bos_token_id)
