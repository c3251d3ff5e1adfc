"""Causal attention within each sequence of a packed row, for every Hugging Face family.

A model's linear layers and norms do not care where a sequence ends; attention does, and transformers lets it be
replaced: the registered function gets the layout (packing.py) as a keyword argument that the model hands down.

On a GPU in 16 bits attention is torch's variable-length flash kernel. Elsewhere sequences of similar length go through
one call together, right-padded for that moment only: a causal query never sees what lies to its right, so padding
needs no mask. A beginning that sequences share is copied to each of them, so that all see their own keys.

Shapes: N tokens of the row, n sequences, S the longest of a group, H heads, D head
size, D_v that of the values where it is another.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from finetune_settings import InputError
from packing import Group, Layout
from torch import Tensor
from transformers import AttentionInterface

NAME = "packed_causal"
KEPT = 128  # tokens; probabilities of longer sequences are not kept for the backward pass but made again


def use_packed_attention(model):
    """Makes the model attend within the sequences of `pack`."""
    AttentionInterface.register(NAME, packed_causal_attention)
    if not model._can_set_attn_implementation():
        raise InputError(
            f"{type(model).__name__} has an attention of its own that cannot be replaced; use --packing False"
        )
    if model.config._attn_implementation != NAME:
        model.unpacked_attention = model.config._attn_implementation
        model.set_attn_implementation(NAME)
    return model


@contextmanager
def own_attention(model):
    """The model with the attention that it came with, to generate and to be saved."""
    packed = model.config._attn_implementation == NAME
    if packed:
        model.set_attn_implementation(model.unpacked_attention)
    try:
        yield
    finally:
        if packed:
            model.set_attn_implementation(NAME)


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
    """Attention within each sequence. query and key (1, H, N, D), value (1, H_kv, N, D_v) -> ((1, N, H, D_v), None)."""
    if layout is None:
        raise InputError(
            f"{type(module).__name__} does not hand the packing layout to its attention; use --packing False"
        )
    if options.get("softcap") is not None or options.get("s_aux") is not None:
        raise InputError(f"{type(module).__name__} uses soft-capped or sink attention; use --packing False")
    window = sliding_window if sliding_window is not None and sliding_window < layout.longest else None
    shared = query.shape[1] // key.shape[1]  # query heads to each key head
    q, k, v = (query[0], *(t[0].repeat_interleave(shared, 0) if shared > 1 else t[0] for t in (key, value)))
    if torch.is_autocast_enabled(q.device.type):
        q, k, v = (t.to(torch.get_autocast_dtype(q.device.type)) for t in (q, k, v))
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    plain = dropout == 0
    if plain and q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        out = flash_attention(q, k, v, layout, scale, window)
    elif plain and not q.is_cuda and q.dtype == torch.bfloat16:
        out = ShortAttention.apply(q, k, v, layout, scale, window)
    else:
        out = grouped_attention(q, k, v, layout, scale, dropout, window)
    return out.transpose(0, 1)[None].contiguous(), None  # some families take a view of it


def flash_attention(query, key, value, layout, scale, window):
    """All sequences in one call of torch's variable-length kernel (CUDA, 16 bits). (H, N, D) each -> (H, N, D)."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (tensor.transpose(0, 1).index_select(0, layout.flat) for tensor in (query, key, value))  # (flat, H, D)
    ends, longest = layout.cumulative, layout.longest
    left = -1 if window is None else window - 1
    out = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale, window_size=(left, 0))
    return out.index_select(0, layout.first).transpose(0, 1)


def grouped_attention(query, key, value, layout, scale, dropout, window):
    """Sequences of similar length together, by torch's own attention. Query and key (H, N, D) -> (H, N, D_v)."""
    outputs = torch.zeros_like(value)
    for group in layout.groups:
        q, k, v = (select(tensor, group).unflatten(0, (-1, group.sequences)) for tensor in (query, key, value))
        seen = None if window is None or window >= group.longest else visible(group.longest, window, q.device)
        out = F.scaled_dot_product_attention(q, k, v, seen, dropout, is_causal=seen is None, scale=scale)
        outputs = outputs.index_copy(1, group.tokens, out.flatten(1, 2).index_select(1, group.own))
    return outputs


def select(tensor: Tensor, group: Group) -> Tensor:
    """The group's sequences, padded: (H, N, D) -> (H n, S, D)."""
    return tensor.index_select(1, group.gather).view(-1, group.longest, tensor.shape[2])


class ShortAttention(torch.autograd.Function):
    """Causal attention written out as batched products: on CPUs, in bf16, 1.6 to 6 times as fast as PyTorch's fused
    kernel.

    Probabilities (H n, S, S) are kept, in bf16, while S <= KEPT; else they are made again in the backward pass (Dao et
    al. 2022, arXiv:2205.14135, section 3.1). Gradients differ from fp32's by 0.5-0.9% where the kernel's differ by
    0.4-0.6%.
    """

    @staticmethod
    def forward(ctx, query, key, value, layout, scale, window):
        """Query and key (H, N, D), value (H, N, D_v) -> (H, N, D_v)."""
        query, key, value = (tensor.contiguous() for tensor in (query, key, value))
        out, saved = torch.empty_like(value), []
        for group in layout.groups:
            q, k, v = (select(tensor, group) for tensor in (query, key, value))
            p = probabilities(q, k, scale, window)
            place(out, group, torch.bmm(p, v))
            saved += [q, k, v, p if group.longest <= KEPT else None]
        ctx.save_for_backward(*saved)
        ctx.size, ctx.layout, ctx.scale, ctx.window = query.shape, layout, scale, window
        return out

    @staticmethod
    def backward(ctx, g):
        """Gradients of query, key and value for g (H, N, D_v)."""
        from cpu_loops import add_rows_, causal_softmax_backward_

        g, (H, N, D), kept = g.contiguous(), ctx.size, ctx.saved_tensors  # checkpointing lets them be read once only
        gradients = [torch.zeros(H, N, size, dtype=g.dtype) for size in (D, D, g.shape[2])]
        for i, group in enumerate(ctx.layout.groups):
            q, k, v, p = kept[4 * i : 4 * i + 4]
            p = probabilities(q, k, ctx.scale, ctx.window) if p is None else p
            padded = torch.zeros(len(g), len(group.gather), g.shape[2], dtype=g.dtype)  # 0 where nothing counts
            padded.index_copy_(1, group.own, g.index_select(1, group.tokens))
            padded = padded.view(v.shape)
            ds = torch.bmm(padded, v.transpose(1, 2))
            causal_softmax_backward_(p, ds, ctx.scale, ctx.window)
            parts = torch.bmm(ds, k), torch.bmm(ds.transpose(1, 2), q), torch.bmm(p.transpose(1, 2), padded)
            for total, part in zip(gradients, parts, strict=True):  # a shared token's gradients add up
                add_rows_(total, group.gather, part.view(H, -1, total.shape[2]))
        return *gradients, None, None, None


def place(out: Tensor, group: Group, part: Tensor):
    """Writes the group's outputs (H n, S, D) to their tokens in out (H, N, D)."""
    out.index_copy_(1, group.tokens, part.view(len(out), -1, part.shape[2]).index_select(1, group.own))


def probabilities(q, k, scale, window):
    """softmax(scale q k^T) over what each position may see, (H n, S, S)."""
    from cpu_loops import causal_softmax_

    scores = torch.bmm(q, k.transpose(1, 2))
    causal_softmax_(scores, scale, window)
    return scores


def visible(length: int, window: int | None, device) -> Tensor:
    """(S, S) bool: query i sees key j if i - window < j <= i."""
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return seen if window is None else seen.triu(1 - window)
