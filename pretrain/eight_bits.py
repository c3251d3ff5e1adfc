"""An optimizer's running means in 8 bits instead of 32, a quarter of its memory (`--optimizer_bits 8`).

Every row of a matrix is cut into blocks of up to 256 numbers, which share one fp32 scale, their greatest magnitude
(Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization"). What is stored of a number is a root of its
share in the scale, in even steps, so that numbers far below the greatest keep their precision:

    mean of gradients      m = scale * sign(c) (c / 127)²    c from -127 to 127
    mean of their squares  v = scale * (c / 255)⁴            c from 0 to 255

A number between two codes becomes the one or the other by chance, so that it is right on average. Rounded to the
nearest, a mean that moves by a hundredth in each step (beta2 0.99) would never leave its code. The chances are a hash
of step and position: who resumes draws the same. v becomes 0 only where its whole block is 0: m is divided by its root.

A CPU has this as one loop (cpu_optim.py), a GPU as one kernel by torch.compile.

Shapes: n blocks of K numbers each; scales (n, 1).
"""

import functools

import torch
from sharded import local, zeros_like_rows

LONGEST = 256  # numbers of a block
MEAN, SQUARE = 127, 255  # greatest codes


def block_size(columns: int) -> int:
    """Numbers of a block: the greatest divisor of a row's length up to 256, or where that is small the whole row."""
    divisor = max(k for k in range(1, LONGEST + 1) if columns % k == 0)
    return divisor if divisor >= LONGEST // 8 else columns


def slots(p: torch.Tensor, **dtypes: torch.dtype) -> dict[str, torch.Tensor]:
    """Zeros for the running means of a matrix p (R, C), NAME and NAME_scale each; sharded as p is."""
    columns, made = p.shape[1], {}
    for name, dtype in dtypes.items():
        made[name] = zeros_like_rows(p, columns, dtype)
        made[f"{name}_scale"] = zeros_like_rows(p, columns // block_size(columns), torch.float32)
    return made


def blocks(p: torch.Tensor, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """What this process holds of tensors shaped like p, or of their scales, as (n, K) or (n, 1)."""
    size = block_size(p.shape[-1])
    return [local(t).view(-1, size if t.shape == p.shape else 1) for t in tensors]


def adamw(p: torch.Tensor, gradient: torch.Tensor, state: dict, lr: float, *settings: float):
    """AdamW's update of a matrix p (R, C) whose state has the slots exp_avg (int8) and exp_avg_sq (uint8), in place.

    settings: beta1, beta2, eps, weight_decay.
    """
    state["step"] += 1
    tensors = blocks(p, p.detach(), gradient.contiguous(), *(
        state[name] for name in ("exp_avg", "exp_avg_scale", "exp_avg_sq", "exp_avg_sq_scale")))
    if p.device.type == "cpu":
        import cpu_optim

        cpu_optim.adamw_(*tensors, int(state["step"]), lr, *settings)
    else:
        for tensor in tensors:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        compiled_adamw_()(*tensors, state["step"], torch.full((), lr, device=p.device), *settings)


def moved_mean(p: torch.Tensor, gradient: torch.Tensor, state: dict, name: str, beta: float) -> torch.Tensor:
    """The running mean that state[name] (int8) holds, moved towards the gradient by 1 - beta; fp32, shaped like p."""
    state["step"] += 1
    codes, scale = blocks(p, state[name], state[f"{name}_scale"])
    mean = torch.empty_like(gradient, memory_format=torch.contiguous_format)
    m, = blocks(p, mean)
    torch.lerp(decoded_mean(codes, scale), *blocks(p, gradient.contiguous()), 1 - beta, out=m)
    encode_mean_(m, hashed(m.shape, state["step"]) & 0xFFFF, codes, scale)
    return mean


def adamw_(p, gradient, mean, mean_scale, square, square_scale, step, lr, beta1: float, beta2: float, eps: float,
           weight_decay: float):
    """The same of blocks; step (from 1) and lr are tensors of no dimension."""
    m = decoded_mean(mean, mean_scale).lerp(gradient, 1 - beta1)
    v = decoded_square(square, square_scale).lerp(gradient.square(), 1 - beta2)
    update = (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + eps)
    p.mul_(1 - lr * weight_decay).sub_(lr * update)
    chances = hashed(p.shape, step)
    encode_mean_(m, chances & 0xFFFF, mean, mean_scale)
    encode_square_(v, (chances >> 16) & 0xFFFF, square, square_scale)


@functools.cache
def compiled_adamw_():
    """Made at first use: torch.compile takes a second to import."""
    return torch.compile(adamw_)


def decoded_mean(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Means (n, K) of their codes, fp32."""
    c = codes.float()
    return c * c.abs() * (scale / MEAN**2)


def decoded_square(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Mean squares (n, K) of their codes, fp32."""
    return codes.float().square().square() * (scale / SQUARE**4)


def encode_mean_(m: torch.Tensor, chances: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor):
    """Write codes and scales of means m (n, K)."""
    scale.copy_(m.abs().amax(1, keepdim=True))
    share = m.abs() * (MEAN**2 / scale.clamp(min=torch.finfo().tiny))
    c = share.sqrt().floor().clamp(max=MEAN - 1)
    codes.copy_(rounded(share, c, c.square(), (c + 1).square(), chances).copysign(m))


def encode_square_(v: torch.Tensor, chances: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor):
    """Write codes and scales of mean squares v (n, K)."""
    scale.copy_(v.amax(1, keepdim=True))
    share = v * (SQUARE**4 / scale.clamp(min=torch.finfo().tiny))
    c = share.sqrt().sqrt().floor().clamp(max=SQUARE - 1)
    c = rounded(share, c, c.square().square(), (c + 1).square().square(), chances)
    codes.copy_(torch.where(scale > 0, c.clamp(min=1), c))


def rounded(share, code, below, above, chances) -> torch.Tensor:
    """The code, or the next with the chance that makes the mean of `below` and `above` the share; chances 16 bits."""
    return code + ((above - below) * (chances * 2.0**-16) < share - below)


def hashed(shape: torch.Size, step: torch.Tensor) -> torch.Tensor:
    """32 random bits for each position in this step, int32: MurmurHash3's last mixing of the two."""
    x = torch.arange(shape.numel(), dtype=torch.int32, device=step.device).view(shape) * -1640531535
    x = x + step.to(torch.int32) * 668265263
    x = (x ^ (x >> 16 & 0xFFFF)) * -2048144789
    x = (x ^ (x >> 13 & 0x7FFFF)) * -1028477387
    return x ^ (x >> 16 & 0xFFFF)
