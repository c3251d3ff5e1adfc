"""AdamW with running means in 8 bits (eight_bits.py) as one loop for the CPU.

Shapes: n blocks of K numbers each.
"""

import math

import numpy as np
import torch
from cpu_kernels import greatest, use_threads
from eight_bits import MEAN, SQUARE
from kernel_cache import loop
from numba import njit, prange

BLOCKS = 64  # that a thread takes at a time


@njit(inline="always")
def hashed(position, step):
    """eight_bits.hashed of one position; a product of two uint32 is a uint64 to numba."""
    x = np.uint32(position * np.uint32(0x9E3779B1) + step * np.uint32(668265263))
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    x = np.uint32((x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return x ^ (x >> np.uint32(16))


@njit(inline="always")
def rounded(share, code, below, above, chances):
    """eight_bits.rounded of one number."""
    up = (above - below) * (np.float32(chances) * np.float32(2.0**-16)) < share - below
    return code + (np.float32(1) if up else np.float32(0))


@loop
def _adamw(p, gradient, means, mean_scales, squares, square_scales, step, lr, beta1, beta2, eps, decay, m_up, v_up):
    n, K = p.shape
    one, zero = np.float32(1), np.float32(0)
    for group in prange(-(-n // BLOCKS)):
        m, size, v = np.empty(K, np.float32), np.empty(K, np.float32), np.empty(K, np.float32)
        for i in range(group * BLOCKS, min(n, (group + 1) * BLOCKS)):
            weights, grad, mean, square = p[i], gradient[i], means[i], squares[i]
            m_scale, v_scale = mean_scales[i] / np.float32(MEAN**2), square_scales[i] / np.float32(SQUARE**4)
            for j in range(K):
                c, d = np.float32(mean[j]), np.float32(square[j])
                m[j] = beta1 * (c * abs(c) * m_scale) + (one - beta1) * grad[j]  # with beta1 = 0 exactly the gradient
                v[j] = beta2 * (d * d * (d * d) * v_scale) + (one - beta2) * (grad[j] * grad[j])
                size[j] = abs(m[j])
                update = m[j] * m_up / (math.sqrt(v[j] * v_up) + eps)
                weights[j] = weights[j] * (one - lr * decay) - lr * update
            mean_scales[i], square_scales[i] = greatest(size, K), greatest(v, K)
            m_scale = np.float32(MEAN**2) / mean_scales[i] if mean_scales[i] > 0 else zero
            v_scale = np.float32(SQUARE**4) / square_scales[i] if square_scales[i] > 0 else zero
            least = one if square_scales[i] > 0 else zero  # so that nothing is divided by 0
            for j in range(K):
                chances = hashed(np.uint32(i * K + j), step)
                share = size[j] * m_scale
                c = min(np.floor(math.sqrt(share)), np.float32(MEAN - 1))
                c = rounded(share, c, c * c, (c + one) * (c + one), np.int32(chances & np.uint32(0xFFFF)))
                mean[j] = np.int8(np.int32(c if m[j] >= 0 else -c))
                share = v[j] * v_scale
                c = min(np.floor(math.sqrt(math.sqrt(share))), np.float32(SQUARE - 1))
                below, above = c * c, (c + one) * (c + one)
                c = rounded(share, c, below * below, above * above, np.int32(chances >> np.uint32(16)))
                square[j] = np.uint8(np.int32(max(c, least)))


def adamw_(p: torch.Tensor, gradient: torch.Tensor, means: torch.Tensor, mean_scales: torch.Tensor,
           squares: torch.Tensor, square_scales: torch.Tensor, step: int, lr: float, beta1: float, beta2: float,
           eps: float, weight_decay: float):
    """eight_bits.adamw_ in one pass over parameters and gradients (n, K) fp32, codes (n, K) and scales (n, 1)."""
    use_threads()
    bias = (1 / (1 - beta1**step), 1 / (1 - beta2**step))
    _adamw(p.numpy(), gradient.numpy(), means.numpy(), mean_scales.numpy()[:, 0], squares.numpy(),
           square_scales.numpy()[:, 0], np.uint32(step), *map(np.float32, (lr, beta1, beta2, eps, weight_decay, *bias)))
