"""How well models foretell a text: nats per token, perplexity, and bits per byte, which compares any vocabularies.

    python pretrain/perplexity.py data/models/stories --data data/tokens/stories                 # the shards' val split
    python pretrain/perplexity.py gpt2 data/models/stories --text data/text/stories/val.txt      # each by its tokenizer

Every token but the first is predicted once, from those before it in its window; the windows do not overlap. In a text
file the documents end with <|endoftext|>, as in data/text/; a model whose tokenizer has no such token reads its own.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from presets import InputError, read_settings, run_command
from whole_file import read_bytes

SEPARATOR = "<|endoftext|>"


@dataclass
class Settings:
    """What to measure, on which text."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional]  # exported folders, run folders, hub names
    text: Path | None = None  # text file, UTF-8, .gz too
    data: Path | None = None  # instead of it: folder of shards, made by the model's own tokenizer
    split: Literal["val", "train"] = "val"  # of the shards
    tokens: int = 0  # only this many tokens from the start; 0 = all
    sequence: int = 0  # tokens of a window; 0 = what the model was made for, at most 1024
    micro_batch: int = 8  # windows at once
    device: str = "auto"  # auto, cpu, cuda
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"  # of the forward pass; bfloat16 is faster
    threads: int = 0  # CPU threads; 0 = all cores
    debug: bool = False  # show tracebacks of input errors


def check(settings: Settings):
    """Refuse what cannot be measured."""
    if not settings.sources:
        raise InputError("name one model or several: exported folders, run folders, hub names")
    if (settings.text is None) == (settings.data is None):
        raise InputError("give either --text FILE or --data FOLDER, the text to foretell")
    for name, least in (("tokens", 0), ("sequence", 0), ("micro_batch", 1), ("threads", 0)):
        if getattr(settings, name) < least:
            raise InputError(f"--{name} {getattr(settings, name)}: {least} or more")


def read_documents(path: Path) -> list[str]:
    """The documents of a text file, without the line ends that make a line of the separator."""
    if path.name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson", ".json", ".csv", ".parquet")):
        raise InputError(f"{path} holds texts among other things; python data/prepare.py file {path} --name NAME takes "
                         "them out, into data/text/NAME")
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from None
    first, *others = text.split(SEPARATOR)
    documents = [first, *(part.removeprefix("\r\n" if part.startswith("\r\n") else "\n") for part in others)]
    for i in range(len(others)):  # those that a separator ends
        documents[i] = documents[i].removesuffix("\r\n" if documents[i].endswith("\r\n") else "\n")
    documents = [document for document in documents if document]
    if not documents:
        raise InputError(f"{path} has no text")
    return documents


def encoded(documents: list[str], tokenizer, end_of_text: int | None, path: Path):
    """The documents' tokens as a Split, each followed by the end of text; `end_of_text` is the model's own."""
    import numpy as np
    from shards import Split

    usual = tokenizer.token_to_id(SEPARATOR)
    end_of_text = end_of_text if usual is None else usual
    end = [] if end_of_text is None else [end_of_text]
    rows = tokenizer.encode_batch(documents, add_special_tokens=False)
    ids = np.array([token for row in rows for token in [*row.ids, *end]], np.uint32)
    size = sum(len(document.encode()) for document in documents)
    return Split.of_tokens(ids, size, tokenizer, end_of_text, path, "text")


def main(settings: Settings):
    """Measure one model after the other."""
    check(settings)
    from convert import load_any, read_tokenizer
    from evaluate import progress_bar, validation_loss
    from init_from import check_tokenizer
    from shards import Split
    from world import World

    world = World(settings.device, settings.dtype, settings.threads, 300)
    if settings.data:
        split = world.agree(Split, settings.data, settings.split)
        world.agree(split.verify, world.rank, world.size)
    else:
        documents = world.agree(read_documents, settings.text)
    width = max(len("model"), *map(len, settings.sources))
    for number, source in enumerate(settings.sources):
        model, folder = world.agree(load_any, source, world.dtype)
        if settings.data:
            world.agree(check_tokenizer, source, folder, split)
        else:
            tokenizer = world.agree(read_tokenizer, folder, source)
            split = encoded(documents, tokenizer, model.config.end_of_text, settings.text)
        T = settings.sequence or min(model.config.block_size, 1024)
        if model.config.block_size < T:
            raise InputError(f"--sequence {T}: {source} was made for {model.config.block_size} positions")
        if split.largest >= model.config.vocab_size:
            raise InputError(f"{split.folder} holds token {split.largest}, {source} has {model.config.vocab_size:,} "
                             "only: another model's tokenizer?")
        model = model.to(world.device).eval()
        with progress_bar(source, world.main) as before_batch:
            result = validation_loss(model, split, T, settings.micro_batch, settings.tokens, world, before_batch)
        loss = result["val_loss"]
        if world.main:
            if number == 0:  # not above an error
                print(f"{'model':{width}}  nats/token  perplexity  bits/byte      tokens")
            perplexity = f"{math.exp(loss):.4g}" if loss < 700 else "inf"
            print(f"{source:{width}}  {loss:10.4f}  {perplexity:>10}  {result['val_bpb']:9.4f}  "
                  f"{result['val_tokens']:10,}", flush=True)
    world.close()


if __name__ == "__main__":
    run_command(main, lambda: read_settings(Settings, __doc__))
