"""Output head and cross-entropy in one, in chunks: the (positions x vocabulary) logits never exist as a whole.

Shapes: N positions, C channels, V rows of the head (padded vocabulary).
"""

import functools

import torch

# Bytes of a chunk of logits. All of 64 x 1024 positions x 50,304 are 13 GB in fp32.
LOGITS = {"cpu": 2**27, "cuda": 2**30}
# Rows of the head whose gradient is computed at once: on a CPU so few that it is added from the cache.
ROWS = {"cpu": 2**12, "cuda": 2**30}


def linear_cross_entropy(x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, vocab_size: int,
                         z_loss: float = 0.0) -> torch.Tensor:
    """Mean of -log softmax(x weight')[target] over the targets that are not -1, nats.

    x (N, C) sets the dtype of the matmuls, weight (V, C), targets (N,) int64 below vocab_size, or -1 to leave a
    position out. Rows of the weight from vocab_size on are padding and take no part. The gradient is computed together
    with the loss, chunk by chunk, so that backward only scales it (the idea of Liger-Kernel and of Apple's cut
    cross-entropy).

    z_loss adds the gradient of z_loss * mean(logsumexp²) (Chowdhery et al. 2022), which keeps the logits from drifting;
    the value returned stays the cross-entropy alone, comparable between runs.
    """
    # asked here, because inside of a Function gradients are always off
    gradient = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return LinearCrossEntropy.apply(x, weight, targets, vocab_size, z_loss, gradient)


class LinearCrossEntropy(torch.autograd.Function):
    """See linear_cross_entropy."""

    @staticmethod
    def forward(ctx, x, weight, targets, vocab_size, z_loss, needs_grad):
        """Loss, and with needs_grad the gradients of its inputs."""
        w = weight.detach()
        if w.dtype != x.dtype:
            w = memory("weight", x, w.numel()).view(w.shape).copy_(w)
        shares = (targets >= 0).float()  # 1, or 0 where left out
        shares /= shares.sum().clamp(min=1)
        targets = targets.clamp(min=0)
        cross_entropy_ = chunk_function(x.device)
        dx = torch.empty_like(x) if needs_grad else None
        dw, total, height = None, torch.zeros((), device=x.device), ROWS[x.device.type]
        chunk = positions_at_once(x, len(w))
        space = memory("logits", x, chunk * len(w))
        for rows, target, share, out in zip(*(t.split(chunk) for t in (x, targets, shares, x if dx is None else dx)),
                                            strict=True):
            logits = product(rows, w, space)  # (chunk, V)
            total += cross_entropy_(logits, target, share, vocab_size, z_loss, needs_grad) @ share
            if needs_grad:  # logits hold their gradient now
                torch.mm(logits, w, out=out)
                first, dw = dw is None, torch.empty_like(w, dtype=torch.float32) if dw is None else dw
                for part, columns in zip(dw.split(height), logits.split(height, 1), strict=True):
                    (part.copy_ if first else part.add_)(columns.T @ rows)
        ctx.gradients = dx, dw
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx, grad):
        """Scale what forward made, in place: once only."""
        dx, dw = ctx.gradients
        ctx.gradients = None
        return dx.mul_(grad), dw.mul_(grad).to(ctx.weight_dtype), None, None, None, None


def positions_at_once(x: torch.Tensor, V: int) -> int:
    """Positions of a chunk: about the same for all chunks, in whole vectors (of 682 products take a third longer)."""
    chunks = -(-len(x) * V * x.element_size() // LOGITS[x.device.type])
    return -(-len(x) // (32 * chunks)) * 32


def memory(use: str, x: torch.Tensor, size: int) -> torch.Tensor:
    """Memory of the kind of x; on a CPU the same in every step: given back, what comes next would cut it to pieces."""
    return kept_memory(use, size, x.dtype) if x.device.type == "cpu" else x.new_empty(size)


@functools.lru_cache(maxsize=2)
def kept_memory(use: str, size: int, dtype: torch.dtype) -> torch.Tensor:
    """The last one for each use."""
    with torch.inference_mode(False):  # whoever asks first
        return torch.empty(size, dtype=dtype)


def product(x: torch.Tensor, weight: torch.Tensor, space: torch.Tensor) -> torch.Tensor:
    """Logits (N, V) of x (N, C) in that space; on a CPU column after column, whereby all three products are faster."""
    N, V = len(x), len(weight)
    if x.device.type == "cpu":
        return torch.mm(weight, x.T, out=space[: N * V].view(V, N)).T
    return torch.mm(x, weight.T, out=space[: N * V].view(N, V))


def cross_entropy_(logits, targets, shares, vocab_size: int, z_loss: float, gradient: bool) -> torch.Tensor:
    """Cross-entropies (N,) of logits (N, V); with `gradient`, the logits become the gradient of the loss, in place.

    The loss weighs position n by shares[n]; d loss / d logits = shares (softmax (1 + 2 z logsumexp) - onehot).
    """
    # Written so that torch.compile makes two loops over whole rows: one finds maximum and sum in a single pass, the
    # other writes the gradient. logsumexp would read the rows twice, a slice up to vocab_size ends off any alignment,
    # and a scatter would need an (N, V) in fp32.
    ids = torch.arange(logits.shape[1], device=logits.device)
    real = logits.float().masked_fill(ids >= vocab_size, -torch.inf)
    greatest = real.amax(1, keepdim=True)
    log_normaliser = greatest + (real - greatest).exp().sum(1, keepdim=True).log()
    nats = log_normaliser - logits.gather(1, targets[:, None])
    if gradient:
        grad = (real - log_normaliser).exp() * (1 + 2 * z_loss * log_normaliser) - (ids == targets[:, None]).float()
        logits.copy_(grad * shares[:, None])
    return nats[:, 0]


def chunk_function(device: torch.device):
    """cross_entropy_ as the device does it best: a compiled loop on a CPU, fused by torch.compile on a GPU."""
    if device.type == "cpu":
        import cpu_kernels

        return cpu_kernels.cross_entropy_
    return fused_cross_entropy_


def fused_cross_entropy_(logits, targets, shares, *settings) -> torch.Tensor:
    """cross_entropy_ by torch.compile, for any number of positions; V is a constant, by which indices are divided."""
    for tensor in (logits, targets, shares):
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return compiled_cross_entropy_()(logits, targets, shares, *settings)


@functools.cache
def compiled_cross_entropy_():
    """Made at first use: torch.compile takes a second to import."""
    return torch.compile(cross_entropy_)
