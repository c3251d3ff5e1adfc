"""Compiled loops for the CPU where PyTorch is slow: softmax and its gradients in place; bf16 or fp32.

Rows of bfloat16 are seen as uint16, the upper half of a float32's bits: widened by a shift, rounded back to nearest
even. kernel_cache.py tells who compiles them, and when.

Shapes: N rows, V columns (vocabulary), B heads of T queries and S keys.
"""

import numba
import numpy as np
import torch
from kernel_cache import FAST, loop
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload

# Rows of logits (V, N) that are summed up by themselves, so that sums do not depend on the threads; and those whose
# greatest is found before they are read again.
PART, STRIP = 512, 16
QUERIES = 32  # queries of a head that a thread takes at a time
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
    """Set element i of a row from a float32."""


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


@njit(inline="always")
def ordered(bits):
    """Of a float32's bits an int32 that compares as the float does; of that, the bits again."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@njit
def greatest(row, count):
    """The greatest of the first `count` elements; not a number may pass for one, the sum then shows it.

    Compared as integers: LLVM makes no vectors of a search for the greatest float, which took ten times as long.
    """
    top = np.int32(-(2**31))
    for j in range(count):
        top = max(top, ordered(np.int32(_float_to_bits(load(row, j)))))
    return _bits_to_float(np.uint32(ordered(top)))


@njit(inline="always", fastmath=FAST)
def exp(x):
    """e^x for x <= 0, relative error 2e-6: 2^n by its exponent bits times a polynomial for the rest."""
    t = max(x * np.float32(1.44269504), np.float32(-126.0))
    n = np.floor(t + np.float32(0.5))
    r = t - n  # in [-0.5, 0.5]; coefficients ln(2)^k / k!
    p = np.float32(0.0013333558) + r * np.float32(0.00015403530)
    p = np.float32(0.0096181291) + r * p
    p = np.float32(0.055504109) + r * p
    p = np.float32(0.24022651) + r * p
    p = np.float32(0.69314718) + r * p
    p = np.float32(1.0) + r * p
    return p * _bits_to_float(np.uint32(np.int32(n) + np.int32(127)) << np.uint32(23))


@loop
def _sum_of_exponentials(logits, tops, totals):
    V, N = logits.shape
    for part in prange(len(tops)):
        top, total, before = tops[part], totals[part], np.empty(N, np.float32)
        end = min(V, (part + 1) * PART)
        for start in range(part * PART, end, STRIP):
            for j in range(N):
                before[j] = top[j]
            for i in range(start, min(start + STRIP, end)):
                row = logits[i]
                for j in range(N):
                    top[j] = max(top[j], load(row, j))
            for j in range(N):
                total[j] *= exp(before[j] - top[j])
            for i in range(start, min(start + STRIP, end)):
                row = logits[i]
                for j in range(N):
                    total[j] += exp(load(row, j) - top[j])


@loop
def _scaled_exponentials(logits, tops, scales):
    V, N = logits.shape
    for part in prange(-(-V // PART)):
        for i in range(part * PART, min(V, (part + 1) * PART)):
            row = logits[i]
            for j in range(N):
                store(row, j, exp(load(row, j) - tops[j]) * scales[j])


def cross_entropy_(logits: torch.Tensor, targets: torch.Tensor, shares: torch.Tensor, vocabulary: int, z_loss: float,
                   gradient: bool) -> torch.Tensor:
    """Cross-entropies (N,) of logits (N, V) fp32 or bf16; with `gradient`, logits become the gradient, in place.

    In memory they are (V, N): loops then run over positions side by side. shares (N,) are the weights of the positions
    in the loss; columns from `vocabulary` on are padding.
    """
    N, places = len(logits), (torch.arange(len(logits)), targets)
    columns, own = array(logits.T)[:vocabulary], logits[places].float()
    tops = torch.full((-(-vocabulary // PART), N), torch.finfo(torch.float32).min)
    totals = torch.zeros_like(tops)
    use_threads()
    _sum_of_exponentials(columns, tops.numpy(), totals.numpy())
    top = tops.amax(0)
    total = (totals * (tops - top).exp()).sum(0)
    log_normaliser = top + total.log()
    if gradient:
        scales = (1 + 2 * z_loss * log_normaliser) * shares / total
        _scaled_exponentials(columns, top.numpy(), scales.numpy())
        logits[places] = ((own - top).exp() * scales - shares).to(logits.dtype)
        logits[:, vocabulary:] = 0
    return log_normaliser - own


@loop
def _causal_softmax(scores, scale, first):
    heads, T, S = scores.shape
    strips = -(-T // QUERIES)
    for strip in prange(heads * strips):
        b, start, e = strip // strips, strip % strips * QUERIES, np.empty(S + 2 * FAR, np.float32)[FAR:]
        for t in range(start, min(start + QUERIES, T)):
            before, after = scores[b, t, :first[t]], scores[b, t, S - T + t + 1:]
            row = scores[b, t, first[t]:S - T + t + 1]  # the last query sees all keys to the end
            seen = len(row)
            top = greatest(row, seen)
            total = np.float32(0)
            for j in range(seen):
                e[j] = exp((load(row, j) - top) * scale)
                total += e[j]
            inverse = np.float32(1) / total
            for j in range(seen):
                store(row, j, e[j] * inverse)
            for j in range(len(before)):
                store(before, j, np.float32(0))
            for j in range(len(after)):
                store(after, j, np.float32(0))


@loop
def _causal_softmax_backward(weights, gradient, scale, first):
    heads, T, S = weights.shape
    strips = -(-T // QUERIES)
    for strip in prange(heads * strips):
        b, start = strip // strips, strip % strips * QUERIES
        for t in range(start, min(start + QUERIES, T)):
            # views, not ranges that begin at first[t]: of those LLVM makes no vectors, for an index might be negative
            row, grad = weights[b, t, first[t]:S - T + t + 1], gradient[b, t, first[t]:S - T + t + 1]
            before, after = gradient[b, t, :first[t]], gradient[b, t, S - T + t + 1:]
            dot = np.float32(0)
            for j in range(len(row)):
                dot += load(row, j) * load(grad, j)
            for j in range(len(row)):
                store(grad, j, load(row, j) * (load(grad, j) - dot) * scale)
            for j in range(len(before)):
                store(before, j, np.float32(0))
            for j in range(len(after)):
                store(after, j, np.float32(0))


def causal_softmax_(scores: torch.Tensor, scale: float, first: torch.Tensor):
    """Scores (B, T, S), bf16 or fp32, become softmax(scale * scores) in place.

    Query t of T sees the keys from first[t] (T,) to S - T + t; the weights of the others are 0.
    """
    use_threads()
    _causal_softmax(array(scores), np.float32(scale), first.numpy())


def causal_softmax_backward_(weights: torch.Tensor, gradient: torch.Tensor, scale: float, first: torch.Tensor):
    """The gradient of the weights (B, T, S) becomes that of the scores, in place."""
    use_threads()
    _causal_softmax_backward(array(weights), array(gradient), np.float32(scale), first.numpy())


def use_threads():
    """As many threads as PyTorch uses."""
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))


def array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's memory as float32, or as uint16 where it is bfloat16."""
    if tensor.dtype == torch.bfloat16:
        return tensor.detach().view(torch.uint16).numpy()
    return tensor.detach().numpy()
