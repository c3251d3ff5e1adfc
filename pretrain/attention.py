"""One attention function that chooses its kernel by device and length, and the key-value cache for generation.

Shapes: B batch, T query positions, S key positions, H query heads, K key-value heads, D head size, L layers.
"""

import math

import torch
import torch.nn.functional as F

# Up to this length a CPU is faster with the T x T scores written out, if the compiler fuses their softmax;
# the fused kernel wins beyond. Forward + backward at T=256: 7.6 against 18.3 ms, T=1024: 162 against 68 (NOTES.md).
PLAIN_UP_TO = 512


def attention(q, k, v, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Softmax attention, softmax(q k' / sqrt(D)) v (Vaswani et al. 2017, eq. 1), causal.

    q (B, H, T, D), k and v (B, K, S, D) -> (B, H, T, D). The T queries are the last T of the S positions.
    A boolean mask, broadcastable to (B, H, T, S), True where a query may look, replaces the causal rule.
    """
    T, S = q.shape[2], k.shape[2]
    grouped = q.shape[1] != k.shape[1]
    if mask is None and 1 < T < S:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    if q.device.type == "cpu" and T == S <= PLAIN_UP_TO and torch.compiler.is_compiling():
        return plain_attention(q, k, v, mask)
    if grouped and q.device.type == "cpu":  # the CPU's fused kernel has no grouped form
        k, v, grouped = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1]), False
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and T > 1, enable_gqa=grouped)


def plain_attention(q, k, v, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The formula written out, with scores and softmax in fp32; also the reference that the tests compare with."""
    T, S = q.shape[2], k.shape[2]
    if mask is None:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    scores = (q @ k.transpose(-2, -1)).float() * (1 / math.sqrt(q.shape[-1]))  # (B, H, T, S)
    return scores.masked_fill(~mask, float("-inf")).softmax(-1).to(q.dtype) @ v


def repeat_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, K, S, D) -> (B, H, S, D): head h of the queries reads key-value head h // (H / K)."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


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
