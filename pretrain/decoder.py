"""The step that generation repeats: one new token per row through the whole model, as little else as possible.

The same mathematics as model.py's forward pass with a key-value cache, but weights are cast and laid out once, a step
makes no mask and no table, and the queries of a group share its keys without copies of them.

Shapes: B rows, H query heads, K key-value heads, G = H / K, D head size, S positions in the cache, C channels,
V vocabulary.
"""

import torch
import torch.nn.functional as F
from attention import KVCache


class Decoder:
    """Bound to a model, a number of rows and a cache that the prompts have filled.

    hidden (B, S) bool marks the slots that a row must not see (padding on its left), None if there are none; positions
    (B,) are those of the next token.
    """

    def __init__(self, model, cache: KVCache, positions: torch.Tensor, hidden: torch.Tensor | None = None):
        self.model, self.cache, self.positions = model, cache, positions
        self.visible = None if hidden is None else ~hidden[:, None, None, :]  # (B, 1, 1, S)
        config, dtype = model.config, model.dtype
        rows = len(positions)
        weight = model.lm_head.weight.detach()[: config.vocab_size]
        self.head = prepare(weight, None, dtype, rows)
        self.layers = []
        for block in model.transformer["h"]:
            parts = [prepare(linear.weight.detach(), linear.bias, dtype, rows) for linear in
                     (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)]
            self.layers.append((block, *parts))
        if config.position == "rope":  # (S, 1, D): cosines twice, sines with the sign of the half they are added to
            cos, sin = model.cos.to(dtype), model.sin.to(dtype)
            self.cos, self.sin = torch.cat([cos, cos], 1)[:, None], torch.cat([-sin, sin], 1)[:, None]

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens (B,) chosen last -> logits (B, V) of the next."""
        model, config, cache = self.model, self.model.config, self.cache
        B, H, K, D = len(tokens), config.n_head, config.kv_heads, config.head_dim
        slot, end = cache.length, cache.length + 1
        x = model.transformer["wte"].weight[tokens]  # (B, C)
        if config.position == "learned":
            x = x + model.transformer["wpe"].weight[self.positions]
        x = x.to(model.dtype)
        rotary = (self.cos[self.positions], self.sin[self.positions]) if config.position == "rope" else None
        mask = None if self.visible is None else self.visible[..., :end]
        for layer, (block, c_attn, c_proj, c_fc, c_proj_mlp) in enumerate(self.layers):
            qkv = c_attn(x if block.post else block.ln_1(x)).reshape(B, H + 2 * K, D)
            qk = qkv[:, : H + K]
            if config.qk_norm:
                qk = torch.cat([block.attn.q_norm(qk[:, :H]), block.attn.k_norm(qk[:, H:])], 1)
            if rotary is not None:
                qk = torch.addcmul(qk * rotary[0], qk.roll(D // 2, -1), rotary[1])
            cache.keys[layer, :, :, slot] = qk[:, H:]
            cache.values[layer, :, :, slot] = qkv[:, H + K:]
            # the G queries of a key-value head stand where attention has its time positions: nothing is repeated
            y = F.scaled_dot_product_attention(qk[:, :H].reshape(B, K, H // K, D), cache.keys[layer, :, :, :end],
                                               cache.values[layer, :, :, :end], attn_mask=mask)
            x = x + c_proj(y.reshape(B, H * D))
            if block.post:
                x = block.ln_1(x)
            x = x + c_proj_mlp(activate(c_fc(x if block.post else block.ln_2(x)), config.mlp))
            if block.post:
                x = block.ln_2(x)
        cache.length = end
        self.positions = self.positions + 1
        return self.head(model.transformer["ln_f"](x) if "ln_f" in model.transformer else x)


def prepare(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, rows: int):
    """Function x (B, in) -> x weight' + bias, with the layout in which this device multiplies few rows fastest.

    On a CPU in fp32 a (50304, 768) head takes 11.7 ms as F.linear has it and 6.0 ms transposed for one row; for 16 rows
    73.6 ms, and 18.7 ms with the weight as the left factor (2 cores, NOTES.md).
    """
    weight = weight.to(dtype)
    bias = None if bias is None else bias.detach().to(dtype)
    if weight.device.type == "cpu" and dtype == torch.float32:
        if rows == 1:
            columns = weight.t().contiguous()
            return (lambda x: x @ columns) if bias is None else (lambda x: torch.addmm(bias, x, columns))
        if bias is None:
            return lambda x: (weight @ x.t()).t()
        return lambda x: torch.addmm(bias[:, None], weight, x.t()).t()
    return lambda x: F.linear(x, weight, bias)


def activate(x: torch.Tensor, kind: str) -> torch.Tensor:
    """What model.MLP does between its two matrices."""
    if kind == "swiglu":
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate) * up
    if kind == "relu2":
        return F.relu(x).square()
    return F.silu(x) if kind == "silu" else F.gelu(x, approximate="tanh")
