"""--init_from: train a model further, of Hugging Face or of an earlier run, on other text."""

import dataclasses
import math

import torch
from checkpoint import differences
from convert import load_any, read_tokenizer
from model import GPT
from presets import InputError
from shards import Split

# What may differ from the model that is trained further: no weight depends on it, or `fill` knows what to do.
FREE = ("vocab_size", "pad_vocab", "block_size", "rope_theta", "rope_factor", "rope_original", "embedding_std",
        "zero_init", "document_mask", "end_of_text")


def fill(model: GPT, source, split: Split):
    """Give `model` the weights of `source`, a folder, run or hub name.

    The model may have fewer learned positions, and more tokens: those begin as the mean of all others (Hewitt 2021,
    https://nlp.stanford.edu/~johnhew/vocab-expansion.html). InputError if it is of another architecture otherwise, or
    the shards are of another tokenizer.
    """
    known, folder = load_any(source)
    check_tokenizer(source, folder, split, known.config.vocab_size)
    theirs, ours = ({name: value for name, value in dataclasses.asdict(config).items() if name not in FREE}
                    for config in (known.config, model.config))
    changed = differences(theirs, ours)
    if changed:
        raise InputError(f"--init_from {source} has another architecture; leave these flags out. It has -> they say:\n"
                         "  " + "\n  ".join(changed))
    there, wanted = known.config.vocab_size, model.config.vocab_size
    if wanted < there:
        raise InputError(f"--vocab_size {wanted}: --init_from {source} has {there} tokens, and none can be left out")
    if model.config.position == "learned" and model.config.block_size > known.config.block_size:
        raise InputError(f"--block_size {model.config.block_size}: --init_from {source} has learned "
                         f"{known.config.block_size} positions and no more")
    weights = dict(known.named_parameters())
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in ("transformer.wte.weight", "lm_head.weight"):
                p[:there] = weights[name][:there]
                p[there:] = weights[name][:there].mean(0)
            else:
                p.copy_(weights[name][: len(p)])


def check_tokenizer(source, folder, split: Split, size: float = math.inf):
    """Refuse shards that another tokenizer made than that of the source, which lies in `folder`.

    Tokens from number `size` on, or behind the last of the source's own, are new and may be any. Where either has no
    tokenizer.json, nothing can be said.
    """
    if folder is None or split.tokenizer is None:
        return
    theirs, ours = read_tokenizer(folder, source).get_vocab(), split.tokenizer.get_vocab()
    size = min(size, max(theirs.values()) + 1) if size < math.inf else size
    other = next((token for token, number in ours.items() if number < size and theirs.get(token) != number), None)
    if other is not None:
        raise InputError(f"{split.folder} was encoded by another tokenizer than {source} has: {other!r} is token "
                         f"{ours[other]} in one, {theirs.get(other, 'none')} in the other; encode the text with it: "
                         f"python bpe/run.py encode TEXT --tokenizer {folder} --out OTHER_FOLDER")
