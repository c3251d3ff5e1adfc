"""The step that generation repeats: new tokens of each row through the whole model, as little else as possible.

The same mathematics as model.py's forward pass with a key-value cache, but weights are cast and laid out once per
model, a step makes no table, and the queries of a group share its keys without copies of them.

Shapes: B rows, T new tokens per row, N = B T, H query heads, K key-value heads, G = H / K, D head size, S positions in
the cache, C channels, V vocabulary.
"""

from functools import partial

import torch
import torch.nn.functional as F
from attention import KVCache, attention


class Weights:
    """A model's weights as functions of few rows (N, in), in the model's dtype and the fastest layout."""

    def __init__(self, model, rows: int):
        config, dtype, body = model.config, model.dtype, model.transformer

        def linear(module, size=None):
            return prepare(module.weight.detach()[:size], module.bias, dtype, rows)

        def norm(module):
            if module.kind == "none":
                return lambda x: x
            weight = module.weight.detach().to(dtype)
            if module.kind == "rmsnorm":
                return partial(F.rms_norm, normalized_shape=weight.shape, weight=weight, eps=module.eps)
            bias = None if module.bias is None else module.bias.detach().to(dtype)
            return partial(F.layer_norm, normalized_shape=weight.shape, weight=weight, bias=bias, eps=module.eps)

        self.head = linear(model.lm_head, config.vocab_size)
        self.last_norm = norm(body["ln_f"]) if "ln_f" in body else lambda x: x
        self.layers = [(*map(linear, (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)),
                        *map(norm, (block.ln_1, block.ln_2, block.attn.q_norm, block.attn.k_norm)))
                       for block in body["h"]]
        if config.position == "rope":  # (S, 1, D): cosines twice, sines with the sign of the half they are added to
            cos, sin = model.cos.to(dtype), model.sin.to(dtype)
            self.cos, self.sin = torch.cat([cos, cos], 1)[:, None], torch.cat([-sin, sin], 1)[:, None]


def weights_of(model, rows: int) -> Weights:
    """The model's Weights, kept in `model.laid_out` until one of the parameters changes."""
    key = (rows, *((p.data_ptr(), p._version) for p in model.parameters()))
    if getattr(model, "laid_out", None) is None or model.laid_out[0] != key:
        model.laid_out = key, Weights(model, rows)
    return model.laid_out[1]


class Decoder:
    """Bound to a model, its rows and an empty cache.

    hidden (B, S) bool marks the slots that a row must not see (padding on its left), None if there are none.
    """

    def __init__(self, model, cache: KVCache, rows: int, hidden: torch.Tensor | None = None):
        self.model, self.cache, self.hidden, self.weights = model, cache, hidden, weights_of(model, rows)

    def step(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The next tokens (B, T) at positions (B, T) -> logits (B, V) of what follows them."""
        model, config, cache, weights = self.model, self.model.config, self.cache, self.weights
        (B, T), H, K, D = tokens.shape, config.n_head, config.kv_heads, config.head_dim
        slot, end = cache.length, cache.length + T
        x = model.transformer["wte"].weight[tokens]  # (B, T, C)
        if config.position == "learned":
            x = x + model.transformer["wpe"].weight[positions]
        x = x.to(model.dtype).flatten(0, 1)  # (N, C)
        rotary = None
        if config.position == "rope":
            rotary = [table[positions.flatten()] for table in (weights.cos, weights.sin)]  # (N, 1, D)
        mask = self.mask(slot, end)
        for layer, (c_attn, c_proj, c_fc, c_proj_mlp, ln_1, ln_2, q_norm, k_norm) in enumerate(weights.layers):
            post = config.norm_place == "post"
            qkv = c_attn(x if post else ln_1(x)).reshape(B * T, H + 2 * K, D)
            qk = qkv[:, : H + K]
            if config.qk_norm:
                qk = torch.cat([q_norm(qk[:, :H]), k_norm(qk[:, H:])], 1)
            if rotary is not None:
                qk = torch.addcmul(qk * rotary[0], qk.roll(D // 2, -1), rotary[1])
            keys, values = cache.extend(layer, *(part.view(B, T, K, D).transpose(1, 2)
                                                 for part in (qk[:, H:], qkv[:, H + K:])))  # (B, K, S, D)
            if T == 1:
                # the G queries of a key-value head stand where attention has its time positions: nothing is repeated
                q = qk[:, :H].reshape(B, K, H // K, D)
                y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
            else:
                y = attention(qk[:, :H].reshape(B, T, H, D).transpose(1, 2), keys, values, mask).transpose(1, 2)
            x = x + c_proj(y.reshape(B * T, H * D))
            if post:
                x = ln_1(x)
            x = x + c_proj_mlp(activate(c_fc(x if post else ln_2(x)), config.mlp))
            if post:
                x = ln_2(x)
        cache.length = end
        return weights.head(weights.last_norm(x.view(B, T, -1)[:, -1].contiguous()))

    def mask(self, start: int, end: int) -> torch.Tensor | None:
        """What the positions from start to end see, (B, 1, T, end) bool; None: all before them."""
        if self.hidden is None:
            return None
        visible = ~self.hidden[:, None, None, :end]
        if end - start == 1:
            return visible
        slots = torch.arange(end, device=visible.device)
        own = slots == slots[start:, None]  # padding sees itself: no empty row
        return (slots <= slots[start:, None]) & visible | own


def prepare(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, rows: int):
    """Function x (N, in) -> x weight' + bias, made for N = rows; one row and few rows each have their own way on a CPU.

    A (50304, 768) head on one core, ms: one row in bf16 9.0 as F.linear has it, 3.7 by our loop, in fp32 11.8 and 6.5;
    16 rows in bf16 13.6 and 7.8 with the weight packed once by oneDNN, in fp32 35.5 and 18.2.
    """
    weight = weight.to(dtype)
    bias = None if bias is None else bias.detach().to(dtype)
    if weight.device.type != "cpu":
        return lambda x: F.linear(x, weight, bias)
    if rows > 1:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    from cpu_kernels import matrix_vector

    def multiply(x):
        if len(x) > 1:  # a prompt
            return F.linear(x, weight, bias)
        y = matrix_vector(weight, x[0])[None]
        return y if bias is None else y + bias
    return multiply


def activate(x: torch.Tensor, kind: str) -> torch.Tensor:
    """What model.MLP does between its two matrices."""
    if kind == "swiglu":
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate) * up
    if kind == "relu2":
        return F.relu(x).square()
    return F.silu(x) if kind == "silu" else F.gelu(x, approximate="tanh")
