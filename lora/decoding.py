"""Continues prompts with a causal language model of transformers: many at once, greedily or by sampling.

Prompts of like length go through the model together, padded on the left so that all of them end in the same column,
with a key-value cache; a row leaves the batch when its reply is complete, so a long reply does not hold up the others.

Legend: B rows still in the batch, T positions, V vocabulary.
"""

from inspect import signature

import torch
from prompts import render, special_tokens, tokenize
from tqdm import tqdm


class PromptTooLongError(ValueError):
    """A prompt that fills the model's context; `index` says which."""

    def __init__(self, index, tokens, context):
        super().__init__(f"prompt of {tokens} tokens leaves no room for a reply in the model's context of {context}")
        self.index = index


def end_tokens(model, tokenizer, template=""):
    """Ids that end a reply: the tokenizer's end-of-text, those of the model's generation settings, and the token that
    closes an answer in the chat template, which a base model's settings need not name.
    """
    ends = model.generation_config.eos_token_id
    ends = [*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id]
    if template == "chat":
        _, answer = render(template, "x", "", "x", tokenizer)
        ends += set(tokenize([answer], tokenizer, start=False)[0][-1:]) & set(special_tokens(tokenizer).values())
    return {e for e in ends if e is not None}


def next_tokens(logits, temperature, top_p, uniform):
    """Draws one token per row. logits (B, V), uniform in [0, 1) -> ids (B,).

    Temperature 0 takes the most probable token. Otherwise the smallest set of tokens whose probability reaches `top_p`
    is kept (nucleus sampling, Holtzman et al. 2020), and `uniform` picks from it by the inverse of its cumulative sum:
    the same number for every row and model, so that replies differ through the models and not through their luck.
    """
    if temperature < 1e-6:  # 0, or so near to it that the division would overflow
        return logits.argmax(-1)
    probabilities, ids = torch.softmax(logits.float() / temperature, -1).sort(-1, descending=True)  # (B, V)
    cumulative = probabilities.cumsum(-1)
    # a token stays while the more probable ones before it have not reached top_p; the first always does (1e-30: what
    # fp32 rounds to 0 would lose it)
    kept = probabilities.masked_fill(cumulative - probabilities >= max(top_p, 1e-30), 0.0).cumsum(-1)
    place = torch.searchsorted(kept, kept[:, -1:] * uniform, right=True)  # (B, 1)
    return ids.gather(-1, place.clamp_max(ids.shape[-1] - 1))[:, 0]


def has_cache(model):
    """Whether the model takes keys and values of earlier steps. Others (Mamba, RWKV) have states of their own kinds,
    which padding would change as well: they read the whole text again for every token, one prompt at a time.
    """
    return "past_key_values" in signature(model.forward).parameters


@torch.inference_mode()
def complete(model, prompts, ends, max_new_tokens, temperature=0.0, top_p=1.0, seed=42, batch_size=64, label=None):
    """Continues every prompt (lists of token ids) by up to `max_new_tokens` tokens, or to one of `ends` (not included).

    Returns the new ids, in the order of the prompts. Random numbers come from `seed` alone: the i-th token of every
    reply is drawn with the same one. Shows progress if there is a `label`. Raises PromptTooLongError.
    """
    context = getattr(model.config, "max_position_embeddings", None) or 1 << 30
    for index, prompt in enumerate(prompts):
        if len(prompt) >= context:
            raise PromptTooLongError(index, len(prompt), context)
    luck = torch.rand(min(max_new_tokens, context), generator=torch.Generator().manual_seed(seed)).tolist()
    batch_size = batch_size if has_cache(model) else 1
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    replies = [[] for _ in prompts]
    progress = tqdm(total=len(prompts), desc=label, unit="reply", disable=None if label else True, mininterval=0.5)
    for start in range(0, len(order), batch_size):
        complete_batch(model, prompts, order[start : start + batch_size], replies, ends, context, temperature, top_p,
                       luck, progress)
    progress.close()
    return replies


def complete_batch(model, prompts, rows, replies, ends, context, temperature, top_p, luck, progress):
    """Appends to `replies[i]` for the prompts i in `rows`."""
    from transformers import DynamicCache

    device = model.device
    width = max(len(prompts[i]) for i in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)  # (B, T); what stands in the padding does not matter
    mask = torch.zeros_like(ids)
    for place, i in enumerate(rows):
        ids[place, width - len(prompts[i]) :] = torch.tensor(prompts[i])
        mask[place, width - len(prompts[i]) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    cache = DynamicCache(config=model.config)
    for uniform in luck:
        memory = {"attention_mask": mask, "position_ids": positions, "past_key_values": cache, "use_cache": True,
                  "logits_to_keep": 1} if has_cache(model) else {"use_cache": False}
        logits = model(input_ids=ids, **memory).logits[:, -1]  # (B, V)
        tokens = next_tokens(logits, temperature, top_p, uniform)
        positions = positions[:, -1:] + 1
        alive = []
        for place, (i, token, position) in enumerate(zip(rows, tokens.tolist(), positions[:, 0].tolist(), strict=True)):
            if token not in ends:
                replies[i].append(token)
            if token not in ends and position < context:
                alive.append(place)
        progress.update(len(rows) - len(alive))
        if not alive:
            return
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
        if len(alive) < len(rows):
            rows = [rows[place] for place in alive]
            keep = torch.tensor(alive, device=device)
            tokens, mask, positions = tokens[keep], mask[keep], positions[keep]
            cache.reorder_cache(keep)  # not batch_select_indices, which convolutions (LFM2) lack
        ids = tokens[:, None] if has_cache(model) else torch.cat([ids, tokens[:, None]], 1)
    progress.update(len(rows))
