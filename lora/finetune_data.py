"""A run's files to tokenised examples for training and evaluation, the same split every time."""

import hashlib
from dataclasses import dataclass

from finetune_settings import InputError, Settings
from instructions import Examples, encode_records, kinds_of, read_records, split_records
from prompts import asking_template, schema_of


@dataclass
class Data:
    """Tokenised training and evaluation examples, some evaluation records to show answers for, and the template that
    asks the model as it was trained.
    """

    train: Examples
    evaluation: Examples | None
    show: list
    template: str


def load_data(s: Settings, tokenizer, max_length: int) -> Data:
    """Reads and tokenises the settings' files; the same for every run that shares them."""

    def encode(records, path, first=1):
        options = s.template, max_length, s.text_mode, s.train_on_prompt
        examples = encode_records(records, tokenizer, *options, path, first)
        if not len(examples):
            raise InputError(f"{path}: no example has a label left within --max_length {max_length}")
        return examples

    records = read_records(s.data_path)
    kinds_of(records, s.template)  # before a part of one kind alone may be held out
    held_out = read_records(s.eval_data_path) if s.eval_data_path else []
    if not held_out and s.text_mode != "blocks":
        records, held_out = split_records(records, s.eval_ratio)
    train = encode(records, s.data_path)
    path, first = (s.eval_data_path, 1) if s.eval_data_path else (s.data_path, len(records) + 1)
    evaluation = encode(held_out, path, first) if held_out else None
    if not held_out and s.eval_ratio > 0 and s.text_mode == "blocks":
        train, evaluation = split_examples(train, s.eval_ratio)
    show = [record for record in held_out[:4] if "instruction" in record]
    return Data(train, evaluation, show, asking_template(schema_of(records[0]), s.template))


def split_examples(examples: Examples, ratio: float):
    """The last `ratio` of the blocks, at least one if there are two, for evaluation."""
    kept, held = split_records(list(range(len(examples))), ratio)

    def part(indices):
        if not indices:
            return None
        start, stop = examples.starts[indices[0]], examples.starts[indices[-1] + 1]
        return Examples(
            examples.tokens[start:stop],
            examples.starts[indices[0] : indices[-1] + 2] - start,
            examples.first_label[indices[0] : indices[-1] + 1],
        )

    return part(kept), part(held)


def data_hash(examples: Examples | None) -> str:
    """Short hash of the tokens and labels, "" where there are none."""
    if examples is None:
        return ""
    return hashlib.sha256(
        examples.tokens.tobytes() + examples.starts.tobytes() + examples.first_label.tobytes()
    ).hexdigest()[:16]
