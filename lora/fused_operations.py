"""Activations and norms that are written out in several operations, or slow on a CPU, replaced by fused ones.

Nothing here knows a model family by name: a module is replaced where the replacement gives the same numbers on a test
input, so a norm that adds one to its weight, say, stays as it is. GPT-2's `gelu_new` costs about nine times PyTorch's
tanh-GELU, and on a CPU that one three times the loop of cpu_loops.py; PyTorch's RMS norm has no fused form on CPUs.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


def has_loop(x) -> bool:
    """Whether cpu_loops.py works on this tensor."""
    return x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float32)


class FusedActivation(nn.Module):
    """x sigmoid(a x + b x^3), which is SiLU or the tanh form of GELU; `plain` is PyTorch's function for it."""

    def __init__(self, plain, a, b):
        super().__init__()
        self.plain, self.a, self.b = plain, a, b

    def forward(self, x):
        """The activation of x, (..., C)."""
        if not has_loop(x):
            return self.plain(x)
        from cpu_loops import Gate

        return Gate.apply(x, self.a, self.b)


class FusedRMSNorm(nn.Module):
    """RMS norm in one pass, with the weight of a written-out one."""

    def __init__(self, weight, eps):
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x):
        """The normalised x, (..., C)."""
        weight = self.weight.to(x.dtype)
        if not has_loop(x):
            return F.rms_norm(x, (x.shape[-1],), weight, self.eps)
        from cpu_loops import RMSNorm

        return RMSNorm.apply(x, weight, self.eps)


def silu():
    """SiLU: x sigmoid(x)."""
    return FusedActivation(F.silu, 1.0, 0.0)


def tanh_gelu():
    """GELU in its tanh form: x (1 + tanh u) / 2 = x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    a = 2 * math.sqrt(2 / math.pi)
    return FusedActivation(partial(F.gelu, approximate="tanh"), a, 0.044715 * a)


def fuse_operations(model):
    """Replaces the model's activations and norms that have a fused equivalent; returns the model."""
    device = next(model.parameters()).device
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            new = fused(child, device)
            if new is not None:
                setattr(parent, name, new)
    return model


def fused(module, device="cpu"):
    """The fused equivalent of an activation or a norm, tried on the device; None if there is none."""
    kind, weight = type(module).__name__.lower(), getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if weight is None and ("gelu" in kind or "silu" in kind):
        new, probe = silu() if "silu" in kind else tanh_gelu(), torch.linspace(-6, 6, 256, device=device)
    elif kind.endswith("rmsnorm") and weight is not None and weight.ndim == 1 and eps is not None:
        new = FusedRMSNorm(weight, eps)
        probe = torch.linspace(-2, 3, 4 * len(weight), device=device, dtype=weight.dtype).view(4, -1)
    else:
        return None
    exact = probe.dtype == torch.float32
    with torch.no_grad():
        close = torch.allclose(
            module(probe).float(),
            new(probe).float(),
            rtol=1e-5 if exact else 2e-2,
            atol=1e-6 if exact else 2e-2,
        )
    return new.train(module.training) if close else None
