"""Optimizers and learning-rate schedules: AdamW with its parameter groups, and Muon for the blocks' matrices.

Both have `param_groups` and `state` as torch.optim's have, but not its base class, which imports torch.compile's 70 MB
in a second.

Shapes: n matrices stacked, each R rows x C columns.
"""

import math

import eight_bits
import torch
from sharded import split_like, whole
from torch import nn
from torch.optim.adamw import adamw


def learning_rate_scale(progress: float, settings) -> float:
    """Share of the peak learning rate at `progress` in [0, 1] of the run.

    Linear warm-up over the share `warmup`; then cosine or linear decay to `min_lr`, or wsd: constant, and a linear fall
    over the last share `decay` (Hägele et al. 2024). cosine, warmup 0, min_lr 0: 0 -> 1, 0.5 -> 0.5, 1 -> 0.
    """
    if progress < settings.warmup:
        return progress / settings.warmup
    if settings.schedule == "wsd":
        fallen = max(0.0, progress - (1 - settings.decay)) / settings.decay if settings.decay else 0.0
    else:
        fallen = (progress - settings.warmup) / (1 - settings.warmup)
    remaining = 0.5 * (1 + math.cos(math.pi * fallen)) if settings.schedule == "cosine" else 1 - fallen
    return settings.min_lr + (1 - settings.min_lr) * remaining


def make_optimizers(model: nn.Module, settings) -> list["AdamW | Muon"]:
    """AdamW alone, or Muon for the matrices of the blocks and AdamW for the rest (embeddings, head, gains, biases).

    Weight decay goes to tensors of two or more dimensions only. Each group keeps its peak learning rate as `peak_lr`.
    """
    matrices = {}
    if settings.optimizer == "muon":
        for module in model.transformer["h"].modules():
            if hasattr(module, "parts"):
                matrices[module.weight] = module.parts
    rest = [p for p in model.parameters() if p not in matrices]
    groups = [{"params": [p for p in rest if p.dim() >= 2], "weight_decay": settings.weight_decay},
              {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0}]
    bits = settings.optimizer_bits
    optimizers = [AdamW([g for g in groups if g["params"]], settings.lr, settings.beta1, settings.beta2, bits=bits)]
    if matrices:
        optimizers.append(Muon(matrices, settings.muon_lr, settings.momentum, settings.weight_decay, model.dtype, bits))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), by PyTorch's fused kernel.

    In step t, of gradient g: m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g², m' = m / (1 - beta1^t),
    v' = v / (1 - beta2^t), p -= lr (weight_decay p + m' / (sqrt(v') + eps)). Groups are {"params", "weight_decay"}.
    With bits = 8, m and v of matrices are kept as eight_bits.py tells.
    """

    def __init__(self, groups: list[dict], lr: float, beta1: float, beta2: float, eps: float = 1e-8, bits: int = 32):
        self.param_groups = [{**group, "lr": lr} for group in groups]
        self.beta1, self.beta2, self.eps, self.bits = beta1, beta2, eps, bits
        # not in the first step, where they would lie between its activations and cut the heap to pieces
        self.state = {p: self.slots(p) for group in groups for p in group["params"]}

    def slots(self, p: nn.Parameter) -> dict[str, torch.Tensor]:
        """The state of a parameter before the first step."""
        step = torch.zeros((), device=p.device)
        if self.in_8_bits(p):
            return {"step": step, **eight_bits.slots(p, exp_avg=torch.int8, exp_avg_sq=torch.uint8)}
        return {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}

    def in_8_bits(self, p: nn.Parameter) -> bool:
        """Gains and biases are too few to save anything."""
        return self.bits == 8 and p.dim() == 2

    @torch.no_grad()
    def step(self):
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            for p in filter(self.in_8_bits, moving):
                eight_bits.adamw(p, p.grad, self.state[p], group["lr"], self.beta1, self.beta2, self.eps,
                                 group["weight_decay"])
            parameters = [p for p in moving if not self.in_8_bits(p)]
            states = [self.state[p] for p in parameters]
            adamw(parameters, [p.grad for p in parameters], [state["exp_avg"] for state in states],
                  [state["exp_avg_sq"] for state in states], [], [state["step"] for state in states], fused=True,
                  amsgrad=False, beta1=self.beta1, beta2=self.beta2, lr=group["lr"],
                  weight_decay=group["weight_decay"], eps=self.eps, maximize=False)


class Muon:
    """Momentum whose update is made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

    `matrices` maps each parameter to the rows of the matrices stacked in it, e.g. q, k and v. Matrices of one shape are
    treated together. Works on FSDP's sharded parameters too: the update is gathered, orthogonalised, sharded again.
    """

    def __init__(self, matrices: dict[nn.Parameter, list[int]], lr: float, momentum: float, weight_decay: float,
                 dtype: torch.dtype, bits: int = 32):
        self.param_groups = [{"params": list(matrices), "lr": lr, "weight_decay": weight_decay}]
        self.parts, self.momentum, self.dtype, self.bits = matrices, momentum, dtype, bits
        if bits == 8:
            self.state = {p: {"step": torch.zeros((), device=p.device), **eight_bits.slots(p, momentum=torch.int8)}
                          for p in matrices}
        else:
            self.state = {p: {"momentum": torch.zeros_like(p)} for p in matrices}

    @torch.no_grad()
    def step(self):
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            same_shape = {}  # shape -> [matrix, ...], views of the updates
            updates = []
            for p in parameters:
                update = whole(p.grad.lerp(self.moved(p), self.momentum))  # Nesterov
                updates.append(update)
                for matrix in update.split(self.parts[p]):
                    same_shape.setdefault(matrix.shape, []).append(matrix)
            for (rows, columns), same in same_shape.items():
                scale = max(1, rows / columns) ** 0.5
                for matrix, orthogonal in zip(same, orthogonalise(torch.stack(same), self.dtype), strict=True):
                    matrix.copy_(orthogonal).mul_(scale)
            for p, update in zip(parameters, updates, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(split_like(p, update), alpha=-group["lr"])

    def moved(self, p: nn.Parameter) -> torch.Tensor:
        """The running mean of p's gradients, with the new one in it."""
        if self.bits == 8:
            return eight_bits.moved_mean(p, p.grad, self.state[p], "momentum", self.momentum)
        return self.state[p]["momentum"].lerp_(p.grad, 1 - self.momentum)


def orthogonalise(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bring the singular values of each matrix near 1: matrices (n, R, C) -> (n, R, C).

    Five Newton-Schulz steps X <- a X + b (XX')X + c (XX')²X, whose coefficients send (0, 1] into about [0.7, 1.2].
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = (matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    tall = x.shape[1] > x.shape[2]
    if tall:  # the smaller Gram matrix
        x = x.mT.contiguous()
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
