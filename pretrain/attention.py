"""One attention function that chooses its kernel by device, dtype and use.

Shapes: B batch, T query positions, S key positions, H query heads, K key-value heads, D head size.
"""

import functools
import math

import torch
import torch.nn.functional as F

# Queries per block of the CPU's causal attention: a block reads only the keys up to its end, and its scores stay small.
BLOCK = 128
STEP = 64  # a block's first key is a multiple of it: for every other number of keys oneDNN would make its kernels anew


def eager_cpu(x: torch.Tensor) -> bool:
    """Whether layers run as loops of our own: on a CPU, unless torch.compile makes loops of its own."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def attention(q, k, v, mask=None) -> torch.Tensor:
    """Softmax attention, softmax(q k' / sqrt(D)) v (Vaswani et al. 2017, eq. 1), causal.

    q (B, H, T, D), k and v (B, K, S, D) -> (B, H, T, D). The T queries are the last T of the S positions.
    A boolean mask, broadcastable to (B, H, T, S), True where a query may look, replaces the causal rule, as does
    FlexAttention's mask by blocks; integers (B, T), the first key that each query may see, narrow it (T = S).
    """
    H, T, S = q.shape[1], q.shape[2], k.shape[2]
    if not (mask is None or isinstance(mask, torch.Tensor)):
        from torch.nn.attention.flex_attention import flex_attention

        return flex_attention(q, k, v, block_mask=mask, enable_gqa=k.shape[1] != H)
    on_cpu = q.device.type == "cpu"
    wanted = torch.is_grad_enabled() if mask is None else mask.dtype != torch.bool
    if wanted and eager_cpu(q) and T == S > 1:
        return CausalAttention.apply(q, repeat_heads(k, H), repeat_heads(v, H), mask)
    if mask is not None and mask.dtype != torch.bool:
        mask = visible_from(mask)
    if mask is None and 1 < T < S:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    if on_cpu or mask is not None:  # kernels without a grouped form: a CPU's, and those of a GPU that take a mask
        k, v = repeat_heads(k, H), repeat_heads(v, H)
    return fused_attention(q, k, v, attn_mask=mask, is_causal=mask is None and T > 1, enable_gqa=k.shape[1] != H)


def fused_attention(q, k, v, **options) -> torch.Tensor:
    """PyTorch's function, outside of compiled blocks, where lengths vary, without cuDNN's kernels.

    On Hopper these come first (PyTorch 2.11), and for every new shape one is made, tens of milliseconds of the host's
    time: in generation for every token.
    """
    if q.device.type == "cpu" or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v, **options)
    allowed = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        return F.scaled_dot_product_attention(q, k, v, **options)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(allowed)


def plain_attention(q, k, v, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The formula written out, with scores and softmax in fp32: the reference that the tests compare with."""
    T, S = q.shape[2], k.shape[2]
    if mask is None:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    scores = (q @ k.transpose(-2, -1)).float() * (1 / math.sqrt(q.shape[-1]))  # (B, H, T, S)
    return scores.masked_fill(~mask, float("-inf")).softmax(-1).to(q.dtype) @ v


def repeat_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, K, S, D) -> (B, H, S, D): head h of the queries reads key-value head h // (H / K)."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


class CausalAttention(torch.autograd.Function):
    """Training on a CPU: matrix products as PyTorch has them, softmax in place by a compiled loop.

    Forward and backward take half the time of PyTorch's fused kernel at T = 256, in fp32 three quarters (NOTES.md).
    Heads and sequences are one dimension here, N = B x H. With `starts` (B, T), the first key of each query, keys
    before a block's are not read.
    """

    @staticmethod
    def forward(ctx, q, k, v, starts):
        """Causal attention (B, H, T, D) of q, k, v (B, H, T, D), in memory as (B, T, H, D), which the model reads."""
        from cpu_kernels import causal_softmax_

        B, H, T, D = q.shape
        q, k, v = (x.reshape(B * H, T, D) for x in (q, k, v))
        y, kept = q.new_empty(B, T, H, D).transpose(1, 2), []
        for sequences, heads, queries, keys, first in blocks(B, H, T, starts):
            weights = q[heads, queries] @ k[heads, keys].mT  # (N, block, keys)
            causal_softmax_(weights, D**-0.5, first)
            y[sequences, :, queries] = (weights @ v[heads, keys]).view(-1, H, weights.shape[1], D)
            kept.append(weights)
        ctx.save_for_backward(q, k, v, starts, *kept)
        return y

    @staticmethod
    def backward(ctx, grad):
        """Gradients of q, k, v, each (B, H, T, D)."""
        from cpu_kernels import causal_softmax_backward_

        q, k, v, starts, *kept = ctx.saved_tensors
        B, H, T, D = shape = grad.shape
        grad = grad.reshape(q.shape)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (_, heads, queries, keys, first), weights in zip(blocks(B, H, T, starts), kept, strict=True):
            dv[heads, keys] += weights.mT @ grad[heads, queries]
            scores = grad[heads, queries] @ v[heads, keys].mT
            causal_softmax_backward_(weights, scores, D**-0.5, first)
            dq[heads, queries] = scores @ k[heads, keys]
            dk[heads, keys] += scores.mT @ q[heads, queries]
        return dq.view(shape), dk.view(shape), dv.view(shape), None


def blocks(B: int, H: int, T: int, starts: torch.Tensor | None):
    """Blocks of queries: what a product of CausalAttention reads.

    Yields slices of the sequences, of the B x H heads, of the queries, of the keys, and (block,) the first key for each
    query, counted from the slice's. Without `starts` a block is of all sequences; with them it is of one, whose
    documents are its own, and twice as long.
    """
    together, length = (B, BLOCK) if starts is None else (1, 2 * BLOCK)
    if starts is None:
        starts = torch.zeros(1, T, dtype=torch.long)
    for b in range(0, B, together):
        for start in range(0, T, length):
            queries = slice(start, min(start + length, T))
            first = starts[b, queries]
            keys = slice(int(first[0]) // STEP * STEP, queries.stop)
            yield slice(b, b + together), slice(b * H, (b + together) * H), queries, keys, first - keys.start


def document_starts(tokens: torch.Tensor, end_of_text: int) -> torch.Tensor:
    """Where the document of each token begins, (B, T) of tokens (B, T). An end-of-text belongs to what it ends."""
    begins = F.pad(tokens[:, :-1] == end_of_text, (1, 0))  # [7, eot, 8, 9] -> [0, 0, 1, 0]; starts [0, 0, 2, 2]
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    return torch.where(begins, positions, 0).cummax(1).values


def document_mask(tokens: torch.Tensor, end_of_text: int, compiled: bool, head_dim: int):
    """The mask of tokens (B, T) that do not look across an end-of-text, in the form that `attention` is fastest with.

    A CPU's loops take the documents' first positions, (B, T); compiled blocks on a GPU a mask by blocks, of which
    those that no document touches cost nothing; all else bool (B, 1, T, T).
    """
    starts = document_starts(tokens, end_of_text)
    if eager_cpu(tokens):
        return starts
    power_of_two = head_dim & (head_dim - 1) == 0
    return mask_by_blocks(starts) if compiled and power_of_two and head_dim >= 16 else visible_from(starts)


def mask_by_blocks(starts: torch.Tensor):
    """The causal mask of queries that see keys from starts (B, T) on, for FlexAttention (Dong et al. 2024)."""

    def visible(b, h, query, key):
        return (key <= query) & (key >= starts[b, query])

    B, T = starts.shape
    return block_mask_maker()(visible, B, None, T, T, device=starts.device)


@functools.cache
def block_mask_maker():
    """FlexAttention's, compiled: as it comes it writes the (B, T, T) down."""
    from torch.nn.attention.flex_attention import create_block_mask

    return torch.compile(create_block_mask)


def visible_from(starts: torch.Tensor) -> torch.Tensor:
    """The causal mask, bool (B, 1, T, T), of queries that see keys from starts (B, T) on."""
    positions = torch.arange(starts.shape[1], device=starts.device)
    return ((positions <= positions[:, None]) & (positions >= starts[:, :, None]))[:, None]
