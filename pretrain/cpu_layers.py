"""Layers of a block as one compiled loop each, forward and backward, for eager training on a CPU.

Norms, activations, and what lies between a block's first product and its attention (split into heads, QK-norm, rotary
positions, transposition) are up to dozens of small operators in PyTorch; their loops read and write each number once.
Sums are fp32; those of gains' gradients go over fixed blocks of rows, so that they do not depend on the threads.

Shapes: N rows = B x T positions, C channels, H query heads, K key-value heads, D head size, W hidden channels.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from cpu_kernels import array, exp, load, store, use_threads
from kernel_cache import FAST, loop
from numba import njit, prange

ROWS = 128  # rows of a block, the unit of work of a thread


@njit(inline="always", fastmath=FAST)
def moments(row, centred, eps):
    """Mean of a row (C,), 0 unless centred, and 1 / sqrt(variance about it + eps)."""
    C = len(row)
    mean, squares = np.float32(0), np.float32(0)
    if centred:
        for j in range(C):
            mean += load(row, j)
        mean /= np.float32(C)
    for j in range(C):
        squares += (load(row, j) - mean) * (load(row, j) - mean)
    return mean, np.float32(1 / math.sqrt(squares / C + eps))


@loop
def _norm(x, gain, bias, eps, centred, y):
    C = x.shape[1]
    for i in prange(len(x)):
        row, out = x[i], y[i]
        mean, scale = moments(row, centred, eps)
        if len(bias):
            for j in range(C):
                store(out, j, (load(row, j) - mean) * scale * gain[j] + bias[j])
        else:
            for j in range(C):
                store(out, j, (load(row, j) - mean) * scale * gain[j])


@loop
def _norm_backward(x, gain, eps, centred, dy, dx, dgain, dbias):
    N, C = x.shape
    for block in prange(len(dgain)):
        for i in range(block * ROWS, min(N, (block + 1) * ROWS)):
            row, grad, out = x[i], dy[i], dx[i]
            mean, scale = moments(row, centred, eps)
            total, dot = np.float32(0), np.float32(0)
            for j in range(C):
                total += load(grad, j) * gain[j]
                dot += load(grad, j) * gain[j] * (load(row, j) - mean)
            shift = scale * scale * dot / np.float32(C)
            total = total / np.float32(C) if centred else np.float32(0)
            for j in range(C):
                dgain[block, j] += load(grad, j) * (load(row, j) - mean) * scale
                store(out, j, scale * (load(grad, j) * gain[j] - total - (load(row, j) - mean) * shift))
            if dbias.shape[1]:
                for j in range(C):
                    dbias[block, j] += load(grad, j)


@njit(inline="always", fastmath=FAST)
def sigmoid(x):
    """1 / (1 + e^-x)."""
    e = exp(-abs(x))
    return (np.float32(1) if x >= 0 else e) / (np.float32(1) + e)


# The backward loops make the activation y again, so that it need not be kept: in the place of its gradient dy.


@loop
def _swiglu(x, y):
    W = y.shape[1]
    for i in prange(len(x)):
        gate, up, out = x[i, :W], x[i, W:], y[i]
        for j in range(W):
            g = load(gate, j)
            store(out, j, g * sigmoid(g) * load(up, j))


@loop
def _swiglu_backward(x, dy, dx):
    W = dy.shape[1]
    for i in prange(len(x)):
        gate, up, grad, dgate, dup = x[i, :W], x[i, W:], dy[i], dx[i, :W], dx[i, W:]
        for j in range(W):
            g, d = load(gate, j), load(grad, j)
            s = sigmoid(g)
            store(dgate, j, d * load(up, j) * s * (np.float32(1) + g * (np.float32(1) - s)))
            store(dup, j, d * g * s)
        for j in range(W):
            store(grad, j, load(gate, j) * sigmoid(load(gate, j)) * load(up, j))


@loop
def _swish(x, a, b, y):
    for i in prange(len(x)):
        row, out = x[i], y[i]
        for j in range(len(row)):
            v = load(row, j)
            store(out, j, v * sigmoid(v * (a + b * v * v)))


@loop
def _swish_backward(x, a, b, dy, dx):
    for i in prange(len(x)):
        row, grad, out = x[i], dy[i], dx[i]
        for j in range(len(row)):
            v = load(row, j)
            s = sigmoid(v * (a + b * v * v))
            slope = s + v * s * (np.float32(1) - s) * (a + np.float32(3) * b * v * v)
            store(out, j, load(grad, j) * slope)
            store(grad, j, v * s)


@loop
def _relu2(x, y):
    for i in prange(len(x)):
        row, out = x[i], y[i]
        for j in range(len(row)):
            store(out, j, max(load(row, j), np.float32(0)) * load(row, j))  # not the maximum's square: NaN stays


@loop
def _relu2_backward(x, dy, dx):
    for i in prange(len(x)):
        row, grad, out = x[i], dy[i], dx[i]
        for j in range(len(row)):
            positive = max(load(row, j), np.float32(0))
            store(out, j, np.float32(2) * positive * load(grad, j))
            store(grad, j, positive * load(row, j))


@njit(inline="always", fastmath=FAST)
def normed(row, gain, eps, out):
    """Write a head's numbers (D,), by its RMS norm if there is a gain, to fp32."""
    D = len(out)
    for j in range(D):
        out[j] = load(row, j)
    if len(gain):
        squares = np.float32(0)
        for j in range(D):
            squares += out[j] * out[j]
        scale = np.float32(1 / math.sqrt(squares / D + eps))
        for j in range(D):
            out[j] *= scale * gain[j]


@njit(inline="always", fastmath=FAST)
def rotate(head, c, s, out):
    """Store a head (D,), its halves turned by the angles of cosines c and sines s (D / 2,)."""
    half = len(head) // 2
    for j in range(half):
        store(out, j, head[j] * c[j] - head[j + half] * s[j])
    for j in range(half):
        store(out, j + half, head[j + half] * c[j] + head[j] * s[j])


@loop
def _heads(x, T, q_gain, k_gain, eps, cos, sin, q, k, v):
    N, D = len(x), q.shape[2]
    H, K = len(q) * T // N, len(k) * T // N
    for block in prange(-(-N // ROWS)):
        scaled = np.empty(D, np.float32)
        for i in range(block * ROWS, min(N, (block + 1) * ROWS)):
            b, t = i // T, i % T
            for h in range(H + K):
                row = x[i, h * D:(h + 1) * D]
                out = q[b * H + h, t] if h < H else k[b * K + h - H, t]
                gain = q_gain if h < H else k_gain
                normed(row, gain, eps, scaled)
                if len(cos):
                    rotate(scaled, cos[t], sin[t], out)
                else:
                    for j in range(D):
                        store(out, j, scaled[j])
            for h in range(K):
                for j in range(D):
                    v[b * K + h, t, j] = x[i, (H + K + h) * D + j]


@loop
def _heads_backward(x, T, q_gain, k_gain, eps, cos, sin, dq, dk, dv, dx, dgains):
    N, D, half = len(dx), dq.shape[2], dq.shape[2] // 2
    H, K = len(dq) * T // N, len(dk) * T // N
    for block in prange(len(dgains)):
        back = np.empty(D, np.float32)  # the gradient, turned back
        for i in range(block * ROWS, min(N, (block + 1) * ROWS)):
            b, t = i // T, i % T
            for h in range(H + K):
                out = dx[i, h * D:(h + 1) * D]
                grad = dq[b * H + h, t] if h < H else dk[b * K + h - H, t]
                gain = q_gain if h < H else k_gain
                if len(cos):
                    for j in range(half):
                        back[j] = load(grad, j) * cos[t, j] + load(grad, j + half) * sin[t, j]
                    for j in range(half):
                        back[j + half] = load(grad, j + half) * cos[t, j] - load(grad, j) * sin[t, j]
                else:
                    for j in range(D):
                        back[j] = load(grad, j)
                if len(gain):
                    row, dgain = x[i, h * D:(h + 1) * D], dgains[block, 0 if h < H else 1]
                    squares, dot = np.float32(0), np.float32(0)
                    for j in range(D):
                        squares += load(row, j) * load(row, j)
                        dot += load(row, j) * back[j] * gain[j]
                    scale = np.float32(1 / math.sqrt(squares / D + eps))
                    shift = scale * scale * dot / np.float32(D)
                    for j in range(D):
                        dgain[j] += back[j] * load(row, j) * scale
                        back[j] = scale * (back[j] * gain[j] - load(row, j) * shift)
                for j in range(D):
                    store(out, j, back[j])
            for h in range(K):
                for j in range(D):
                    dx[i, (H + K + h) * D + j] = dv[b * K + h, t, j]


class Norm(torch.autograd.Function):
    """LayerNorm (centred) or RMSNorm of x (..., C) in the dtype of x, with a gain (C,) and a bias (C,) or None."""

    @staticmethod
    def forward(ctx, x, gain, bias, eps, centred):
        """The normalised x."""
        x = x.contiguous()
        y = torch.empty_like(x)
        use_threads()
        _norm(rows(x), copied(gain), copied(bias), np.float32(eps), centred, rows(y))
        ctx.save_for_backward(x, gain, bias)
        ctx.eps, ctx.centred = eps, centred
        return y

    @staticmethod
    def backward(ctx, dy):
        """Gradients of x, gain and bias."""
        x, gain, bias = ctx.saved_tensors
        dx, C = torch.empty_like(x), x.shape[-1]
        dgain, dbias = (np.zeros((blocks(x.numel() // C), 0 if p is None else C), np.float32) for p in (gain, bias))
        use_threads()
        _norm_backward(rows(x), copied(gain), np.float32(ctx.eps), ctx.centred, rows(dy.contiguous()), rows(dx), dgain,
                       dbias)
        return dx, summed(dgain, gain), summed(dbias, bias), None, None


class Linear(torch.autograd.Function):
    """x (..., W) times the matrix (C, W) cast to the dtype of x, plus the bias (C,) or None -> (..., C).

    The cast matrix is not kept, backward makes it again.
    """

    @staticmethod
    def forward(ctx, x, weight, bias):
        """As F.linear."""
        ctx.save_for_backward(x, weight, bias)
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx, grad):
        """Gradients of x, weight and bias."""
        x, weight, bias = ctx.saved_tensors
        dx = grad @ weight.to(x.dtype) if ctx.needs_input_grad[0] else None
        return dx, *gradients(x, grad, weight, bias)


def gradients(x, grad, weight, bias) -> tuple:
    """Gradients of a matrix (C, W) and its bias (C,) or None, from its input (..., W) and that of its result."""
    grad = grad.flatten(0, -2)
    return (grad.T @ x.flatten(0, -2)).to(weight.dtype), None if bias is None else grad.sum(0).to(bias.dtype)


# Of each activation the loops, forward and backward, and their parameters.
GELU = np.float32(1.5957691), np.float32(0.0713548163)  # x / 2 (1 + tanh u) = x sigmoid(2 u), u = 0.798 (x + 0.0447 x³)
SILU = np.float32(1), np.float32(0)
ACTIVATIONS = {"gelu": (_swish, _swish_backward, GELU), "silu": (_swish, _swish_backward, SILU),
               "relu2": (_relu2, _relu2_backward, ()), "swiglu": (_swiglu, _swiglu_backward, ())}


class ActivatedLinear(torch.autograd.Function):
    """The second half of an MLP: activation of x (..., W), then the matrix (C, W) and bias (C,) or None -> (..., C).

    swiglu: silu(gate) * up of x (..., 2 W), gate first. Of the activation nothing is kept, backward makes it again.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, kind):
        """With the activation of that kind, a key of ACTIVATIONS."""
        loop, _, parameters = ACTIVATIONS[kind]
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], weight.shape[1])
        use_threads()
        loop(rows(x), *parameters, rows(y))
        ctx.save_for_backward(x, weight, bias)
        ctx.kind = kind
        return F.linear(y, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx, grad):
        """Gradients of x, weight and bias."""
        x, weight, bias = ctx.saved_tensors
        _, loop, parameters = ACTIVATIONS[ctx.kind]
        y, dx = grad @ weight.to(x.dtype), torch.empty_like(x)  # y is its own gradient yet
        use_threads()
        loop(rows(x), *parameters, rows(y), rows(dx))
        return dx, *gradients(y, grad, weight, bias), None


class Heads(torch.autograd.Function):
    """x (B, T, (H + 2 K) D) -> q (B, H, T, D), k, v (B, K, T, D): QK-norm (gains (D,), or None), then rotary positions.

    cos, sin (T, D/2), or None for no rotation.
    """

    @staticmethod
    def forward(ctx, x, q_gain, k_gain, eps, cos, sin, heads, D):
        """The three, contiguous; heads are H, K."""
        x = x.contiguous()
        B, T, _ = x.shape
        q, k, v = (x.new_empty(B, count, T, D) for count in (*heads, heads[1]))
        ctx.save_for_backward(None if q_gain is None else x, q_gain, k_gain, cos, sin)
        ctx.eps = eps
        use_threads()
        _heads(rows(x), T, *Heads.arguments(q_gain, k_gain, cos, sin, eps),
               *(array(y.view(-1, T, D)) for y in (q, k, v)))
        return q, k, v

    @staticmethod
    def arguments(q_gain, k_gain, cos, sin, eps):
        """What both loops take; empty gains stand for no normalisation, empty tables for no rotation."""
        tables = (np.empty((0, 0), np.float32) if table is None else array(table.float()) for table in (cos, sin))
        return copied(q_gain), copied(k_gain), np.float32(eps), *tables

    @staticmethod
    def backward(ctx, dq, dk, dv):
        """Gradients of x and of the gains."""
        x, q_gain, k_gain, cos, sin = ctx.saved_tensors
        B, H, T, D = dq.shape
        dx = dq.new_empty(B, T, (H + 2 * dk.shape[1]) * D)
        dgains = np.zeros((blocks(B * T), 2, D), np.float32)
        use_threads()
        _heads_backward(rows(dx if x is None else x), T, *Heads.arguments(q_gain, k_gain, cos, sin, ctx.eps),
                        *(array(grad.reshape(-1, T, D)) for grad in (dq, dk, dv)), rows(dx), dgains)
        return (dx, *(summed(dgains[:, i], gain) for i, gain in enumerate((q_gain, k_gain))),
                None, None, None, None, None)


def rows(x: torch.Tensor) -> np.ndarray:
    """An array (N, C) of x (..., C)."""
    return array(x.view(-1, x.shape[-1]))


def copied(parameter: torch.Tensor | None) -> np.ndarray:
    """A copy in fp32, empty for None. FSDP resizes its parameters, which PyTorch refuses once numpy has seen them."""
    if parameter is None:
        return np.empty(0, np.float32)
    return array(parameter.detach().to(torch.float32, copy=True))


def blocks(count: int) -> int:
    """Blocks of rows that cover so many."""
    return -(-count // ROWS)


def summed(parts: np.ndarray, parameter: torch.Tensor | None) -> torch.Tensor | None:
    """The gradient of a parameter (C,) from its sums (blocks, C) over blocks of rows."""
    return None if parameter is None else torch.from_numpy(parts.sum(0)).to(parameter.dtype)
