"""Validation loss over a fixed, complete set of windows, spread over the processes.

Shapes: B windows of a batch, T tokens of a window.
"""

import contextlib
import math

import numpy as np
import torch
from presets import InputError
from shards import Split
from tqdm import tqdm


@contextlib.contextmanager
def progress_bar(what: str, active: bool = True):
    """A `before_batch` of the functions that evaluate, which shows in a terminal how far they are."""
    with tqdm(desc=what, unit="batch", leave=False, dynamic_ncols=True, disable=None if active else True) as bar:
        def show(number, of):
            bar.total = of
            bar.update(number - bar.n)

        yield show


@torch.no_grad()
def validation_loss(model, split: Split, T: int, micro_batch: int, limit: int, world,
                    before_batch=lambda batches, of: None) -> dict:
    """Mean loss of the first `limit` tokens (0 = all) of the split.

    Returns {"val_loss": nats, "val_bpb": bits per byte, "val_tokens": targets}. Each of the N - 1 tokens that have a
    predecessor is a target exactly once, in windows of T (the last one shorter), so the mean is exact, and the same for
    any number of processes up to the order of summation. Draws no random numbers. before_batch(number, of how many) is
    called before each batch of a process, in all processes at the same one; it may raise an exception in all.
    """
    targets = split.tokens - 1 if not limit else min(limit, split.tokens - 1)
    if targets < 1:
        raise InputError(f"{split.folder}: split {split.name!r} has {split.tokens} tokens, too few for a loss")
    windows = -(-targets // T)
    batches = -(-windows // micro_batch)
    nats = 0.0
    turns = -(-batches // world.size)  # the same in all processes
    for turn in range(turns):
        before_batch(turn, turns)
        batch = turn * world.size + world.rank
        starts = np.minimum(np.arange(batch * micro_batch, (batch + 1) * micro_batch), windows) * T
        x, y = split.sequences(starts, T)
        y = y.masked_fill(torch.from_numpy(starts)[:, None] + torch.arange(T) >= targets, -1)  # beyond the end
        counted = int((y >= 0).sum())
        loss = model(x.to(world.device), y.to(world.device))
        nats += float(loss) * counted if counted else 0.0
    loss = world.sum(nats)[0] / targets
    seen = targets + 1  # the first token has bytes and no loss of its own
    return {"val_loss": loss, "val_bpb": loss / math.log(2) * seen / split.bytes_of_first(seen), "val_tokens": targets}
