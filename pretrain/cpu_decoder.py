"""The decoder for a CPU: what lies between a block's products as one compiled loop each.

A step of a small model is otherwise a hundred operators of some microseconds. Sums are fp32.

Shapes: B rows, T new tokens per row, N = B T, H query heads, K key-value heads, D head size, S positions in the cache,
C channels.
"""

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from attention import attention
from cpu_kernels import FAR, array, exp, greatest, load, store, use_threads
from cpu_layers import ACTIVATIONS, normed, rotate
from decoder import Decoder
from kernel_cache import loop
from numba import prange

NOTHING = np.empty(0, np.float32)


@loop
def _matrix_vector(weight, bias, x, y):
    wide = np.empty(len(x), np.float32)
    for j in range(len(x)):
        wide[j] = load(x, j)
    for i in prange(len(weight)):
        row, total = weight[i], np.float32(0)
        for j in range(len(wide)):
            total += load(row, j) * wide[j]
        store(y, i, total + load(bias, i) if len(bias) else total)


@partial(loop, parallel=False)
def _add_norm(x, branch, gain, bias, eps, centred, post, y):
    C = x.shape[1]
    sums = np.empty(C + 2 * FAR, np.float32)[FAR:FAR + C]
    for i in range(len(x)):
        row, added, out = x[i], branch[i], y[i]
        total = np.float32(0)
        for j in range(C):
            sums[j] = load(row, j) + load(added, j)
            total += sums[j]
            store(row, j, sums[j])
        if len(gain):
            mean = total / np.float32(C) if centred else np.float32(0)
            squares = np.float32(0)
            for j in range(C):
                squares += (sums[j] - mean) ** 2
            scale = np.float32(1 / math.sqrt(squares / C + eps))
            for j in range(C):
                sums[j] = (sums[j] - mean) * scale * gain[j]
            for j in range(len(bias)):
                sums[j] += bias[j]
        for j in range(C):
            store(out, j, sums[j])
        if post:
            for j in range(C):
                store(row, j, sums[j])


@loop
def _heads(qkv, positions, slot, q_gain, k_gain, eps, cos, sin, q, keys, values):
    B, H, T, D = q.shape
    K = keys.shape[1]
    for i in prange(B * T):
        b, t = i // T, i % T
        wide = np.empty(D, np.float32)
        for h in range(H + K):
            row = qkv[i, h * D:(h + 1) * D]
            out = q[b, h, t] if h < H else keys[b, h - H, slot + t]
            gain = q_gain if h < H else k_gain
            normed(row, gain, eps, wide)
            if len(cos):
                rotate(wide, cos[positions[b, t]], sin[positions[b, t]], out)
            else:
                for j in range(D):
                    store(out, j, wide[j])
        for h in range(K):
            for j in range(D):
                values[b, h, slot + t, j] = qkv[i, (H + K + h) * D + j]


@loop
def _attend(q, keys, values, first, end, scale, y):
    B, H, _, D = q.shape
    K = keys.shape[1]
    for i in prange(B * H):
        b, h = i // H, i % H
        k, v = keys[b, h * K // H, first[b]:end], values[b, h * K // H, first[b]:end]
        query, p, read = np.empty(D, np.float32), np.empty(len(k), np.float32), np.zeros(D, np.float32)
        for j in range(D):
            query[j] = load(q[b, h, 0], j) * scale
        for s in range(len(k)):
            row, score = k[s], np.float32(0)
            for j in range(D):
                score += query[j] * load(row, j)
            p[s] = score
        top, total = greatest(p, len(p)), np.float32(0)
        for s in range(len(p)):
            p[s] = exp(p[s] - top)
            total += p[s]
        for s in range(len(v)):
            row, share = v[s], p[s]
            for j in range(D):
                read[j] += share * load(row, j)
        out = y[b, h * D:(h + 1) * D]
        for j in range(D):
            store(out, j, read[j] / total)


class CPUDecoder(Decoder):
    """Bound to a model and an empty cache: loops over numpy arrays, PyTorch for products of several rows."""

    @staticmethod
    def product(weight: torch.Tensor, bias: torch.Tensor | None, rows: int):
        """Function of arrays, x (N, in) -> x weight' + bias, for N = rows: one and several each have their own way.

        A (50304, 768) head on one core, ms: one row in bf16 9.0 as F.linear has it, 3.7 by our loop, in fp32 11.8 and
        5.8; 16 rows in bf16 13.6 and 7.8 with the weight packed once by oneDNN, in fp32 35.5 and 18.2.
        """
        matrix, shift = array(weight), array(weight.new_empty(0) if bias is None else bias)
        by_onednn = onednn_multiplies(weight.dtype)
        if by_onednn and rows > 1:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)

        def multiply(x):
            if rows > 1 or len(x) > 1:
                x = tensor(x)
                return array(torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "") if by_onednn
                             else F.linear(x, weight, bias))
            y = np.empty((1, len(matrix)), x.dtype)
            _matrix_vector(matrix, shift, x[0], y[0])
            return y
        return multiply

    @staticmethod
    def norm(weight: torch.Tensor | None, bias: torch.Tensor | None, kind: str, eps: float):
        """What the loop takes: gain and bias (C,) in fp32, epsilon, whether it subtracts the mean; no gain: no norm."""
        gain, shift = (NOTHING if p is None else array(p.float()) for p in (weight, bias))
        return gain, shift, np.float32(eps), kind == "layernorm"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        cache, config = self.cache, self.config
        self.keys, self.values = ([array(part) for part in parts] for parts in (cache.keys, cache.values))
        self.begins = np.zeros(cache.keys.shape[1], np.int64) if self.first is None else self.first.numpy()
        tables = (self.model.cos, self.model.sin) if config.position == "rope" else torch.empty(2, 0, 1)
        self.cos, self.sin = map(array, tables)

    def begin(self, x: torch.Tensor, positions: torch.Tensor) -> np.ndarray:
        """What all layers of a step share; x (N, C) as an array."""
        self.shape, self.positions = positions.shape, positions.contiguous().numpy()
        end = self.cache.length + self.shape[1]
        if end > self.cache.capacity:
            raise ValueError(f"key-value cache holds {self.cache.capacity} positions, {end} are needed")
        self.mask = self.visible() if self.shape[1] > 1 else None
        use_threads()
        return array(x)

    def add_norm(self, x, branch, norm):
        """Add branch to x, in place; returns x and its norm, all (N, C)."""
        y = np.empty_like(x)
        _add_norm(x, branch, *norm, self.config.norm_place == "post", y)
        return x, y

    def attend(self, layer: int, qkv: np.ndarray) -> np.ndarray:
        """Queries, keys, values (N, (H + 2 K) D) -> what attention reads, (N, H D)."""
        (B, T), H, D, cache = self.shape, self.config.n_head, self.config.head_dim, self.cache
        end = cache.length + T
        (q_gain, _, eps, _), (k_gain, *_) = self.weights.head_norms[layer]
        q, keys, values = np.empty((B, H, T, D), qkv.dtype), self.keys[layer], self.values[layer]
        _heads(qkv, self.positions, cache.length, q_gain, k_gain, eps, self.cos, self.sin, q, keys, values)
        if T > 1:
            y = attention(tensor(q), cache.keys[layer, :, :, :end], cache.values[layer, :, :, :end], self.mask)
            return array(y.transpose(1, 2).reshape(B * T, H * D))
        y = np.empty((B, H * D), qkv.dtype)
        _attend(q, keys, values, self.begins, end, np.float32(D**-0.5), y)
        return y

    def activate(self, x: np.ndarray) -> np.ndarray:
        """What model.MLP does between its two matrices."""
        loop, _, parameters = ACTIVATIONS[self.config.mlp]
        y = np.empty((len(x), self.config.hidden), x.dtype)
        loop(x, *parameters, y)
        return y

    def finish(self, logits: np.ndarray) -> torch.Tensor:
        """The step's result."""
        return tensor(logits)


def onednn_multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there (not on a Mac) and has products of this dtype on this CPU (bf16: not below AVX-512)."""
    return torch.backends.mkldnn.is_available() and (
        dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())


def tensor(numbers: np.ndarray) -> torch.Tensor:
    """The inverse of `array`."""
    result = torch.from_numpy(numbers)
    return result.view(torch.bfloat16) if numbers.dtype == np.uint16 else result
