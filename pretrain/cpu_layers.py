"""Layers of the LLaMA block as one compiled loop each, forward and backward, for eager training on a CPU.

RMSNorm, SwiGLU, ReLU², and what lies between a block's first product and its attention (split into heads, QK-norm,
rotary positions, transposition) are dozens of small operators in PyTorch; their loops read and write each number once.
Sums are fp32; those of gains' gradients go over fixed blocks of rows, so that they do not depend on the threads.

Shapes: N rows = B x T positions, C channels, H query heads, K key-value heads, D head size, W hidden channels.
"""

import math

import numpy as np
import torch
from cpu_kernels import array, exp, load, store, use_threads
from kernel_cache import FAST, loop
from numba import njit, prange

ROWS = 128  # rows of a block, the unit of work of a thread


@loop
def _rms_norm(x, gain, eps, y):
    C = x.shape[1]
    for i in prange(len(x)):
        row, out = x[i], y[i]
        squares = np.float32(0)
        for j in range(C):
            squares += load(row, j) * load(row, j)
        scale = np.float32(1 / math.sqrt(squares / C + eps))
        for j in range(C):
            store(out, j, load(row, j) * scale * gain[j])


@loop
def _rms_norm_backward(x, gain, eps, dy, dx, dgain):
    N, C = x.shape
    for block in prange(len(dgain)):
        for i in range(block * ROWS, min(N, (block + 1) * ROWS)):
            row, grad, out = x[i], dy[i], dx[i]
            squares, dot = np.float32(0), np.float32(0)
            for j in range(C):
                squares += load(row, j) * load(row, j)
                dot += load(row, j) * load(grad, j) * gain[j]
            scale = np.float32(1 / math.sqrt(squares / C + eps))
            shift = scale * scale * dot / np.float32(C)
            for j in range(C):
                dgain[block, j] += load(grad, j) * load(row, j) * scale
                store(out, j, scale * (load(grad, j) * gain[j] - load(row, j) * shift))


@njit(inline="always", fastmath=FAST)
def sigmoid(x):
    """1 / (1 + e^-x)."""
    e = exp(-abs(x))
    return (np.float32(1) if x >= 0 else e) / (np.float32(1) + e)


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
            store(out, j, np.float32(2) * max(load(row, j), np.float32(0)) * load(grad, j))


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
                rotate(scaled, cos[t], sin[t], out)
            for h in range(K):
                for j in range(D):
                    v[b * K + h, t, j] = x[i, (H + K + h) * D + j]


@loop
def _heads_backward(x, T, q_gain, k_gain, eps, cos, sin, dq, dk, dv, dx, dgains):
    N, D, half = len(x), dq.shape[2], dq.shape[2] // 2
    H, K = len(dq) * T // N, len(dk) * T // N
    for block in prange(len(dgains)):
        back = np.empty(D, np.float32)  # the gradient, turned back
        for i in range(block * ROWS, min(N, (block + 1) * ROWS)):
            b, t = i // T, i % T
            for h in range(H + K):
                row, out = x[i, h * D:(h + 1) * D], dx[i, h * D:(h + 1) * D]
                grad = dq[b * H + h, t] if h < H else dk[b * K + h - H, t]
                gain = q_gain if h < H else k_gain
                for j in range(half):
                    back[j] = load(grad, j) * cos[t, j] + load(grad, j + half) * sin[t, j]
                for j in range(half):
                    back[j + half] = load(grad, j + half) * cos[t, j] - load(grad, j) * sin[t, j]
                if len(gain):
                    squares, dot, dgain = np.float32(0), np.float32(0), dgains[block, 0 if h < H else 1]
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


class RMSNorm(torch.autograd.Function):
    """RMSNorm of x (..., C) in the dtype of x, with a gain (C,)."""

    @staticmethod
    def forward(ctx, x, gain, eps):
        """The normalised x."""
        x = x.contiguous()
        y = torch.empty_like(x)
        use_threads()
        _rms_norm(rows(x), copied(gain), np.float32(eps), rows(y))
        ctx.save_for_backward(x, gain)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx, dy):
        """Gradients of x and gain."""
        x, gain = ctx.saved_tensors
        dx, dgain = torch.empty_like(x), partial_sums(x)
        use_threads()
        _rms_norm_backward(rows(x), copied(gain), np.float32(ctx.eps), rows(dy.contiguous()), rows(dx), dgain)
        return dx, torch.from_numpy(dgain.sum(0)).to(gain.dtype), None


ACTIVATIONS = {"swiglu": (_swiglu, _swiglu_backward, 2), "relu2": (_relu2, _relu2_backward, 1)}  # loops, width of x / W


class Activation(torch.autograd.Function):
    """An MLP's activation: silu(gate) * up of x (..., 2 W), gate first, or max(x, 0)² of x (..., W), -> (..., W)."""

    @staticmethod
    def forward(ctx, x, kind):
        """The activation of that kind, a key of ACTIVATIONS."""
        loop, _, width = ACTIVATIONS[kind]
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], x.shape[-1] // width)
        use_threads()
        loop(rows(x), rows(y))
        ctx.save_for_backward(x)
        ctx.kind = kind
        return y

    @staticmethod
    def backward(ctx, dy):
        """Gradient of x."""
        x, = ctx.saved_tensors
        dx = torch.empty_like(x)
        use_threads()
        ACTIVATIONS[ctx.kind][1](rows(x), rows(dy.contiguous()), rows(dx))
        return dx, None


class Heads(torch.autograd.Function):
    """x (B, T, (H + 2 K) D) -> q (B, H, T, D), k, v (B, K, T, D): QK-norm (gains (D,), or None), then rotary positions.

    cos, sin (T, D/2).
    """

    @staticmethod
    def forward(ctx, x, q_gain, k_gain, eps, cos, sin, H, K):
        """The three, contiguous."""
        x = x.contiguous()
        B, T, D = len(x), len(cos), 2 * cos.shape[1]
        q, k, v = (x.new_empty(B, heads, T, D) for heads in (H, K, K))
        ctx.save_for_backward(x, q_gain, k_gain, cos, sin)
        ctx.eps = eps
        use_threads()
        _heads(*Heads.arguments(x, q_gain, k_gain, cos, sin, eps), *(array(y.view(-1, T, D)) for y in (q, k, v)))
        return q, k, v

    @staticmethod
    def arguments(x, q_gain, k_gain, cos, sin, eps):
        """What both loops take first; an empty gain stands for no normalisation."""
        gains = [np.empty(0, np.float32) if gain is None else copied(gain) for gain in (q_gain, k_gain)]
        return rows(x), len(cos), *gains, np.float32(eps), array(cos.float()), array(sin.float())

    @staticmethod
    def backward(ctx, *gradients):
        """Gradients of x and of the gains."""
        x, q_gain, _, cos, _ = ctx.saved_tensors
        T, D = len(cos), 2 * cos.shape[1]
        dx = torch.empty_like(x)
        dgains = np.zeros((-(-len(x) * T // ROWS), 2, D), np.float32)
        use_threads()
        _heads_backward(*Heads.arguments(*ctx.saved_tensors, ctx.eps),
                        *(array(grad.reshape(-1, T, D)) for grad in gradients), rows(dx), dgains)
        dq_gain, dk_gain = (None, None) if q_gain is None else torch.from_numpy(dgains.sum(0)).to(q_gain.dtype)
        return dx, dq_gain, dk_gain, None, None, None, None, None


def rows(x: torch.Tensor) -> np.ndarray:
    """An array (N, C) of x (..., C)."""
    return array(x.view(-1, x.shape[-1]))


def copied(gain: torch.Tensor) -> np.ndarray:
    """A copy of a parameter in fp32: FSDP hands out bf16, and must resize what PyTorch never does once numpy saw it."""
    return array(gain.detach().to(torch.float32, copy=True))


def partial_sums(x: torch.Tensor) -> np.ndarray:
    """Zeros (blocks of rows, C)."""
    return np.zeros((-(-x.numel() // x.shape[-1] // ROWS), x.shape[-1]), np.float32)
