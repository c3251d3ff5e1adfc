"""Compiled loops for the CPU, where PyTorch takes several passes or a slow one: cross-entropy, activations, RMS norm,
attention's softmax, their gradients, and sums of scattered rows, in fp32 inside whatever the rows are stored in (bf16
or fp32).

Rows of bfloat16 are seen as uint16, the upper half of a float32's bits: widened by a shift, rounded back to nearest
even. loop_cache.py tells who compiles them, and when.

Shapes: N rows, C columns, V vocabulary, B heads x sequences of S tokens.
"""

import math

import numba
import numpy as np
import torch
from llvmlite import ir
from loop_cache import FAST, loop
from numba import njit, prange, types
from numba.extending import intrinsic, overload
from torch import Tensor

# Numbers between a loop's own buffer and other memory. Where a loop writes less than some vectors away from what it
# reads, LLVM's code takes the numbers one by one, sums them in another order, and what lies beside what is chance.
FAR = 128


@intrinsic
def _bits_to_float(typing_context, bits):
    """Reinterpret a uint32 as the float32 with these bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def _float_to_bits(typing_context, number):
    """Reinterpret a float32 as the uint32 of its bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


def load(row, i):
    """Element i of a row, as float32."""


def store(row, i, value):
    """Sets element i of a row from a float32."""


@overload(load, inline="always")
def _load(row, i):
    if row.dtype == types.uint16:
        return lambda row, i: _bits_to_float(np.uint32(row[i]) << np.uint32(16))
    return lambda row, i: row[i]


@overload(store, inline="always")
def _store(row, i, value):
    if row.dtype == types.uint16:

        def store_bfloat16(row, i, value):
            bits = _float_to_bits(np.float32(value))
            row[i] = np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

        return store_bfloat16

    def store_float32(row, i, value):
        row[i] = value

    return store_float32


PARALLEL_FROM = 2**14  # elements; some 10 us of one thread, what it takes to wake another


@njit(inline="always", fastmath=FAST)
def exp(x):
    """e^x, relative error 2e-7: 2^n by its exponent bits times a polynomial for the rest; beyond 2^+-126 it stays."""
    t = min(max(x * np.float32(1.44269504), np.float32(-126.0)), np.float32(126.0))
    n = np.floor(t + np.float32(0.5))
    r = t - n  # in [-0.5, 0.5]; coefficients ln(2)^k / k!
    p = np.float32(0.00015403530) + r * np.float32(0.000015252734)
    p = np.float32(0.0013333558) + r * p
    p = np.float32(0.0096181291) + r * p
    p = np.float32(0.055504109) + r * p
    p = np.float32(0.24022651) + r * p
    p = np.float32(0.69314718) + r * p
    p = np.float32(1.0) + r * p
    return p * _bits_to_float(np.uint32(np.int32(n) + np.int32(127)) << np.uint32(23))


@njit(inline="always")
def ordered(bits):
    """Of a float32's bits an int32 that compares as the float does; of that, the bits again."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@njit
def greatest(row):
    """The greatest element; not a number may pass for one, the sum then shows it.

    Compared as integers: LLVM makes no vectors of a search for the greatest float, which took ten times as long.
    """
    top = np.int32(-(2**31))
    for j in range(len(row)):
        top = max(top, ordered(np.int32(_float_to_bits(load(row, j)))))
    return _bits_to_float(np.uint32(ordered(top)))


@loop
def _cross_entropy(logits, targets, nats, gradient):
    columns = logits.shape[1]
    for i in prange(len(logits)):
        row = logits[i]
        top, own = greatest(row), load(row, targets[i])
        total = np.float32(0)
        for j in range(columns):
            total += exp(load(row, j) - top)
        nats[i] = top + np.float32(math.log(total)) - own
        if gradient:
            scale = np.float32(1) / total
            for j in range(columns):
                store(row, j, exp(load(row, j) - top) * scale)
            store(row, targets[i], exp(own - top) * scale - np.float32(1))


@loop
def _gate(x, y, a, b):
    for i in prange(len(x)):
        row, out = x[i], y[i]
        for j in range(len(row)):
            v = load(row, j)
            store(out, j, v / (np.float32(1) + exp(-v * (a + b * v * v))))


@loop
def _gate_backward(x, g, d_x, a, b):
    for i in prange(len(x)):
        row, grad, out = x[i], g[i], d_x[i]
        for j in range(len(row)):
            v = load(row, j)
            s = np.float32(1) / (np.float32(1) + exp(-v * (a + b * v * v)))
            slope = s + v * s * (np.float32(1) - s) * (a + np.float32(3) * b * v * v)
            store(out, j, load(grad, j) * slope)


@loop
def _rms_norm(x, y, weight, inverse, eps):
    columns = np.float32(x.shape[1])
    for i in prange(len(x)):
        row, out = x[i], y[i]
        total = np.float32(0)
        for j in range(len(row)):
            total += load(row, j) * load(row, j)
        r = np.float32(1) / np.float32(math.sqrt(total / columns + eps))
        inverse[i] = r
        for j in range(len(row)):
            store(out, j, load(row, j) * r * load(weight, j))


@loop
def _rms_norm_backward(x, g, d_x, weight, inverse, d_weight):
    columns = np.float32(x.shape[1])
    for part in prange(len(d_weight)):  # each part has a sum of its own
        own = d_weight[part]
        for i in range(part, len(x), len(d_weight)):
            row, grad, out, r = x[i], g[i], d_x[i], inverse[i]
            dot = np.float32(0)
            for j in range(len(row)):
                dot += load(grad, j) * load(weight, j) * load(row, j)
            share = dot * r * r / columns
            for j in range(len(row)):
                own[j] += load(grad, j) * load(row, j) * r
                store(out, j, r * (load(grad, j) * load(weight, j) - load(row, j) * share))


@loop
def _causal_softmax(scores, scale, window):
    batches, S, _ = scores.shape
    for b in prange(batches):
        e = np.empty(S + 2 * FAR, np.float32)[FAR:]
        for t in range(S):
            row, first = scores[b, t], max(0, t + 1 - window)
            seen = row[first : t + 1]
            top, total = greatest(seen), np.float32(0)
            for j in range(len(seen)):
                e[j] = exp((load(seen, j) - top) * scale)
                total += e[j]
            inverse = np.float32(1) / total
            for j in range(first):
                store(row, j, np.float32(0))
            for j in range(len(seen)):
                store(seen, j, e[j] * inverse)
            for j in range(t + 1, S):
                store(row, j, np.float32(0))


@loop
def _causal_softmax_backward(p, g, scale, window):
    batches, S, _ = p.shape
    for b in prange(batches):
        for t in range(S):
            first = max(0, t + 1 - window)
            seen, grad, out = p[b, t, first : t + 1], g[b, t, first : t + 1], g[b, t]
            dot = np.float32(0)
            for j in range(len(seen)):
                dot += load(seen, j) * load(grad, j)
            for j in range(len(seen)):
                store(grad, j, load(seen, j) * (load(grad, j) - dot) * scale)
            for j in range(first):
                store(out, j, np.float32(0))
            for j in range(t + 1, S):
                store(out, j, np.float32(0))


@loop
def _add_rows(total, places, part):
    for h in prange(len(total)):
        for i in range(len(places)):
            row, added = total[h, places[i]], part[h, i]
            for d in range(len(row)):
                store(row, d, load(row, d) + load(added, d))


def cross_entropy_(logits: Tensor, targets: Tensor, gradient: bool) -> Tensor:
    """Cross-entropies (N,) of logits (N, V); with `gradient`, the logits become softmax - one-hot in place."""
    nats = np.empty(len(logits), np.float32)
    use_threads(logits.numel())
    _cross_entropy(array(logits), targets.numpy(), nats, gradient)
    return torch.from_numpy(nats)


def causal_softmax_(scores: Tensor, scale: float, window: int | None):
    """Scores (B, S, S) become softmax(scale * scores) in place; query t sees the keys t - window < j <= t."""
    use_threads(scores.numel())
    _causal_softmax(array(scores), np.float32(scale), window or scores.shape[1])


def causal_softmax_backward_(p: Tensor, g: Tensor, scale: float, window: int | None):
    """The gradient g (B, S, S) of the probabilities p becomes that of the scores, in place."""
    use_threads(p.numel())
    _causal_softmax_backward(array(p), array(g), np.float32(scale), window or p.shape[1])


def add_rows_(total: Tensor, places: Tensor, part: Tensor):
    """total[h, places[i]] += part[h, i], as index_add_: total (H, N, D), places (P,) int64, part (H, P, D)."""
    use_threads(part.numel())
    _add_rows(array(total), places.numpy(), array(part))


class Gate(torch.autograd.Function):
    """x * sigmoid(a x + b x^3): SiLU with (1, 0), tanh-GELU with 2 sqrt(2 / pi) (1, 0.044715)."""

    @staticmethod
    def forward(ctx, x, a, b):
        """X (..., C) to the same shape."""
        x = x.contiguous()
        y = torch.empty_like(x)
        rows = (array(tensor).reshape(-1, x.shape[-1]) for tensor in (x, y))
        use_threads(x.numel())
        _gate(*rows, np.float32(a), np.float32(b))
        ctx.save_for_backward(x)
        ctx.a, ctx.b = a, b
        return y

    @staticmethod
    def backward(ctx, g):
        """Gradient of x for g (..., C)."""
        (x,) = ctx.saved_tensors
        d_x = torch.empty_like(x)
        rows = (array(tensor).reshape(-1, x.shape[-1]) for tensor in (x, g.contiguous(), d_x))
        use_threads(x.numel())
        _gate_backward(*rows, np.float32(ctx.a), np.float32(ctx.b))
        return d_x, None, None


class RMSNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        """X (..., C) and weight (C) to (..., C)."""
        x = x.contiguous()
        y, inverse = torch.empty_like(x), np.empty(x.numel() // x.shape[-1], np.float32)
        rows = (array(tensor).reshape(-1, x.shape[-1]) for tensor in (x, y))
        use_threads(x.numel())
        _rms_norm(*rows, array(weight), inverse, np.float32(eps))
        ctx.save_for_backward(x, weight)
        ctx.inverse = inverse
        return y

    @staticmethod
    def backward(ctx, g):
        """Gradients of x and weight for g (..., C)."""
        x, weight = ctx.saved_tensors
        d_x, d_weight = torch.empty_like(x), np.zeros((4 * torch.get_num_threads(), x.shape[-1]), np.float32)
        rows = (array(tensor).reshape(-1, x.shape[-1]) for tensor in (x, g.contiguous(), d_x))
        use_threads(x.numel())
        _rms_norm_backward(*rows, array(weight), ctx.inverse, d_weight)
        return d_x, torch.from_numpy(d_weight.sum(0)).to(weight.dtype), None


def use_threads(elements: int):
    """As many threads as PyTorch uses, for a small loop the calling one alone.

    They are PyTorch's own threads: numba's loops find the OpenMP library that torch has loaded for all (NOTES.md).
    """
    several = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(several if elements >= PARALLEL_FROM else 1)


def array(tensor: Tensor) -> np.ndarray:
    """A tensor's memory as float32, or as uint16 where it is bfloat16."""
    if tensor.dtype == torch.bfloat16:
        return tensor.detach().view(torch.int16).numpy().view(np.uint16)
    return tensor.detach().numpy()
