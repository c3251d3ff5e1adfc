"""Sequences laid end to end without padding, and causal attention that keeps them apart, for every Hugging Face
family.

    batch = pack(examples, [4, 0, 7], device)         # one row of N tokens, positions starting anew in each sequence
    use_packed_attention(model)
    hidden = model.base_model(**batch.inputs).last_hidden_state

With random batches of 16 only 39% of Alpaca's positions are text: padding is the largest waste in fine-tuning. The
model's linear layers and norms do not care where a sequence ends; attention does, and transformers lets it be
replaced: the registered function gets the layout as a keyword argument that the model hands down.

On a GPU in 16 bits attention is torch's variable-length flash kernel. Elsewhere sequences of similar length go
through `scaled_dot_product_attention` together, right-padded for that moment only: a causal query never sees what
lies to its right, so padding needs no mask.

Shapes: B rows, T positions, N tokens of all sequences, n sequences, S the longest of a group, H heads, D head size, M
labels.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from finetune_settings import InputError
from instructions import Examples
from torch import Tensor
from transformers import AttentionInterface

WASTE = 1.25  # a group of sequences may be padded up to this many times its tokens
NAME = "packed_causal"


@dataclass
class Group:
    """Sequences that attend in one call. `gather` (n, S) are their flat positions, None where all have S tokens."""

    start: int
    stop: int
    sequences: int
    longest: int
    gather: Tensor | None


@dataclass
class Batch:
    """A micro-batch: the model's keyword arguments, and what is to be predicted."""

    inputs: dict
    predict: Tensor  # (M,) flat positions whose next token carries a label
    targets: Tensor  # (M,) those tokens
    tokens: int  # real tokens, without padding


def group_by_length(lengths: list[int]) -> list[tuple[int, int]]:
    """Splits lengths, longest first, into runs [from, to) whose padded size is at most WASTE times their sum.

    >>> group_by_length([10, 9, 4, 4])
    [(0, 2), (2, 4)]
    """
    runs, first, total = [], 0, 0
    for i, length in enumerate(lengths):
        if i > first and lengths[first] * (i - first + 1) > WASTE * (total + length):
            runs.append((first, i))
            first, total = i, 0
        total += length
    return [*runs, (first, len(lengths))]


class Layout:
    """Where sequences of these lengths, longest first, lie in a packed row.

    For the flash kernel `cumulative` (n + 1) int32; for the padded way `groups`, and `restore` (N,), the position of
    each token among the padded outputs of all groups, None if nothing is padded. Each is made when first asked for.
    """

    def __init__(self, lengths: list[int], device):
        self.lengths, self.device, self.longest = lengths, device, lengths[0]
        self.starts = np.concatenate([[0], np.cumsum(lengths)])

    @cached_property
    def cumulative(self) -> Tensor:
        """Start of each sequence, and the end of the last."""
        return torch.from_numpy(self.starts.astype(np.int32)).to(self.device)

    @cached_property
    def groups(self) -> list[Group]:
        """Runs of sequences of similar length."""
        groups = []
        for first, last in group_by_length(self.lengths):
            longest, start, stop = self.lengths[first], int(self.starts[first]), int(self.starts[last])
            gather = None
            if self.lengths[last - 1] < longest:  # padding repeats a sequence's last token
                inside = np.minimum(np.arange(longest), np.asarray(self.lengths[first:last])[:, None] - 1)
                gather = torch.from_numpy(self.starts[first:last, None] + inside).to(self.device)
            groups.append(Group(start, stop, last - first, longest, gather))
        return groups

    @cached_property
    def restore(self) -> Tensor | None:
        """Index of the real tokens among the padded ones."""
        parts, padded = [], 0
        for first, last in group_by_length(self.lengths):
            longest, rows = self.lengths[first], self.lengths[first:last]
            parts += [padded + row * longest + np.arange(length) for row, length in enumerate(rows)]
            padded += longest * len(rows)
        return torch.from_numpy(np.concatenate(parts)).to(self.device) if padded > self.starts[-1] else None


def pack(examples: Examples, chosen, device="cpu") -> Batch:
    """The chosen examples as one row (1, N), longest first."""
    chosen = sorted(chosen, key=lambda i: (-len(examples[i]), i))
    rows = [examples[i] for i in chosen]
    lengths = [len(row) for row in rows]
    tokens = np.concatenate(rows).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    labelled = np.concatenate(
        [np.arange(starts[k] + examples.first_label[i], starts[k + 1]) for k, i in enumerate(chosen)]
    )
    positions = np.concatenate([np.arange(length) for length in lengths])
    inputs = {
        "input_ids": torch.from_numpy(tokens)[None].to(device),
        "position_ids": torch.from_numpy(positions)[None].to(device),
        "layout": Layout(lengths, device),
    }
    return Batch(
        inputs, torch.from_numpy(labelled - 1).to(device), torch.from_numpy(tokens[labelled]).to(device), len(tokens)
    )


def pad(examples: Examples, chosen, device="cpu", pad_id: int = 0) -> Batch:
    """The chosen examples as rows (B, T) padded on the right with pad_id. No mask is needed: attention is causal."""
    rows = [examples[i] for i in chosen]
    longest = max(len(row) for row in rows)
    ids = np.full((len(rows), longest), pad_id, np.int64)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    labelled = np.concatenate(
        [k * longest + np.arange(examples.first_label[i], len(examples[i])) for k, i in enumerate(chosen)]
    )
    return Batch(
        {"input_ids": torch.from_numpy(ids).to(device)},
        torch.from_numpy(labelled - 1).to(device),
        torch.from_numpy(ids.reshape(-1)[labelled]).to(device),
        sum(len(row) for row in rows),
    )


def packed_causal_attention(
    module,
    query,
    key,
    value,
    attention_mask,
    scaling=None,
    dropout=0.0,
    sliding_window=None,
    layout: Layout | None = None,
    **options,
):
    """Attention within each sequence. query (1, H, N, D), key and value (1, H_kv, N, D) -> ((1, N, H, D), None)."""
    if layout is None:
        raise InputError(
            f"{type(module).__name__} does not hand the packing layout to its attention; use --packing False"
        )
    if options.get("softcap") is not None or options.get("s_aux") is not None:
        raise InputError(f"{type(module).__name__} uses soft-capped or sink attention; use --packing False")
    window = sliding_window if sliding_window is not None and sliding_window < layout.longest else None
    shared = query.shape[1] // key.shape[1]  # query heads to each key head
    q, k, v = (query[0], *(t[0].repeat_interleave(shared, 0) if shared > 1 else t[0] for t in (key, value)))
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and dropout == 0:
        out = flash_attention(q, k, v, layout, scaling, window)
    else:
        out = grouped_attention(q, k, v, layout, scaling, dropout, window)
    return out[None], None


def flash_attention(query, key, value, layout, scaling, window):
    """All sequences in one call of torch's variable-length kernel (CUDA, 16 bits). (H, N, D) each -> (N, H, D)."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (tensor.transpose(0, 1) for tensor in (query, key, value))  # (N, H, D)
    ends, longest = layout.cumulative, layout.longest
    left = -1 if window is None else window - 1
    return varlen_attn(q, k, v, ends, ends, longest, longest, scale=scaling, window_size=(left, 0))


def grouped_attention(query, key, value, layout, scaling, dropout, window):
    """Sequences of similar length together, padded. query, key, value (H, N, D) -> (N, H, D)."""
    heads, _, size = query.shape
    outputs = []
    for group in layout.groups:
        q, k, v = (select(tensor, group) for tensor in (query, key, value))  # (n, H, S, D)
        if not q.is_cuda and q.dtype == torch.bfloat16 and dropout == 0:
            out = ShortAttention.apply(q, k, v, size**-0.5 if scaling is None else scaling, window)
        else:
            seen = None if window is None or window >= group.longest else visible(group.longest, window, q.device)
            out = F.scaled_dot_product_attention(q, k, v, seen, dropout, is_causal=seen is None, scale=scaling)
        outputs.append(out.transpose(1, 2).reshape(-1, heads, size))  # (n * S, H, D)
    out = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return out if layout.restore is None else out.index_select(0, layout.restore)


class ShortAttention(torch.autograd.Function):
    """Causal attention written out as batched products: on CPUs, in bf16, 1.6 to 6 times as fast as PyTorch's fused
    kernel.

    Like that one it keeps only q, k and v, and makes the probabilities again in the backward pass (Dao et al. 2022,
    arXiv:2205.14135, section 3.1); unlike it, the (n, H, S, S) probabilities of a group exist for a moment, in bf16:
    its gradients differ from fp32's by 0.5-0.9% where the kernel's differ by 0.4-0.6%.
    """

    @staticmethod
    def forward(ctx, query, key, value, scale, window):
        """query, key, value (n, H, S, D) -> (n, H, S, D)."""
        q, k, v = (tensor.reshape(-1, *tensor.shape[2:]) for tensor in (query, key, value))  # (n H, S, D)
        ctx.save_for_backward(q, k, v)
        ctx.scale, ctx.window = scale, window
        return torch.bmm(ShortAttention.probabilities(q, k, scale, window), v).view(query.shape)

    @staticmethod
    def backward(ctx, g):
        """Gradients of query, key and value for g (n, H, S, D)."""
        (q, k, v), shape = ctx.saved_tensors, g.shape
        g = g.reshape(q.shape)
        p = ShortAttention.probabilities(q, k, ctx.scale, ctx.window)
        dp = torch.bmm(g, v.transpose(1, 2))
        ds = torch._softmax_backward_data(dp, p, -1, dp.dtype).mul_(ctx.scale)
        return (
            torch.bmm(ds, k).view(shape),
            torch.bmm(ds.transpose(1, 2), q).view(shape),
            torch.bmm(p.transpose(1, 2), g).view(shape),
            None,
            None,
        )

    @staticmethod
    def probabilities(q, k, scale, window):
        """softmax(scale q k^T) over what each position may see, (n H, S, S)."""
        hidden = visible(q.shape[1], window, q.device).logical_not_()
        bias = torch.zeros(hidden.shape, dtype=q.dtype, device=q.device).masked_fill_(hidden, -torch.inf)
        return torch.softmax(torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale), dim=-1)


def visible(length: int, window: int | None, device):
    """(S, S) bool: query i sees key j if i - window < j <= i."""
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return seen if window is None else seen.triu(1 - window)


def select(tensor, group: Group):
    """The group's sequences, padded: (H, N, D) -> (n, H, S, D)."""
    whole = group.gather is None
    part = tensor[:, group.start : group.stop] if whole else tensor.index_select(1, group.gather.flatten())
    return part.unflatten(1, (group.sequences, group.longest)).transpose(0, 1)


def use_packed_attention(model):
    """Makes the model attend within the sequences of `pack`; model.set_attn_implementation("sdpa") undoes it."""
    AttentionInterface.register(NAME, packed_causal_attention)
    if not model._can_set_attn_implementation():
        raise InputError(
            f"{type(model).__name__} has an attention of its own that cannot be replaced; use --packing False"
        )
    model.set_attn_implementation(NAME)
    return model


def plan_epoch(lengths, per_update: int, seed: int, epoch: int, bucket: bool) -> list[np.ndarray]:
    """The examples of each optimiser update of one epoch, a permutation that depends on (seed, epoch) alone.

    The last update takes what is left. bucket: examples of 16 updates are sorted by length before they are cut into
    updates, so that padded rows of one update are of similar length; the updates are then shuffled.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    updates = [order[i : i + per_update] for i in range(0, len(order), per_update)]
    if not bucket:
        return updates
    updates = []
    for i in range(0, len(order), 16 * per_update):
        window = order[i : i + 16 * per_update]
        window = window[np.argsort(-np.asarray(lengths)[window], kind="stable")]
        updates += [window[j : j + per_update] for j in range(0, len(window), per_update)]
    return [updates[i] for i in random.permutation(len(updates))]
