"""Multiple choice: which ending does the model find likeliest? HellaSwag (Zellers et al. 2019), or any file like it.

    python pretrain/hellaswag.py data/models/stories data/choices/stories.jsonl
    python pretrain/hellaswag.py gpt2 data/choices/hellaswag.jsonl      # published: 0.2892, 0.3114, 0.2955
    python pretrain/hellaswag.py data/models/stories data/choices/stories.jsonl --limit 20

Three accuracies of the same model, which differ in how an ending's log-probability becomes its score:

    acc             the sum over its tokens; text and tokens as in EleutherAI's lm-evaluation-harness 0.4.13
    acc_norm        the sum / its characters; likewise
    acc_token_mean  the sum / its tokens, on the raw text, context and ending tokenized apart (build-nanogpt, the seeds)

A line is {"ctx": str, "endings": [str, ...], "label": int}; HellaSwag's own lines also have ctx_a, ctx_b and
activity_label, from which the harness builds its text.

Shapes: N sequences (an ending behind its context), T positions of the longest of a batch, C channels, V vocabulary.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from presets import InputError, read_settings, run_command
from whole_file import read_bytes

BATCH_POSITIONS = 8192  # padded positions of a batch
HEAD_ROWS = 1024  # ending positions whose logits exist at once


@dataclass
class Settings:
    """What to score."""

    source: Annotated[str, tyro.conf.Positional]  # exported folder, run folder, one of its checkpoints, or hub name
    choices: Annotated[Path, tyro.conf.Positional]  # questions, JSONL, .gz too
    limit: int = 0  # only this many questions from the start; 0 = all
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cuda where there is one
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"  # of the computation; bfloat16 is faster
    debug: bool = False  # show tracebacks of input errors


def evaluate(model, tokenizer, items: list[dict], device, rank: int = 0, world_size: int = 1,
             before_batch=lambda batches, of: None) -> dict:
    """{"acc", "acc_norm", "acc_token_mean", "n"} of a model that is not compiled (its lengths vary).

    tokenizer is a tokenizers.Tokenizer, items come from read_items. Each of the processes scores every world_size-th
    batch, after before_batch(number, of how many), which may raise an exception in all; all return the same.
    """
    import torch.distributed as dist

    def encode(text, special=True):  # a token that begins every text, where the tokenizer has one
        return tokenizer.encode(text, add_special_tokens=special).ids

    places = {}  # (context, ending) in tokens -> row of `scores`; the two ways of tokenizing often agree
    questions = []
    for item in items:
        query, endings = harness_text(item)
        joint = [place(places, *encode_pair(encode, query, f" {ending}")) for ending in endings]
        context = encode(item["ctx"])
        apart = [place(places, context, encode(f" {ending}", special=False)) for ending in item["endings"]]
        questions.append((joint, apart, [len(ending) for ending in endings], item["label"]))
    if max(token for pair in places for part in pair for token in part) >= model.config.vocab_size:
        raise InputError(f"a question holds a token outside 0..{model.config.vocab_size - 1}: another model's "
                         "tokenizer?")
    scores = score(model, list(places), device, rank, world_size, before_batch)  # (N,) float64
    if world_size > 1:
        dist.all_reduce(scores)
    if not scores.isfinite().all():
        raise InputError("the model gives NaN or infinite losses; its training diverged")
    scores, lengths = scores.tolist(), [len(ending) for _, ending in places]
    right = {"acc": 0, "acc_norm": 0, "acc_token_mean": 0}
    for joint, apart, characters, label in questions:
        sums = [scores[i] for i in joint]
        right["acc"] += best(sums) == label
        right["acc_norm"] += best([s / n for s, n in zip(sums, characters, strict=True)]) == label
        right["acc_token_mean"] += best([scores[i] / lengths[i] for i in apart]) == label
    return {name: count / len(items) for name, count in right.items()} | {"n": len(items)}


def score(model, sequences: list[tuple[tuple, tuple]], device, rank: int, world_size: int,
          before_batch=lambda batches, of: None):
    """Sum of log p(ending's tokens | what precedes) of each (context, ending), (N,) float64; 0 for other ranks' ones.

    Sorted by length into batches with little padding, on the right, where causal attention does not see it. Only the
    positions that predict an ending pass through the head.
    """
    import torch

    longest = model.config.block_size + 1  # the last token is only predicted; what is too long loses its beginning
    result = torch.zeros(len(sequences), dtype=torch.float64)
    order = sorted(range(len(sequences)), key=lambda i: -sum(map(len, sequences[i])))
    batches, width = [], 0
    for i in order:
        if not batches or (len(batches[-1]) + 1) * width > BATCH_POSITIONS:
            batches.append([])
            width = min(longest, sum(map(len, sequences[i])))
        batches[-1].append(i)
    with torch.inference_mode():
        turns = -(-len(batches) // world_size)
        for turn in range(turns):
            before_batch(turn, turns)
            # every process makes the same number of passes: a sharded model needs all of them in each
            number = turn * world_size + rank
            rows = batches[min(number, len(batches) - 1)]
            tokens = [list(sum(sequences[i], ()))[-longest:] for i in rows]
            T = max(map(len, tokens)) - 1
            x = torch.tensor([t[:-1] + [0] * (T + 1 - len(t)) for t in tokens], device=device)  # (rows, T)
            hidden = model.trunk(x)  # (rows, T, C)
            at = [(row, position, t[position + 1], i) for row, (t, i) in enumerate(zip(tokens, rows, strict=True))
                  for position in range(max(0, len(t) - 1 - len(sequences[i][1])), len(t) - 1)]
            row, position, target, owner = torch.tensor(at).T
            hidden = hidden[row.to(device), position.to(device)]
            for start in range(0, len(at), HEAD_ROWS):
                part = slice(start, start + HEAD_ROWS)
                log_p = model.head(hidden[part]).float().log_softmax(-1)  # (HEAD_ROWS, V)
                picked = log_p.gather(1, target[part, None].to(device))[:, 0]
                if number < len(batches):
                    result.index_add_(0, owner[part], picked.double().cpu())
    return result.to(device)


def best(values: list[float]) -> int:
    """Index of the greatest, the first of equals as numpy's argmax: [1, 3, 3] -> 1."""
    return max(range(len(values)), key=values.__getitem__)


def place(places: dict, context: list[int], ending: list[int]) -> int:
    """Row of this pair, a new one if it is new."""
    return places.setdefault((tuple(context), tuple(ending)), len(places))


def encode_pair(encode, context: str, ending: str) -> tuple[list[int], list[int]]:
    """Tokens of the context, and what follows them when both are tokenized as one text: the harness's way."""
    stripped = context.rstrip()
    whole, context_ids = encode(context + ending), encode(stripped)
    return context_ids, whole[len(context_ids):]


def harness_text(item: dict) -> tuple[str, list[str]]:
    """(context, endings) as lm-evaluation-harness 0.4.13 makes them of a HellaSwag line."""
    context = item["ctx"]
    if "ctx_a" in item and "ctx_b" in item:
        context = f"{item['ctx_a']} {item['ctx_b'].capitalize()}"
    if "activity_label" in item:
        context = f"{item['activity_label']}: {context}"
    return clean(context), [clean(ending) for ending in item["endings"]]


def clean(text: str) -> str:
    """Without WikiHow's marks: "a [title] b [step] c" -> "a. b c"."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def read_items(path: Path, limit: int | None = None) -> list[dict]:
    """The questions of a JSONL file (.gz too); InputError names the first line that is not one."""
    items = []
    for number, line in enumerate(read_bytes(path).split(b"\n"), 1):  # so that what is not UTF-8 has a number too
        if limit and len(items) == limit:
            break
        if not line.strip():
            continue
        try:
            item = json.loads(line.decode("utf-8-sig"))
            label, endings = item["label"], item["endings"]
            texts = [item["ctx"], *endings]
            parts = [item[name] for name in ("ctx_a", "ctx_b", "activity_label") if name in item]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: needs ctx, endings and label ({error})") from None
        if not all(isinstance(text, str) for text in (*texts, *parts)) or not isinstance(endings, list):
            raise InputError(f"{path}, line {number}: ctx, endings, ctx_a, ctx_b and activity_label must be texts")
        if any("\ud800" <= character <= "\udfff" for text in (*texts, *parts) for character in text):
            raise InputError(f"{path}, line {number}: has half a character (a surrogate)")
        context, cleaned = harness_text(item)
        if not all(text.strip() for text in (*texts, context, *cleaned)):
            raise InputError(f"{path}, line {number}: ctx and endings must be not empty, also without [marks]")
        labels = [str(i) for i in range(len(endings))]  # HellaSwag's own are texts on the Hugging Face hub
        if str(label) not in labels:
            raise InputError(f"{path}, line {number}: label {label} is none of {len(endings)} endings")
        item["label"] = int(label)
        items.append(item)
    if not items:
        raise InputError(f"{path} has no questions")
    return items


def main(settings: Settings):
    """Load, score, print."""
    import torch
    from convert import load_any, read_tokenizer
    from evaluate import progress_bar
    from sample import choose_device
    from world import choose_dtype, prepare_loops

    if settings.limit < 0:
        raise InputError(f"--limit {settings.limit}: 1 or more, or 0 for all questions")
    device = choose_device(settings.device)
    items = read_items(settings.choices, settings.limit)  # a mistake in it should show before the model is loaded
    model, folder = load_any(settings.source, choose_dtype(settings.dtype, torch.device(device)))
    tokenizer = read_tokenizer(folder, settings.source)
    prepare_loops(device, model.dtype)
    with progress_bar("choices") as before_batch:
        result = evaluate(model.to(device), tokenizer, items, device, before_batch=before_batch)
    print("  ".join(f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
                    for name, value in result.items()))


if __name__ == "__main__":
    run_command(main, lambda: read_settings(Settings, __doc__))
