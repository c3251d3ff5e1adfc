"""Text from a model: an exported folder, a run's newest checkpoint, or a model of the Hugging Face hub.

    python pretrain/sample.py data/models/stories --prompt "Once upon a time"
    python pretrain/sample.py data/runs/pretrain/stories --num_samples 4 --temperature 0.8 --top_p 0.95 --stream

Shapes: B rows, T positions of the longest prompt, V vocabulary, N candidates that top_k or top_p leave.
"""

import dataclasses
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from presets import InputError, read_settings, run_command


@dataclass
class Settings:
    """What to generate."""

    source: Annotated[str, tyro.conf.Positional]  # exported folder, run folder, one of its checkpoints, or hub name
    prompt: tuple[str, ...] = ("",)  # one or several texts to continue; an empty one begins a document
    prompt_file: Path | None = None  # text file to continue, instead of --prompt
    num_samples: int = 1  # continuations per prompt
    max_new_tokens: int = 200  # longest continuation, tokens; behind the block size from the last half block
    temperature: float = 0.8  # divides the logits; 0 takes the likeliest token
    top_k: int = 0  # only this many likeliest tokens; 0 = all
    top_p: float = 0.95  # only the likeliest tokens that together have this probability; 1 = all
    min_p: float = 0.0  # only tokens with at least this share of the likeliest one's probability
    repetition_penalty: float = 1.0  # above 1: divides the logits of tokens that the text already has (CTRL)
    seed: int = 1  # of the choices
    stream: bool = False  # print the text while it is made; one sample after the other, the same but for rounding
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cuda where there is one
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the computation; auto: bfloat16 if the hardware has it
    debug: bool = False  # show tracebacks of input errors


def check(s: Settings):
    """Refuse what would give nonsense, or nothing."""
    broken = any("\ud800" <= character <= "\udfff" for text in s.prompt for character in text)  # not UTF-8
    for name, right, range_ in (
            ("prompt", s.prompt and not broken, "one text or several, in UTF-8; '' begins a document"),
            ("num_samples", s.num_samples >= 1, "1 or more"),
            ("max_new_tokens", s.max_new_tokens >= 1, "1 or more"),
            ("temperature", 0 <= s.temperature < math.inf, "0 (the likeliest token) or more"),
            ("top_k", s.top_k >= 0, "0 (all) or more"),
            ("top_p", 0 < s.top_p <= 1, "above 0 and at most 1 (all)"),
            ("min_p", 0 <= s.min_p <= 1, "from 0 (all) to 1"),
            ("repetition_penalty", 0 < s.repetition_penalty < math.inf, "above 0; 1 is none"),
            ("seed", 0 <= s.seed < 2**63, "from 0 to 2^63 - 1")):
        if not right:
            value = getattr(s, name)
            raise InputError(f"--{name}{'' if value == () else f' {value}'}: give {range_}")


def choose_device(name: str) -> str:
    """What --device stands for here, cpu or cuda; InputError for cuda where there is none."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch sees no CUDA device here; use --device cpu")
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def generate(model, prompts: list[list[int]], max_new_tokens: int, **options) -> list[list[int]]:
    """The new tokens of each prompt, without the one of stop_ids that ends them; options as in `stream`."""
    rows = [[] for _ in prompts]
    for tokens in stream(model, prompts, max_new_tokens, **options):
        for row, token in zip(rows, tokens, strict=True):
            if token is not None:
                row.append(token)
    return rows


def stream(model, prompts: list[list[int]], max_new_tokens: int, temperature: float = 1.0, top_k: int = 0,
           top_p: float = 1.0, min_p: float = 0.0, repetition_penalty: float = 1.0, stop_ids: Collection[int] = (),
           generator=None) -> Iterator[list[int | None]]:
    """Yield one list per step: the next token of each row, None for rows that reached one of stop_ids.

    Prompts may differ in length; those of a batch are padded on the left and do not see the padding. temperature 0 is
    greedy. Random numbers come from `generator` (default: a new one with seed 0), never from the global state:
    max_new_tokens for each row, whether it needs them or not, so that on a CPU rows one after the other get the same
    ones as in a batch. A text that has come to the end of block_size goes on from its last half, all that the model
    then sees of it. Raises InputError for an empty prompt or one longer than block_size, a token outside the
    vocabulary, or logits that are not finite.
    """
    import torch
    from decoder import KVCache, make_decoder

    B, config, longest = len(prompts), model.config, max(map(len, prompts), default=0)
    if not B or min(map(len, prompts)) == 0:
        raise InputError("a prompt has no token; begin a document with the end-of-text token")
    if longest > config.block_size:
        raise InputError(f"a prompt has {longest:,} tokens, the model only {config.block_size:,} positions")
    if max(map(max, prompts)) >= config.vocab_size or min(map(min, prompts)) < 0:
        raise InputError(f"a prompt holds a token outside 0..{config.vocab_size - 1}: another model's tokenizer?")
    device = model.transformer["wte"].weight.device
    if generator is None:
        generator = torch.Generator(device).manual_seed(0)
    chances = torch.rand(B, max_new_tokens, 1, dtype=torch.float64, generator=generator, device=generator.device)
    chances = chances.to(device)  # (B, max_new_tokens, 1)
    texts, running, made, seen = [list(prompt) for prompt in prompts], [True] * B, 0, None
    with torch.inference_mode():
        if repetition_penalty != 1.0:
            seen = torch.zeros(B, config.vocab_size, dtype=torch.bool, device=device)
            for row, text in enumerate(texts):
                seen[row, text] = True
        while made < max_new_tokens and any(running):
            full = config.block_size
            texts = [text if len(text) <= full else text[-max(1, full // 2):] for text in texts]
            count = min(max_new_tokens - made, full - max(map(len, texts)) + 1)  # the last one is not read any more
            past = [documents_before(text, config.end_of_text) if config.document_mask else 0 for text in texts]
            rows = [text[start:] for text, start in zip(texts, past, strict=True)]
            T, past = max(map(len, rows)), torch.tensor(past, device=device)
            padding = torch.tensor([T - len(row) for row in rows], device=device)
            tokens = torch.tensor([[0] * (T - len(row)) + row for row in rows], device=device)  # (B, T)
            positions = (torch.arange(T, device=device) - padding[:, None]).clamp(min=0) + past[:, None]  # (B, T)
            decoder = make_decoder(model, KVCache(config, B, T + count, model.dtype, device),
                                   padding if padding.any() else None)
            for step in range(made, made + count):
                logits = decoder.step(tokens, positions)
                if step == made and not logits.isfinite().all():
                    raise InputError("the model's logits are not finite: its weights are damaged, or its training "
                                     "diverged")
                token = choose(logits, temperature, top_k, top_p, min_p, repetition_penalty, seen, chances[:, step])
                if seen is not None:
                    seen.scatter_(1, token[:, None], True)
                chosen = token.tolist()  # (B,)
                running = [alive and t not in stop_ids for alive, t in zip(running, chosen, strict=True)]
                yield [t if alive else None for alive, t in zip(running, chosen, strict=True)]
                if not any(running):
                    return
                for text, t in zip(texts, chosen, strict=True):
                    text.append(t)
                tokens, positions = token[:, None], positions[:, -1:] + 1
            made += count


def documents_before(prompt: list[int], end_of_text: int) -> int:
    """Tokens before the last document, whose own end-of-text is a part of it: [5, 0, 6, 0], 0 -> 2."""
    return max((i + 1 for i, token in enumerate(prompt[:-1]) if token == end_of_text), default=0)


def choose(logits, temperature, top_k, top_p, min_p, repetition_penalty, seen, chance):
    """One token per row of logits (B, V) -> (B,): penalty, temperature, top_k, top_p, min_p, in transformers' order.

    chance (B, 1) float64: a number from [0, 1) per row, which decides.
    """
    import torch

    logits = logits.float()
    if repetition_penalty != 1.0:  # Keskar et al. 2019, eq. after 1: negative logits are multiplied
        penalised = torch.where(logits > 0, logits / repetition_penalty, logits * repetition_penalty)
        logits = torch.where(seen, penalised, logits)
    if temperature < 1e-6 or top_k == 1:  # so near to 0 the division would overflow
        return logits.argmax(-1)
    logits = logits / temperature
    V = logits.shape[-1]
    if 0 < top_k < V:
        logits, ids = logits.topk(top_k)  # (B, N), greatest first
        p = logits.softmax(-1)
    elif top_p < 1:
        p, ids = logits.softmax(-1).topk(min(V, 256))  # these nearly always hold top_p, and a sort of all is slow
        if bool((p.sum(-1) < top_p).any()):
            p, ids = logits.softmax(-1).sort(descending=True)
    else:
        p, ids = logits.softmax(-1), None
    if top_p < 1:
        # the mass before a token has reached top_p without it; 1e-30: what fp32 rounds to 0 would leave no token
        p = p.masked_fill(p.cumsum(-1) - p >= max(top_p, 1e-30), 0)
    if min_p > 0:
        p = p.masked_fill(p < min_p * p.amax(-1, keepdim=True), 0)
    # inverse of the cumulative distribution; float64 so that the number stays below the total
    cumulative = p.double().cumsum(-1)
    index = torch.searchsorted(cumulative, chance * cumulative[:, -1:], right=True).clamp(max=p.shape[-1] - 1)
    return (index if ids is None else ids.gather(1, index))[:, 0]


def main(settings: Settings):
    """Load, generate, print."""
    if settings.prompt_file:
        if settings.prompt != ("",):
            raise InputError("give either --prompt or --prompt_file")
        try:
            settings = dataclasses.replace(settings, prompt=(settings.prompt_file.read_text("utf-8"),))
        except UnicodeDecodeError as error:
            raise InputError(f"--prompt_file {settings.prompt_file} is not UTF-8: {error}") from None
    check(settings)
    import torch
    from convert import generation_settings, load_any, locate, read_tokenizer
    from world import choose_dtype, prepare_loops

    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, torch.device(device))
    source = locate(settings.source)
    model, folder = load_any(source, dtype)
    tokenizer = read_tokenizer(folder, settings.source)
    prepare_loops(device, dtype)
    model, ends = model.to(device), generation_settings(source).get("eos_token_id", model.config.end_of_text)
    ends = {*ends} if isinstance(ends, list) else {ends} - {None}
    prompts = [tokenizer.encode(text).ids or [model.config.end_of_text] for text in settings.prompt]
    if [None] in prompts:
        raise InputError("an empty --prompt begins a document by the end-of-text, which this model lacks; give a text")
    options = {name: getattr(settings, name) for name in ("temperature", "top_k", "top_p", "min_p",
                                                          "repetition_penalty")}
    options |= {"stop_ids": ends, "generator": torch.Generator().manual_seed(settings.seed),
                "max_new_tokens": settings.max_new_tokens}
    jobs = [(text, ids) for text, ids in zip(settings.prompt, prompts, strict=True)
            for _ in range(settings.num_samples)]

    def decode(ids, row):
        """Text of the new tokens behind those of the prompt: by themselves, Llama's would lose their first space."""
        return tokenizer.decode([*ids, *row])[len(tokenizer.decode(ids)):]

    if not settings.stream:
        for (text, ids), row in zip(jobs, generate(model, [ids for _, ids in jobs], **options), strict=True):
            print(f"{text}{decode(ids, row)}\n", flush=True)
        return
    for text, ids in jobs:
        print(text, end="", flush=True)
        row, shown = [], ""
        for tokens in stream(model, [ids], **options):
            row += [token for token in tokens if token is not None]
            whole = decode(ids, row)
            if not whole.endswith("\ufffd"):  # the bytes of a character may come in several tokens
                print(whole[len(shown):], end="", flush=True)
                shown = whole
        print(decode(ids, row)[len(shown):] + "\n", flush=True)


if __name__ == "__main__":
    run_command(main, lambda: read_settings(Settings, __doc__))
