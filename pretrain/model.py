"""GPT-2 and LLaMA-style language models, and the command that trains them.

    torchrun --standalone --nproc_per_node=8 pretrain/model.py --preset gpt2      # 124M on 8 GPUs
    python pretrain/model.py --preset stories                                     # 2.6M, minutes on 2 CPU cores
    python pretrain/model.py --preset stories --n_layer 2 --n_embd 64 --max_steps 20 --out /tmp/tiny

One `GPT` covers both families: the switches of `GPTConfig` choose norm, positions, MLP, head grouping. Parameters have
GPT-2's own names (wte, wpe, h.0.attn.c_attn, ...), so that weights map one to one; q, k, v are stacked in `c_attn`, a
SwiGLU's gate and up matrices in `c_fc`. convert.py splits them under LLaMA's names.

Shapes: B batch, T new positions, S positions in sight, C channels, H heads, K key-value heads, D head size,
V vocabulary.
"""

if __name__ == "__main__":  # parsed before torch is imported, so that --help answers at once
    from malloc import restart_with_tunables

    restart_with_tunables()
    from presets import parse, run_command

    def train(settings):
        """Import the rest, and do it."""
        from loop import main

        return main(settings)

    run_command(train, lambda: parse(__doc__))

import contextlib
import math

import torch
import torch.nn.functional as F
from attention import attention, document_mask, eager_cpu
from loss import linear_cross_entropy
from presets import GPTConfig, InputError
from torch import nn


class Linear(nn.Linear):
    """A linear layer whose fp32 weight is cast to the dtype of its input: mixed precision without autocast.

    `parts` are the rows of the matrices stacked in the weight, which Muon treats one by one.
    """

    def __init__(self, in_features: int, parts: list[int], bias: bool):
        super().__init__(in_features, sum(parts), bias)
        self.parts = parts

    def forward(self, x):
        """Map x (..., in) to (..., out)."""
        if eager_cpu(x):
            import cpu_layers

            return cpu_layers.Linear.apply(x, self.weight, self.bias)
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class Norm(nn.Module):
    """LayerNorm (Ba et al. 2016), RMSNorm (Zhang & Sennrich 2019) or nothing, over the last dimension."""

    def __init__(self, size: int, kind: str, eps: float, bias: bool = False):
        super().__init__()
        self.kind, self.eps = kind, eps
        self.weight = nn.Parameter(torch.ones(size)) if kind != "none" else None
        self.bias = nn.Parameter(torch.zeros(size)) if kind == "layernorm" and bias else None

    def forward(self, x):
        """Normalise x (..., size); same shape and dtype."""
        if self.kind == "none":
            return x
        if eager_cpu(x):
            import cpu_layers

            return cpu_layers.Norm.apply(x, self.weight, self.bias, self.eps, self.kind == "layernorm")
        weight = self.weight.to(x.dtype)
        if self.kind == "rmsnorm":
            return F.rms_norm(x, weight.shape, weight, self.eps)
        return F.layer_norm(x, weight.shape, weight, None if self.bias is None else self.bias.to(x.dtype), self.eps)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021) with channel i paired with i + D/2, as in Hugging Face's Llama.

    x (B, T, H, D); cos, sin (T, D/2).
    """
    cos, sin = (table.unsqueeze(-2).to(x.dtype) for table in (cos, sin))
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Attention(nn.Module):
    """Causal self-attention with H query heads over K key-value heads (Ainslie et al. 2023)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        H, K, D = config.n_head, config.kv_heads, config.head_dim
        self.heads, self.head_dim = (H, K), D
        self.sizes = [H * D, K * D, K * D]
        self.c_attn = Linear(config.n_embd, self.sizes, config.bias or config.qkv_bias)
        self.c_proj = Linear(H * D, [config.n_embd], config.bias)
        self.q_norm = Norm(D, "rmsnorm" if config.qk_norm else "none", config.norm_eps)
        self.k_norm = Norm(D, "rmsnorm" if config.qk_norm else "none", config.norm_eps)

    def forward(self, x, rotary=None, mask=None):
        """Map x (B, T, C) to (B, T, C)."""
        B, T, _ = x.shape
        x = self.c_attn(x)
        if eager_cpu(x):
            import cpu_layers

            q, k, v = cpu_layers.Heads.apply(x, self.q_norm.weight, self.k_norm.weight, self.q_norm.eps,
                                             *(rotary or (None, None)), self.heads, self.head_dim)
        else:
            q, k, v = (part.view(B, T, -1, self.head_dim) for part in x.split(self.sizes, dim=-1))
            q, k = self.q_norm(q), self.k_norm(k)  # (B, T, H, D), (B, T, K, D)
            if rotary is not None:
                q, k = rotate(q, *rotary), rotate(k, *rotary)
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        y = attention(q, k, v, mask)  # (B, H, T, D)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    """C -> hidden -> C with GELU (GPT-2), ReLU² (So et al. 2021), SiLU or SwiGLU (Shazeer 2020; gate stacked first)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.kind = config.mlp
        self.c_fc = Linear(config.n_embd, [config.hidden] * (2 if config.mlp == "swiglu" else 1), config.bias)
        self.c_proj = Linear(config.hidden, [config.n_embd], config.bias)

    def forward(self, x):
        """Map x (B, T, C) to (B, T, C)."""
        x = self.c_fc(x)
        if eager_cpu(x):
            import cpu_layers

            return cpu_layers.ActivatedLinear.apply(x, self.c_proj.weight, self.c_proj.bias, self.kind)
        if self.kind == "swiglu":
            gate, up = x.chunk(2, dim=-1)
            x = F.silu(gate) * up
        elif self.kind == "relu2":
            x = F.relu(x).square()
        else:
            x = F.silu(x) if self.kind == "silu" else F.gelu(x, approximate="tanh")
        return self.c_proj(x)


class Block(nn.Module):
    """x + attention(norm(x)), then the same with the MLP; post-norm puts each norm after the sum."""

    def __init__(self, config: GPTConfig, dropout: float):
        super().__init__()
        self.post = config.norm_place == "post"
        self.ln_1 = Norm(config.n_embd, config.norm, config.norm_eps, config.bias)
        self.attn = Attention(config)
        self.ln_2 = Norm(config.n_embd, config.norm, config.norm_eps, config.bias)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, rotary=None, mask=None):
        """Map x (B, T, C) to (B, T, C)."""
        if self.post:
            x = self.ln_1(x + self.dropout(self.attn(x, rotary, mask)))
            return self.ln_2(x + self.dropout(self.mlp(x)))
        x = x + self.dropout(self.attn(self.ln_1(x), rotary, mask))
        return x + self.dropout(self.mlp(self.ln_2(x)))


class TiedEmbedding(torch.autograd.Function):
    """Rows of the weight (V, C) for tokens, and the weight itself for the head.

    Autograd would make a second gradient of the weight's size for the rows, nearly all zeros, and add the two: here the
    rows' gradients are added to the head's in place.
    """

    @staticmethod
    def forward(ctx, weight, tokens):
        """Embeddings (B, T, C) of tokens (B, T), and the weight."""
        ctx.save_for_backward(tokens)
        return F.embedding(tokens, weight), weight

    @staticmethod
    def backward(ctx, dx, dweight):
        """The one gradient of the weight."""
        tokens, = ctx.saved_tensors
        return dweight.index_add_(0, tokens.flatten(), dx.flatten(0, 1)), None


class GPT(nn.Module):
    """A decoder-only language model. Weights are fp32; the forward pass runs in `dtype`.

    `model(tokens)` gives logits (B, T, V), `model(tokens, targets)` the mean loss in nats without making them.
    In train mode `dropout` falls where GPT-2 has it (embeddings, outputs of attention and MLP), not on the weights of
    attention, which no kernel here makes visible.
    """

    def __init__(self, config: GPTConfig, dtype: torch.dtype = torch.float32, dropout: float = 0.0):
        super().__init__()
        if config.vocab_size < 1:
            raise InputError("--vocab_size 0 stands for the data's vocabulary; a model needs the number itself")
        self.config, self.dtype, self.compiled = config, dtype, False
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(config.padded_vocab, config.n_embd),
            "h": nn.ModuleList(Block(config, dropout) for _ in range(config.n_layer)),
        })
        self.dropout = nn.Dropout(dropout)
        if config.position == "learned":
            self.transformer["wpe"] = nn.Embedding(config.block_size, config.n_embd)
        if config.norm_place == "pre":  # post-norm blocks end normalised
            self.transformer["ln_f"] = Norm(config.n_embd, config.norm, config.norm_eps, config.bias)
        self.lm_head = Linear(config.n_embd, [config.padded_vocab], bias=False)
        if config.position == "rope":
            cos, sin = rotary_table(config.block_size, config.head_dim, config.rope_theta, config.rope_factor,
                                    config.rope_original)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self.reset_parameters()
        if config.tied:
            self.lm_head.weight = self.transformer["wte"].weight

    def reset_parameters(self):
        """GPT-2's initialisation: N(0, 0.02), projections into the residual stream / sqrt(2 n_layer), biases 0.

        The embedding's own deviation matters where it is the head as well: a hidden state that equals a token's
        embedding gives that token the logit std x C, at 0.02 and 192 channels 3.8, too little against ln V = 8.3 to
        make copying worth while. At 0.1 a small model learns to copy in 100 steps, at 0.02 not in 200 (NOTES.md).
        """
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):
                std = 0.0 if self.config.zero_init else 0.02 / math.sqrt(2 * self.config.n_layer)
                nn.init.normal_(p, 0.0, std)
            elif p.dim() >= 2:
                nn.init.normal_(p, 0.0, self.config.embedding_std if "wte" in name else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def trunk(self, tokens, embedded=None):
        """Everything below the output head: tokens (B, T), or embedded (B, T, C), -> normalised states (B, T, C)."""
        T, mask, rotary = tokens.shape[1], None, None
        if self.config.block_size < T and self.config.position != "none":
            raise InputError(f"{T} positions are more than the model's {self.config.block_size}")
        if self.config.document_mask:
            mask = document_mask(tokens, self.config.end_of_text, self.compiled, self.config.head_dim)  # for all layers
        x = F.embedding(tokens, self.transformer["wte"].weight) if embedded is None else embedded
        if self.config.position == "learned":
            x = x + self.transformer["wpe"].weight[:T]
        x = self.dropout(x.to(self.dtype))
        if self.config.position == "rope":
            rotary = self.cos[:T], self.sin[:T]
        for block in self.transformer["h"]:
            x = block(x, rotary, mask)
        return self.transformer["ln_f"](x) if "ln_f" in self.transformer else x

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """Hidden states (..., C) -> logits (..., V) over the real vocabulary."""
        return self.lm_head(x)[..., : self.config.vocab_size]

    def forward(self, tokens, targets=None, z_loss: float = 0.0):
        """Logits (B, T, V) of tokens (B, T); with targets (B, T) the mean loss, nats.

        Targets of -1 do not count; z_loss: see linear_cross_entropy.
        """
        if targets is None:
            return self.head(self.trunk(tokens))
        embedded, weight = None, self.lm_head.weight
        if self.config.tied:
            embedded, weight = TiedEmbedding.apply(weight, tokens)
        x = self.trunk(tokens, embedded)
        return linear_cross_entropy(x.flatten(0, 1), weight, targets.flatten(), self.config.vocab_size, z_loss)

    def compile_blocks(self, keep_activations: float = 1.0):
        """Compile each block: one compilation serves all layers, and DDP gets the gradients block by block.

        Of the activations that autograd would keep, a share is kept; what is made again in the backward pass is what
        costs the least time per byte (PyTorch's memory budget, https://pytorch.org/blog/activation-checkpointing-techniques).
        """
        import torch._dynamo.config  # a second, for those who compile
        import torch._functorch.config

        torch._functorch.config.activation_memory_budget = keep_activations
        torch._dynamo.config.optimize_ddp = False  # it cuts blocks in two, of which a share of 0.5 keeps twice as much
        for block in self.transformer["h"]:
            block.compile(dynamic=False)
        self.compiled = True

    @contextlib.contextmanager
    def uncompiled(self):
        """A context in which compiled blocks run as they are written, for lengths that vary."""
        compiled, self.compiled = self.compiled, False
        try:
            with torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext():
                yield
        finally:
            self.compiled = compiled

    def parameter_count(self) -> int:
        """Parameters that are trained, a tied head once, padding of the vocabulary included."""
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self, length: int) -> int:
        """Matmul FLOPs of forward and backward per token at sequence (with a document mask: document) length `length`.

        6 per weight in a matmul (embedding tables are look-ups, the head counts) + 12 per attention channel and
        position: PaLM's appendix B, which counts the full T x T scores.
        """
        tables = ["wpe"] if self.config.tied else ["wte", "wpe"]
        looked_up = sum(self.transformer[t].weight.numel() for t in tables if t in self.transformer)
        weights = sum(p.numel() for p in self.parameters() if p.dim() >= 2) - looked_up
        return 6 * weights + 12 * self.config.n_layer * self.config.n_head * self.config.head_dim * length


def rotary_table(length: int, head_dim: int, theta: float, factor: float = 1.0,
                 original: int = 8192) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of position x frequency, each (length, D/2) fp32; frequency i is theta^(-2i/D).

    Llama 3.1 makes a model of `original` positions read longer texts: waves that turn less than once in them are
    slowed down by `factor`, those that turn four times and more stay, and between the two it is interpolated.
    """
    frequencies = theta ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    if factor != 1:
        kept = ((original * frequencies / (2 * math.pi) - 1) / 3).clamp(0, 1)
        frequencies = frequencies * (kept + (1 - kept) / factor)
    angles = torch.outer(torch.arange(length).float(), frequencies)
    return angles.cos(), angles.sin()
