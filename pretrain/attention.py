"""One attention function that chooses its kernel by device, dtype and use, and the key-value cache for generation.

Shapes: B batch, T query positions, S key positions, H query heads, K key-value heads, D head size, L layers.
"""

import math

import torch
import torch.nn.functional as F

# Queries per block of the CPU's causal attention: a block reads only the keys up to its end, and its scores stay small.
BLOCK = 128


def eager_cpu(x: torch.Tensor) -> bool:
    """Whether layers run as loops of our own: on a CPU, unless torch.compile makes loops of its own."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def attention(q, k, v, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Softmax attention, softmax(q k' / sqrt(D)) v (Vaswani et al. 2017, eq. 1), causal.

    q (B, H, T, D), k and v (B, K, S, D) -> (B, H, T, D). The T queries are the last T of the S positions.
    A boolean mask, broadcastable to (B, H, T, S), True where a query may look, replaces the causal rule.
    """
    H, T, S = q.shape[1], q.shape[2], k.shape[2]
    on_cpu = q.device.type == "cpu"
    if on_cpu:  # its kernels have no grouped form
        k, v = repeat_heads(k, H), repeat_heads(v, H)
        if eager_cpu(q) and q.dtype == torch.bfloat16 and mask is None and T == S > 1 and torch.is_grad_enabled():
            return CausalAttention.apply(q, k, v)
    if mask is None and 1 < T < S:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    causal = mask is None and T > 1
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=k.shape[1] != H)


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
    """Training on a CPU in bf16: matrix products as PyTorch has them, softmax in place by a compiled loop.

    Forward and backward take half the time of PyTorch's fused kernel at T = 256 (NOTES.md). Heads and sequences are one
    dimension here, N = B x H.
    """

    @staticmethod
    def forward(ctx, q, k, v):
        """Causal attention (B, H, T, D) of q, k, v (B, H, T, D), in memory as (B, T, H, D), which the model reads."""
        from cpu_kernels import causal_softmax_

        B, H, T, D = q.shape
        q, k, v = (x.reshape(B * H, T, D) for x in (q, k, v))
        y, blocks = q.new_empty(B, T, H, D).transpose(1, 2), []
        for start in range(0, T, BLOCK):
            end = min(start + BLOCK, T)
            weights = q[:, start:end] @ k[:, :end].mT  # (N, block, keys)
            causal_softmax_(weights, D**-0.5)
            y[:, :, start:end] = (weights @ v[:, :end]).view(B, H, -1, D)
            blocks.append(weights)
        ctx.save_for_backward(q, k, v, *blocks)
        return y

    @staticmethod
    def backward(ctx, grad):
        """Gradients of q, k, v, each (B, H, T, D)."""
        from cpu_kernels import causal_softmax_backward_

        q, k, v, *blocks = ctx.saved_tensors
        shape, T = grad.shape, grad.shape[2]
        grad, scale = grad.reshape(q.shape), q.shape[-1] ** -0.5
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for start, weights in zip(range(0, T, BLOCK), blocks, strict=True):
            end = min(start + BLOCK, T)
            dv[:, :end] += weights.mT @ grad[:, start:end]
            scores = grad[:, start:end] @ v[:, :end].mT
            causal_softmax_backward_(weights, scores, scale)
            dq[:, start:end] = scores @ k[:, :end]
            dk[:, :end] += scores.mT @ q[:, start:end]
        return dq.view(shape), dk.view(shape), dv.view(shape)


def document_mask(tokens: torch.Tensor, end_of_text: int) -> torch.Tensor:
    """Causal and within the document: tokens (B, T) -> bool (B, 1, T, T). The end-of-text belongs to what it ends."""
    ends = (tokens == end_of_text).long()
    document = ends.cumsum(1) - ends  # [7, eot, 8, 9] -> [0, 0, 1, 1]
    T = tokens.shape[1]
    causal = torch.ones(T, T, dtype=torch.bool, device=tokens.device).tril()
    return (causal & (document[:, :, None] == document[:, None, :]))[:, None]


class KVCache:
    """Keys and values of the positions seen so far, preallocated at the size of the key-value heads.

    `model(tokens, cache=cache)` writes the new positions behind the old ones and advances `length`.
    """

    def __init__(self, config, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str = "cpu"):
        shape = (config.n_layer, batch, config.kv_heads, capacity, config.head_dim)  # (L, B, K, S, D)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.length = 0
        self.capacity = capacity

    def extend(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store k, v (B, K, T, D) of the new positions; returns all so far, (B, K, length + T, D)."""
        end = self.length + k.shape[2]
        if end > self.capacity:
            raise ValueError(f"key-value cache holds {self.capacity} positions, {end} are needed")
        self.keys[layer, :, :, self.length:end] = k
        self.values[layer, :, :, self.length:end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
