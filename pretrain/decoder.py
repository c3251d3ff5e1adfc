"""The step that generation repeats: new tokens of each row through the whole model, as little else as possible.

The same mathematics as model.py's forward pass with a key-value cache, but weights are cast and laid out once per
model. A block is four products and what lies between them: plain PyTorch here, compiled loops for a CPU in
cpu_decoder.py.

Shapes: B rows, T new tokens per row, N = B T, H query heads, K key-value heads, D head size, S positions in the cache,
C channels, V vocabulary, L layers.
"""

from functools import partial

import torch
import torch.nn.functional as F
from attention import attention, fused_attention


class Weights:
    """A model's weights in its dtype: the products, and the norms before them, as a kind of decoder has them."""

    def __init__(self, model, rows: int, kind: "type[Decoder]"):
        blocks, dtype = model.transformer["h"], model.dtype

        def product(module, size=None):
            bias = None if module.bias is None else module.bias.detach().to(dtype)
            return kind.product(module.weight.detach()[:size].to(dtype), bias, rows)

        def norm(module):
            return kind.norm(*(None if p is None else p.detach().to(dtype) for p in (module.weight, module.bias)),
                             module.kind, module.eps)

        self.blocks = [tuple(map(product, (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)))
                       for block in blocks]
        self.head = product(model.lm_head, model.config.vocab_size)
        # of x after each sum: 0 after the embedding, 2 l + 1 after layer l's attention, 2 l + 2 after its MLP
        self.norms = [norm(module) for block in blocks for module in (block.ln_1, block.ln_2)]
        if model.config.norm_place == "pre":
            self.norms.append(norm(model.transformer["ln_f"]))
        else:
            self.norms.insert(0, kind.norm(None, None, "none", 0.0))
        self.head_norms = [(norm(block.attn.q_norm), norm(block.attn.k_norm)) for block in blocks]


def weights_of(model, rows: int, kind: "type[Decoder]") -> Weights:
    """The model's Weights, kept in `model.laid_out` until one of the parameters changes."""
    key = (rows, kind, *((p.data_ptr(), p._version) for p in model.parameters()))
    if getattr(model, "laid_out", None) is None or model.laid_out[0] != key:
        model.laid_out = key, Weights(model, rows, kind)
    return model.laid_out[1]


def make_decoder(model, *arguments) -> "Decoder":
    """The Decoder for the model's device."""
    if model.lm_head.weight.device.type == "cpu":
        from cpu_decoder import CPUDecoder

        return CPUDecoder(model, *arguments)
    return Decoder(model, *arguments)


class KVCache:
    """Keys and values of the positions seen so far, preallocated at the size of the key-value heads.

    A step writes its positions behind the old ones, layer by layer, and then advances `length`.
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


class Decoder:
    """Bound to a model and an empty cache: PyTorch's operators, for a GPU.

    Row b does not look at the first padding[b] slots; None if there is no padding. A model with a document mask looks
    no further back than to its last step that ended with an end-of-text, which must not come earlier in a step.
    """

    def __init__(self, model, cache: KVCache, padding: torch.Tensor | None = None):
        self.model, self.config, self.cache = model, model.config, cache
        self.first = padding  # slot at which what a row sees begins, (B,); None: 0 in all rows
        if self.config.document_mask:
            zeros = torch.zeros(cache.keys.shape[1], dtype=torch.long, device=cache.keys.device)
            self.first = zeros if padding is None else padding.clone()
        self.weights = weights_of(model, cache.keys.shape[1], type(self))

    def step(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The next tokens (B, T) at positions (B, T) -> logits (B, V) of what follows them."""
        body, weights = self.model.transformer, self.weights
        branch = body["wte"].weight[tokens]  # (B, T, C)
        if self.config.position == "learned":
            branch = branch + body["wpe"].weight[positions]
        branch = self.begin(branch.to(self.model.dtype).flatten(0, 1), positions)  # (N, C)
        x = 0 * branch
        for layer, (c_attn, c_proj, c_fc, c_proj_mlp) in enumerate(weights.blocks):
            x, y = self.add_norm(x, branch, weights.norms[2 * layer])
            branch = c_proj(self.attend(layer, c_attn(y)))
            x, y = self.add_norm(x, branch, weights.norms[2 * layer + 1])
            branch = c_proj_mlp(self.activate(c_fc(y)))
        _, y = self.add_norm(x, branch, weights.norms[-1])
        self.cache.length += tokens.shape[1]
        if self.config.document_mask:  # the end-of-text belongs to what it ends; in place, CPUDecoder shares the memory
            self.first.masked_fill_(tokens[:, -1] == self.config.end_of_text, self.cache.length)
        return self.finish(weights.head(y.reshape(*tokens.shape, -1)[:, -1]))

    @staticmethod
    def product(weight: torch.Tensor, bias: torch.Tensor | None, rows: int):
        """Function x (N, in) -> x weight' + bias."""
        return lambda x: F.linear(x, weight, bias)

    @staticmethod
    def norm(weight: torch.Tensor | None, bias: torch.Tensor | None, kind: str, eps: float):
        """What add_norm takes: a function."""
        if kind == "none":
            return lambda x: x
        if kind == "rmsnorm":
            return partial(F.rms_norm, normalized_shape=weight.shape, weight=weight, eps=eps)
        return partial(F.layer_norm, normalized_shape=weight.shape, weight=weight, bias=bias, eps=eps)

    def begin(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """What all layers of a step share: rotary factors (N, 1, D), and the mask; x (N, C) as it is."""
        self.shape, self.rotary = positions.shape, None
        if self.config.position == "rope":
            cos, sin = (table[positions.flatten()][:, None].to(self.model.dtype)
                        for table in (self.model.cos, self.model.sin))
            self.rotary = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)
        self.mask = self.visible()
        return x

    def visible(self) -> torch.Tensor | None:
        """What the new positions see, (B, 1, T, end) bool; None: all before them."""
        if self.first is None:
            return None
        slots = torch.arange(self.cache.length + self.shape[1], device=self.first.device)
        new = slots[self.cache.length:, None]
        seen = (slots <= new) & (slots >= self.first[:, None, None])
        return (seen | (slots == new))[:, None]  # padding sees itself: no empty row

    def add_norm(self, x, branch, norm):
        """Return x + branch and its norm, which post-norm models go on with; all (N, C)."""
        x = x + branch
        y = norm(x)
        return (y if self.config.norm_place == "post" else x), y

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Queries, keys, values (N, (H + 2 K) D) -> what attention reads, (N, H D)."""
        (B, T), H, K, D = self.shape, self.config.n_head, self.config.kv_heads, self.config.head_dim
        qkv = qkv.view(B * T, H + 2 * K, D)
        qk = qkv[:, : H + K]
        if self.config.qk_norm:
            q_norm, k_norm = self.weights.head_norms[layer]
            qk = torch.cat([q_norm(qk[:, :H]), k_norm(qk[:, H:])], 1)
        if self.rotary is not None:
            qk = torch.addcmul(qk * self.rotary[0], qk.roll(D // 2, -1), self.rotary[1])
        keys, values = self.cache.extend(layer, *(part.view(B, T, K, D).transpose(1, 2)
                                                  for part in (qk[:, H:], qkv[:, H + K:])))  # (B, K, S, D)
        if T == 1:
            # the G queries of a key-value head stand where attention has its time positions: nothing is repeated
            q = qk[:, :H].reshape(B, K, H // K, D)
            return fused_attention(q, keys, values, attn_mask=self.mask).reshape(B, H * D)
        y = attention(qk[:, :H].reshape(B, T, H, D).transpose(1, 2), keys, values, self.mask)
        return y.transpose(1, 2).reshape(B * T, H * D)

    def activate(self, x: torch.Tensor) -> torch.Tensor:
        """What model.MLP does between its two matrices."""
        kind = self.config.mlp
        if kind == "swiglu":
            gate, up = x.chunk(2, dim=-1)
            return F.silu(gate) * up
        if kind == "relu2":
            return F.relu(x).square()
        return F.silu(x) if kind == "silu" else F.gelu(x, approximate="tanh")

    def finish(self, logits: torch.Tensor) -> torch.Tensor:
        """The step's result."""
        return logits
