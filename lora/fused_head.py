"""Cross-entropy at the labelled positions only, its gradient made in the forward pass, in chunks.

GPT-2's head (768 -> 50,257) is 31% of the model's matmul FLOPs, and its logits in fp32 are 200 KB per token: PEFT's
step spends about half its time and most of its memory there. Only positions with a label need logits, and a chunk of
them lives only until its gradient (softmax - one-hot) W is formed, so the logits of a whole batch never exist.

Shapes: M labelled positions, C channels, V vocabulary, K rows of a chunk.
"""

import numpy as np
import torch
import torch.nn.functional as F
from packing import Layout
from torch import nn
from torch.func import functional_call

CHUNK_ELEMENTS = 2**25  # most logits alive at once, 64 MB in bf16


class HeadCrossEntropy(torch.autograd.Function):
    """Sum over M of -log softmax(h W^T)[target]: the loss of a linear head without bias."""

    @staticmethod
    def forward(ctx, hidden, weight, targets):
        """Hidden (M, C), weight (V, C), targets (M) int64 -> scalar fp32."""
        chunks = -(-len(hidden) * len(weight) // CHUNK_ELEMENTS) or 1
        chunk = -(-len(hidden) // chunks) or 1  # K: equal chunks, a small last one would use the hardware badly
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None  # a sum over chunks
        total = torch.zeros((), device=hidden.device, dtype=torch.float64)
        for start in range(0, len(hidden), chunk):
            h, y = hidden[start : start + chunk], targets[start : start + chunk]
            nats, p = cross_entropy(h @ weight.t().to(h.dtype), y, needs_hidden or needs_weight)  # (K,), (K, V)
            total += nats.sum(dtype=torch.float64)
            if needs_hidden:
                torch.mm(p.to(h.dtype), weight.to(h.dtype), out=d_hidden[start : start + chunk])
            if needs_weight:
                d_weight += p.t() @ h
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.weight_dtype = weight.dtype
        return total.float()

    @staticmethod
    def backward(ctx, g):
        """Gradients of hidden and weight for g, a scalar."""
        d_hidden, d_weight = ctx.saved_tensors
        return (
            None if d_hidden is None else d_hidden * g.to(d_hidden.dtype),
            None if d_weight is None else (d_weight * g).to(ctx.weight_dtype),
            None,
        )


def cross_entropy(logits, targets, gradient: bool):
    """Losses (K,) of logits (K, V), and their gradient, in the memory of the logits where there is a loop for it."""
    if not logits.is_cuda and logits.dtype in (torch.bfloat16, torch.float32):
        from cpu_loops import cross_entropy_

        return cross_entropy_(logits, targets, gradient), logits
    p, y = F.log_softmax(logits, dim=1, dtype=torch.float32), targets[:, None]
    nats = -p.gather(1, y)[:, 0]
    if gradient:
        p.exp_().scatter_add_(1, y, torch.full_like(y, -1, dtype=torch.float32))
    return nats, p.to(logits.dtype)


@torch.no_grad()
def has_plain_head(model, packed: bool) -> bool:
    """Whether logits are hidden @ head.weight^T and nothing else: no bias, LoRA, scaling or soft cap.

    Found out once per model by trying it on four tokens, because families scale under many names; a soft cap, which
    small logits do not show, by its name.
    """
    if not hasattr(model, "plain_head"):
        head, training = model.get_output_embeddings(), model.training
        capped = any("soft" in name and "cap" in name and value for name, value in vars(model.config).items())
        plain = type(head) is nn.Linear and head.bias is None and model.base_model is not model and not capped
        if plain:
            inputs = {"input_ids": torch.arange(4, device=head.weight.device)[None]}
            if packed:
                inputs |= {"position_ids": inputs["input_ids"], "layout": Layout([np.arange(4)], head.weight.device)}
            model.eval()  # without dropout
            hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
            logits, expected = model(**inputs, use_cache=False).logits.float(), head(hidden).float()
            plain = bool((logits - expected).norm() <= 1e-2 * expected.norm())
            model.train(training)
        model.plain_head = plain
    return model.plain_head


def labelled_loss(model, batch) -> torch.Tensor:
    """Sum of the cross-entropy over the batch's labelled positions, fp32 scalar; divide by the number of labels
    yourself.

    batch: packing.Batch, its `predict` (M) the flat positions whose next token is labelled, `targets` (M) those
    tokens.
    """
    if has_plain_head(model, "layout" in batch.inputs):
        hidden = model.base_model(**batch.inputs, use_cache=False).last_hidden_state  # (rows, T, C)
        hidden = hidden.flatten(0, 1).index_select(0, batch.predict)
        return HeadCrossEntropy.apply(hidden, model.get_output_embeddings().weight, batch.targets)
    logits = model(**batch.inputs, use_cache=False).logits.flatten(0, 1).index_select(0, batch.predict)
    return F.cross_entropy(logits.float(), batch.targets, reduction="sum")


class CastLoss(nn.Module):
    """labelled_loss of a model with fp32 weights, which are cast to `dtype` once per pass; gradients are fp32 again.

    Unlike under autocast, where every operation casts for itself and norms and residual sums stay in fp32, everything
    between the weights and the loss is in `dtype`. Not for gradient checkpointing: what it runs again in the backward
    pass would find the fp32 weights.
    """

    def __init__(self, model, dtype):
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, batch):
        """The loss with the weights as they are."""
        return labelled_loss(self.model, batch)

    def cast(self, batch):
        """The loss with the weights cast."""
        weights = {name: parameter.to(self.dtype) for name, parameter in self.named_parameters()}
        return functional_call(self, weights, (batch,))
