"""What a model costs: parameters, matmul FLOPs and memory by part, and days on a named device. Needs no PyTorch.

    python pretrain/account.py --preset gpt2-xl                                # with the table over batch sizes
    python pretrain/account.py --preset gpt2 --device H100 --mfu 0.4 --tokens 1e10
    python pretrain/account.py --preset gpt2-xl --optimizer_bits 8             # does it fit 24 GB then?
    python pretrain/account.py --preset stories --vocab_size 4096 --measure    # beside PyTorch's own counts, here

FLOPs: 2 m k n for a product of (m, k) and (k, n). Backward is twice forward: one product for the gradient of each
factor (Kaplan et al. 2020; PaLM's appendix B). Attention is counted over the full T x T scores, as PaLM and nanoGPT
do; a causal kernel does half of it, and flash attention one product of five more in backward, because it makes the
scores again.

Memory of a training step (bytes), in this project's layout: fp32 parameters, gradients and (unless in 8 bits) optimizer
state; a cast copy of the weights where the forward pass runs in bf16; and what the backward pass needs, kept with one
kernel per operation and attention that never writes its scores (flash). A CPU makes activations again and keeps
attention's weights.

Shapes: B sequences, T tokens of each, C channels, H query heads, K key-value heads, D head size, V padded vocabulary.
"""

import bisect
import dataclasses
import json
import math
import sys
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro
from presets import PRESETS, GPTConfig, InputError, preset_name, read_settings, run_command

# Makers' data sheets: dense bf16 TFLOP/s, memory in GB (10^9 bytes).
DEVICES = {"H200": (989, 141), "H100": (989, 80), "A100": (312, 80), "A100-40": (312, 40), "L40S": (362, 48),
           "RTX 4090": (165, 24), "L4": (121, 24), "V100": (125, 32)}
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
LOGITS = 2**30  # bytes of logits that exist at once on a GPU (loss.py)
RESERVE = 0.06  # share of the device's memory for its own context, fragmentation and short-lived tensors


@dataclass
class Settings:
    """A model, and the run to cost. `--preset` sets the architecture, other flags override it."""

    preset: str = "gpt2-xl"  # stories, text, llama-124m, gpt2, gpt2-medium, gpt2-large, gpt2-xl
    model: Annotated[GPTConfig, tyro.conf.arg(prefix_name=False)] = field(default_factory=GPTConfig)
    sequence: int = 0  # tokens per sequence; 0 = block_size
    optimizer: Literal["adamw", "muon"] = "adamw"  # AdamW keeps two values per parameter, Muon one
    optimizer_bits: Literal[32, 8] = 32  # of these values
    dtype: Literal["bfloat16", "float32"] = "bfloat16"  # of the forward pass
    tokens: float = 0.0  # tokens to train on; 0 = 20 per parameter (Hoffmann et al. 2022)
    device: str = "H100"  # one of H200, H100, A100, A100-40, L40S, RTX 4090, L4, V100
    devices: int = 1  # number of them, each with a whole copy of the model (DDP)
    mfu: float = 0.4  # share of the device's peak that the run reaches
    measure: bool = False  # also run one step here and compare with PyTorch's FLOP counter and peak memory
    json: bool = False  # print one JSON object instead of tables
    debug: bool = False  # show tracebacks of input errors


def parameters(config: GPTConfig) -> dict[str, int]:
    """Trained numbers by part, real vocabulary, all layers: GPT-2 XL has 1,557,611,200."""
    c, L = config, config.n_layer
    linear_bias, norm = int(c.bias), c.n_embd * (1 + int(c.bias and c.norm == "layernorm")) * (c.norm != "none")
    qkv = (c.n_head + 2 * c.kv_heads) * c.head_dim
    fan_out = c.hidden * (2 if c.mlp == "swiglu" else 1)
    attention = (c.n_embd + int(c.bias or c.qkv_bias)) * qkv + (c.n_head * c.head_dim + linear_bias) * c.n_embd
    return {
        "token embedding": c.vocab_size * c.n_embd,
        "position embedding": c.block_size * c.n_embd * (c.position == "learned"),
        "attention": L * attention,
        "MLP": L * ((c.n_embd + linear_bias) * fan_out + (c.hidden + linear_bias) * c.n_embd),
        "norms": L * (2 * norm + 2 * c.head_dim * c.qk_norm) + norm * (c.norm_place == "pre"),
        "output head": 0 if c.tied else c.vocab_size * c.n_embd,
    }


def padding(config: GPTConfig) -> int:
    """Parameters in the rows that round the vocabulary up; exports crop them."""
    return (config.padded_vocab - config.vocab_size) * config.n_embd * (1 if config.tied else 2)


def forward_flops(config: GPTConfig, B: int, T: int) -> dict[str, int]:
    """Matmul FLOPs of a forward pass over (B, T) tokens by part; backward costs twice as much."""
    c, n = config, config.n_layer * B * T
    qkv, mixed = (c.n_head + 2 * c.kv_heads) * c.head_dim, c.n_head * c.head_dim
    return {
        "query, key, value": 2 * n * c.n_embd * qkv,
        "attention scores": 2 * n * mixed * T,
        "attention values": 2 * n * mixed * T,
        "attention output": 2 * n * mixed * c.n_embd,
        "MLP": 2 * n * c.n_embd * c.hidden * (3 if c.mlp == "swiglu" else 2),
        "output head": 2 * B * T * c.n_embd * c.padded_vocab,
    }


def memory(config: GPTConfig, B: int, T: int, optimizer: str, dtype: str, optimizer_bits: int = 32) -> dict[str, int]:
    """Peak bytes of a training step on a GPU by part, at a micro-batch of B sequences of T tokens."""
    c, width = config, 2 if dtype == "bfloat16" else 4
    count = parameters(c)
    total = sum(count.values()) + padding(c)
    blocks = count["attention"] + count["MLP"] + count["norms"]
    matrices = blocks - count["norms"] if optimizer == "muon" else 0  # biases counted with them
    qkv, mixed = (c.n_head + 2 * c.kv_heads) * c.head_dim, c.n_head * c.head_dim
    rotated = (c.n_head + c.kv_heads) * c.head_dim * (c.position == "rope")
    per_token = c.n_layer * (
        width * (4 * c.n_embd  # input of each norm and its output
                 + qkv + rotated + mixed  # attention: its inputs and its output
                 + (4 if c.mlp == "swiglu" else 2) * c.hidden)  # before and after the activation; a gate has its own
        + 4 * c.n_head)  # log-normaliser of each row of scores, fp32
    per_token += width * 3 * c.n_embd  # last norm's input and output, gradient that the loss makes in its forward pass
    head = c.padded_vocab * c.n_embd
    value = 4 if optimizer_bits == 32 else 1 + 4 / 256  # 256 codes share a scale (eight_bits.py)
    return {
        "parameters": 4 * total,
        "gradients": 4 * total,
        "optimizer": round(value * (2 * total - matrices)),
        "bf16 weights": 2 * (blocks + head) if dtype == "bfloat16" else 0,
        "activations": B * T * per_token,
        "loss": 4 * head + min(width * B * T * c.padded_vocab, LOGITS),  # head gradient, chunk of logits
    }


def largest_batch(config: GPTConfig, T: int, gigabytes: float, *kind) -> int:
    """Sequences of the largest micro-batch that fits; 0 if none does. `kind`: what memory() takes after B and T."""
    room = int(gigabytes * 1e9 * (1 - RESERVE))
    return bisect.bisect_right(range(1, room), room, key=lambda B: sum(memory(config, B, T, *kind).values()))


def measure(config: GPTConfig, B: int, T: int, optimizer: str, dtype: str,
            optimizer_bits: int = 32) -> dict[str, float]:
    """PyTorch's own counts of one step: {"flops", "bytes"}; on a GPU the allocator's peak, else MemTracker's."""
    import torch
    from model import GPT
    from optim import make_optimizers
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = dataclasses.replace(next(iter(PRESETS.values())), model=config, optimizer=optimizer,
                                   optimizer_bits=optimizer_bits)
    tokens = torch.randint(config.vocab_size, (B, T + 1)).to(device)

    def step(model, optimizers):
        model(tokens[:, :-1], tokens[:, 1:]).backward()
        for one in optimizers:
            one.step()
        model.zero_grad(set_to_none=False)

    model = GPT(config, getattr(torch, dtype)).to(device)
    optimizers = make_optimizers(model, settings)
    step(model, optimizers)  # makes the optimizer's state
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step(model, optimizers)
        peak = torch.cuda.max_memory_allocated()
    else:
        tracker = MemTracker()
        slots = [slot for one in optimizers for state in one.state.values() for slot in state.values()]
        tracker.track_external(model, *slots)
        with tracker:
            step(model, optimizers)
        peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    with torch.device("meta"):  # shapes without numbers: all of T x T, of which a CPU's own attention skips a part
        shapes, tokens = GPT(config), torch.empty(B, T, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # attention as two products
        shapes.lm_head(shapes.trunk(tokens)).sum().backward()
    return {"flops": counter.get_total_flops(), "bytes": peak}


def report(settings: Settings) -> dict:
    """All numbers of a report."""
    config = settings.model
    if config.vocab_size < 1:
        raise InputError(f"--preset {settings.preset} takes its vocabulary from the data; give --vocab_size, e.g. 4096")
    if settings.device not in DEVICES:
        raise InputError(f"--device {settings.device} is unknown; there are {', '.join(DEVICES)}")
    if not 0 < settings.mfu <= 1:
        raise InputError(f"--mfu {settings.mfu} is not a share between 0 and 1")
    if settings.devices < 1:
        raise InputError(f"--devices {settings.devices} cannot train; give 1 or more")
    if settings.sequence < 0:
        raise InputError(f"--sequence {settings.sequence} is no length; give tokens, or 0 for the model's block size")
    if settings.sequence > config.block_size:
        raise InputError(f"--sequence {settings.sequence} is longer than --block_size {config.block_size}")
    if not 0 <= settings.tokens < math.inf:
        raise InputError(f"--tokens {settings.tokens} is no amount; give tokens to train on, or 0 for 20 per parameter")
    T = settings.sequence or config.block_size
    kind = (settings.optimizer, settings.dtype, settings.optimizer_bits)
    count, flops = parameters(config), forward_flops(config, 1, T)
    total, per_token = sum(count.values()), 3 * sum(flops.values()) / T
    tokens = settings.tokens or 20 * total
    peak = DEVICES[settings.device][0] * 1e12 * settings.mfu * settings.devices
    return {
        "parameters": count, "total": total, "padding": padding(config), "sequence": T, "forward_flops": flops,
        "flops_per_token": per_token, "tokens": tokens, "days": tokens * per_token / peak / 86400,
        "memory": {B: memory(config, B, T, *kind) for B in BATCHES},
        "largest_batch": {name: largest_batch(config, T, gb, *kind) for name, (_, gb) in DEVICES.items()},
    }


def show(settings: Settings, result: dict):
    """Print the tables."""
    total, T = result["total"], result["sequence"]
    print(f"{settings.preset}: {total:,} parameters"
          + (f" (+ {result['padding']:,} in padding of the vocabulary)" if result["padding"] else ""))
    for name, count in result["parameters"].items():
        print(f"  {name:20}{count:>16,}{count / total:>8.1%}")
    forward = sum(result["forward_flops"].values())
    print(f"\nmatmul FLOPs of one sequence of {T} tokens" + f"\n  {'':20}{'forward':>16}{'backward':>16}{'share':>8}")
    for name, flops in [*result["forward_flops"].items(), ("total", forward)]:
        print(f"  {name:20}{flops:>16.4e}{2 * flops:>16.4e}{flops / forward:>8.1%}")
    print(f"  per token, forward + backward: {result['flops_per_token']:.4e} = "
          f"{result['flops_per_token'] / total:.2f} x parameters")
    days = result["days"]
    hours = 24 * days
    time = f"{days:.1f} days" if days >= 2 else f"{hours:.2f} hours" if hours >= 0.1 else f"{3600 * hours:.1f} seconds"
    print(f"\n{result['tokens']:.4g} tokens = {result['tokens'] * result['flops_per_token']:.3e} FLOPs: {time} on "
          f"{settings.devices} x {settings.device} at {settings.mfu:.0%} of {DEVICES[settings.device][0]} TFLOP/s")
    parts = list(result["memory"][1])
    bits = " in 8 bits" if settings.optimizer_bits == 8 else ""
    print(f"\nmemory of a step with {settings.optimizer}{bits}, {settings.dtype}, GB (10^9 bytes)\n  {'sequences':>9}"
          + "".join(f"{part:>14}" for part in parts) + f"{'total':>9}")
    for B, row in result["memory"].items():
        print(f"  {B:9}" + "".join(f"{row[part] / 1e9:14.2f}" for part in parts) + f"{sum(row.values()) / 1e9:9.2f}")
    print("\nlargest micro-batch that fits, sequences: "
          + ", ".join(f"{name} ({DEVICES[name][1]} GB) {B or 'none'}" for name, B in result["largest_batch"].items()))


def main(settings: Settings):
    """Count, print, and compare if asked."""
    result = report(settings)
    if settings.measure:
        T, B = result["sequence"], 4
        kind = (settings.optimizer, settings.dtype, settings.optimizer_bits)
        result["measured"] = measure(settings.model, B, T, *kind) | {
            "counted_flops": 3 * B * sum(result["forward_flops"].values()),
            "counted_bytes": sum(memory(settings.model, B, T, *kind).values())}
    if settings.json:
        print(json.dumps(result))
        return
    show(settings, result)
    if settings.measure:
        m = result["measured"]
        print(f"\none step of 4 sequences here: {m['flops']:.4e} FLOPs by PyTorch's counter, {m['counted_flops']:.4e} "
              f"counted; peak {m['bytes'] / 1e9:.3f} GB measured, {m['counted_bytes'] / 1e9:.3f} GB counted")


def parse(argv: list[str]) -> Settings:
    """Command line -> Settings, with the preset's architecture as default."""
    name = preset_name(argv, "gpt2-xl")
    default = Settings(preset=name, model=PRESETS[name].model, optimizer=PRESETS[name].optimizer)
    return read_settings(Settings, __doc__, default, argv)


if __name__ == "__main__":
    run_command(main, lambda: parse(sys.argv[1:]))
