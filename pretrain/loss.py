"""Output head and cross-entropy in one, in chunks: the (positions x vocabulary) logits never exist as a whole.

Shapes: N positions, C channels, V rows of the head (padded vocabulary).
"""

import torch

CHUNK = 512  # positions per chunk: 512 x 50,304 bf16 logits are 52 MB; all of 64 x 1024 positions in fp32 were 13 GB


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
    return LinearCrossEntropy.apply(x, weight, targets, vocab_size, z_loss)


class LinearCrossEntropy(torch.autograd.Function):
    """See linear_cross_entropy."""

    @staticmethod
    def forward(ctx, x, weight, targets, vocab_size, z_loss):
        """Loss, and the gradients of its inputs."""
        N, needs_grad = len(x), x.requires_grad or weight.requires_grad
        w = weight.detach().to(x.dtype)
        dx = torch.empty_like(x) if needs_grad else None
        dw = torch.zeros_like(weight, dtype=torch.float32) if needs_grad else None
        counted = (targets >= 0).float()  # 1, or 0 where left out
        share = counted / counted.sum().clamp(min=1)
        total = torch.zeros((), dtype=torch.float32, device=x.device)
        for start in range(0, N, CHUNK):
            rows, target = x[start:start + CHUNK], targets[start:start + CHUNK, None].clamp(min=0)
            weights = share[start:start + CHUNK, None]
            logits = rows @ w.T  # (chunk, V)
            real = logits[:, :vocab_size].float()
            log_normaliser = real.logsumexp(1, keepdim=True)
            total += ((log_normaliser - real.gather(1, target)) * weights).sum()
            if needs_grad:  # d/dlogits = softmax (1 + 2 z lse) - onehot
                grad = (real - log_normaliser).exp_() * ((1 + 2 * z_loss * log_normaliser) * weights)
                grad.scatter_add_(1, target, -weights)
                logits[:, :vocab_size] = grad
                logits[:, vocab_size:] = 0
                torch.mm(logits, w, out=dx[start:start + CHUNK])
                dw += logits.T @ rows
        if needs_grad:
            ctx.save_for_backward(dx, dw)
            ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx, grad):
        """Scale what forward made."""
        dx, dw = ctx.saved_tensors
        return dx * grad, (dw * grad).to(ctx.weight_dtype), None, None, None
