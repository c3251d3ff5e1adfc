"""--init_from: train a model further, of Hugging Face or of an earlier run, on other text."""

import dataclasses

import torch
from checkpoint import differences
from convert import load_any, read_tokenizer
from model import GPT
from presets import InputError
from shards import Split, tokenizer_folder

# What may differ from the model that is trained further: no weight depends on it, but for positions that are left out.
FREE = ("block_size", "pad_vocab", "rope_theta", "rope_factor", "rope_original", "embedding_std", "zero_init",
        "document_mask", "end_of_text")


def check_tokenizer(source, folder, split: Split):
    """Refuse shards that another tokenizer made; `folder` holds the model's, where it has one."""
    if folder is None or not (tokenizer_folder(split.manifest) / "tokenizer.json").exists():
        return
    theirs = read_tokenizer(folder, source).get_vocab()
    ours = read_tokenizer(tokenizer_folder(split.manifest), split.folder).get_vocab()
    other = next((token for token, number in ours.items() if theirs.get(token) != number), None)
    if other is not None:
        raise InputError(f"{split.folder} was encoded by another tokenizer than {source} has: {other!r} is token "
                         f"{ours[other]} in one, {theirs.get(other, 'none')} in the other; encode the text with it: "
                         f"python bpe/run.py encode TEXT --tokenizer {folder} --out OTHER_FOLDER")


def fill(model: GPT, source, split: Split):
    """Give `model` the weights of `source` (a folder, run or hub name).

    Raises InputError if it has another architecture, or another tokenizer than made the shards.
    """
    known, folder = load_any(source)
    check_tokenizer(source, folder, split)
    theirs, ours = ({name: value for name, value in dataclasses.asdict(config).items() if name not in FREE}
                    for config in (known.config, model.config))
    changed = differences(theirs, ours)
    if changed:
        raise InputError(f"--init_from {source} has another architecture; leave these flags out. It has -> they say:\n"
                         "  " + "\n  ".join(changed))
    if model.config.position == "learned" and model.config.block_size > known.config.block_size:
        raise InputError(f"--block_size {model.config.block_size}: --init_from {source} has learned "
                         f"{known.config.block_size} positions and no more")
    weights = dict(known.named_parameters())
    with torch.no_grad():
        for name, p in model.named_parameters():
            rows = weights[name][: len(p)]  # of positions fewer, of padding fewer or more
            p[: len(rows)] = rows
