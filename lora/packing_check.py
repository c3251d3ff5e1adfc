"""Whether a model gives sequences that are packed what it gives each of them alone; found out before training.

Attention is kept within a sequence (packed_attention.py), but a convolution or a recurrent state runs on from one
sequence into the next, and some families keep a sliding window in a mask that packing has no use for.
"""

from itertools import pairwise

import numpy as np
import torch
from finetune_settings import InputError
from instructions import Examples
from packed_attention import own_attention, use_packed_attention
from packing import pack


@torch.no_grad()
def pack_checked(model, max_length: int, exact: bool):
    """Gives the model packed attention, or raises InputError where packed sequences would not be independent.

    max_length: the longest sequence there will be. exact: products are made in fp32 and differ by rounding only; those
    in bf16 differ by up to 3%.
    """
    use_packed_attention(model)
    sequences, training = some_sequences(model.config, max_length), model.training
    starts, size = np.cumsum([0, *map(len, sequences)]), len(sequences)
    model.eval()
    device = model.get_input_embeddings().weight.device
    with own_attention(model):
        alone = [model.base_model(input_ids=torch.tensor(ids[None], device=device), use_cache=False)[0][0]
                 for ids in sequences]
    batch = pack(Examples(np.concatenate(sequences), starts, np.ones(size, np.int64)), range(size), device)
    try:
        packed = model.base_model(**batch.inputs, use_cache=False)[0][0]
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{type(model).__name__} fails on packed sequences ({error}); use --packing False") from None
    model.train(training)
    by_length = sorted(range(size), key=lambda i: (-len(sequences[i]), i))  # the order of the batch's labels
    expected = torch.cat([alone[i][:-1] for i in by_length]).float()
    if not torch.isfinite(expected).all():
        raise InputError(f"{type(model).__name__} gives NaN or infinite numbers before any training: its weights (or "
                         "the adapter's alpha, --lora_scaling) are no numbers to start from")
    difference = (packed[batch.predict].float() - expected).norm() / expected.norm().clamp_min(1e-30)
    if not difference < (3e-5 if exact else 0.1):
        raise InputError(
            f"{type(model).__name__} does not keep packed sequences apart (its vectors change by {difference:.1%}); "
            "use --packing False"
        )


def some_sequences(config, max_length: int) -> list[np.ndarray]:
    """Three random sequences, two of them with an equal beginning; longer than a sliding window that can matter."""
    config = config.get_text_config()
    window = getattr(config, "sliding_window", None)
    longest = window + 8 if window and window < max_length else min(12, max_length)
    random = np.random.default_rng(0)
    tokens = random.integers(0, config.vocab_size, 3 * longest, dtype=np.int32)
    first, second, third = (tokens[start:stop] for start, stop in pairwise((0, longest, 2 * longest, 3 * longest)))
    second = np.concatenate([first[: longest // 3], second[longest // 3 :]])
    return [first, second[: max(2, longest - 2)], third[: max(2, longest // 2)]]
