"""`python bpe/run.py bench`: our speed beside the fastest tools there are, all in one run.

Every measurement runs in a process of its own, pinned to its cores by taskset; the tools take turns, round after
round, and the median counts. Real texts come from --data. What is missing there or not installed is named and skipped.
"""

import gzip
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench_worker import installed
from vocabulary import InputError

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).resolve().parent / "bench_worker.py"


@dataclass
class Bench:
    """Measure training, encoding and decoding beside tokenizers, rustbpe, gigabpe, tiktoken, fastokens and minbpe.

    python bpe/run.py bench --data ../shared/data --minbpe ../peers/minbpe

    Tiny: python bpe/run.py bench --only encode_chinese --rounds 1 --size 0.5
    """

    data: Path = ROOT.parent / "shared" / "data"  # folder with gutenberg_150mb.txt.gz, chinese.txt.gz, ...
    only: tuple[str, ...] = ()  # names of the parts to measure; all if left out. Others keep their last numbers
    rounds: int = 3  # runs of every tool, in turn
    size: float = 0  # MB of each text that are used; 0: all
    minbpe: str = ""  # folder of a minbpe checkout, to be measured too
    out: Path = ROOT / "data" / "runs" / "bpe" / "bench.json"  # all numbers
    figure: Path = ROOT / "imgs" / "bpe_bench.png"  # the figure


@dataclass(frozen=True)
class Part:
    """One kind of work on one text, by several tools."""

    title: str
    work: str  # function of bench_worker.py
    text: str  # file of --data
    tools: tuple[str, ...]
    cores: int = 2
    options: tuple[tuple[str, object], ...] = ()
    goals: tuple[tuple[str, str, float, float | None], ...] = ()  # (ours, peer, goal, stretch): how many times as fast


TRAINERS = ("ours", "hf", "rustbpe", "gigabpe")
ENCODERS = ("ours", "ours lists", "tiktoken", "tiktoken lists", "fastokens", "hf")
PARTS = {
    "train_english": Part(
        "train 32,000 on English books", "train", "gutenberg_150mb.txt.gz", TRAINERS, 2, (("vocab_size", 32000),),
        (("ours", "hf", 20, None), ("ours", "rustbpe", 5, None), ("ours", "gigabpe", 1.3, 2)),
    ),
    "train_chinese": Part(
        "train 32,000 on Chinese", "train", "chinese.txt.gz", TRAINERS, 2, (("vocab_size", 32000),),
        (("ours", "hf", 6, None), ("ours", "gigabpe", 1, 1.5)),
    ),
    "train_stories": Part(
        "train 10,000 on TinyStories", "train", "tinystories.txt.gz", TRAINERS, 2, (("vocab_size", 10000),),
        (("ours", "hf", 12, None), ("ours", "gigabpe", 1.2, None)),
    ),
    "train_unsplit": Part(
        "train 1,024 without splitting", "train", "manual.txt", ("ours", "ours linked list", "minbpe"), 1,
        (("vocab_size", 1024), ("split", False), ("ties", "first")),
        (("ours", "minbpe", 150, None), ("ours linked list", "minbpe", 40, None)),
    ),
    "encode_english": Part(
        "encode English, one core", "encode", "gutenberg_en.txt.gz", ENCODERS, 1, (),
        (("ours", "tiktoken", 7, None), ("ours", "fastokens", 0, 1), ("ours lists", "tiktoken lists", 2.5, None)),
    ),
    "encode_chinese": Part(
        "encode Chinese, one core", "encode", "chinese.txt.gz", ENCODERS, 1, (),
        (("ours", "tiktoken", 1.6, 2.7),),
    ),
    "encode_short": Part(
        "encode texts of 8 words, one core", "encode_short", "tinystories.txt.gz", ("ours", "tiktoken", "hf"), 1, (),
        (("ours", "tiktoken", 1, None),),
    ),
    "decode_english": Part(
        "decode English, one core", "decode", "gutenberg_en.txt.gz", ("ours", "ours lists", "tiktoken"), 1, (),
        (("ours", "tiktoken", 1.3, None), ("ours lists", "tiktoken", 1.3, None)),
    ),
    "decode_chinese": Part(
        "decode Chinese, one core", "decode", "chinese.txt.gz", ("ours", "ours lists", "tiktoken"), 1, (),
        (("ours", "tiktoken", 2, None), ("ours lists", "tiktoken", 2, None)),
    ),
    "two_cores_counting": Part("count English: two cores, one", "count", "gutenberg_150mb.txt.gz", ("ours 2", "ours 1"),
        2, (), (("ours 2", "ours 1", 1.6, 1.9),)),
    "two_cores_encoding": Part("encode English: two cores, one", "encode", "gutenberg_150mb.txt.gz",
        ("ours 2", "ours 1"), 2, (), (("ours 2", "ours 1", 1.6, 1.9),)),
    "doubling_english": Part("train 32,000: English, half of it", "train", "gutenberg_150mb.txt.gz",
        ("ours", "ours half"), 2, (("vocab_size", 32000),)),
    "doubling_one_byte": Part("train 300: one byte repeated, half of it", "train", "one byte",
        ("ours", "ours half"), 1, (("vocab_size", 300),)),
    "doubling_one_word": Part("train 5,000: one endless word, half of it", "train", "one word",
        ("ours", "ours half"), 1, (("vocab_size", 5000),)),
    "compile_cold": Part("compile everything, once for a machine", "compile_cold", "", ("ours",), 1),
    "start_warm": Part("run.py encode a small file, warm", "start", "", ("ours",), 1),
}  # fmt: skip


def run(settings: Bench) -> None:
    """Measure, print a Markdown table, save numbers and figure."""
    unknown = set(settings.only) - set(PARTS)
    if unknown:
        raise InputError(f"--only {min(unknown)}: the parts are {', '.join(PARTS)}")
    if settings.rounds < 1:
        raise InputError(f"--rounds {settings.rounds}: must be at least 1")
    if not 0 <= settings.size < math.inf:
        raise InputError(f"--size {settings.size}: must be at least 0 and finite (MB; 0 takes all)")
    if not shutil.which("taskset"):
        raise InputError("bench runs on Linux only: taskset (package util-linux) pins its processes to cores")
    results = json.loads(settings.out.read_text()) if settings.out.exists() else {}
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.out.parent) as scratch:
        for name in settings.only or PARTS:
            part = PARTS[name]
            try:
                text = _text(part.text, settings, Path(scratch))
            except FileNotFoundError as error:
                print(f"skipped {name}: {error.filename} is missing", file=sys.stderr)
                continue
            measured = _measure(part, text, settings, Path(scratch))
            results[name] = {"bytes": text.stat().st_size if text else 0, "tools": measured}
            partial = settings.out.with_suffix(".tmp")
            partial.write_text(json.dumps(results, indent=2) + "\n")
            partial.replace(settings.out)
    print(table(results))
    for name, result in results.items():
        checks = {tool: numbers["check"] for tool, numbers in result["tools"].items() if numbers["check"] is not None}
        if len(checks) > 1 and not name.startswith("doubling"):
            same = "the same" if len(set(map(str, checks.values()))) == 1 else f"DIFFERENT: {checks}"
            print(f"{PARTS[name].title}: {', '.join(checks)} made {same} (merges, ids, bytes or pieces)")
    if results:
        draw(results, settings.figure)
        print(f"\nnumbers: {settings.out}\nfigure: {settings.figure}")


def _text(name: str, settings: Bench, scratch: Path) -> Path | None:
    """The text unpacked, cut to --size, and such that all tools find the same pieces in it.

    That is without `<|endoftext|>`, and with no white space around newlines: tokenizers and gigabpe read line by line
    and never see a piece that goes over the end of a line.
    """
    if not name:
        return None
    plain = scratch / re.sub(r"\W", "_", name)
    if not plain.exists():
        limit = int(settings.size * 1e6)
        if name == "one byte":
            data = b"a" * (limit or 1 << 24)
        elif name == "one word":  # no place to split, and no two parts alike
            data = bytes(97 + (n * n // 7 + n // 3) % 26 for n in range(limit or 1 << 21))
        else:
            with (gzip.open if name.endswith(".gz") else open)(settings.data / name, "rb") as file:
                text = file.read(limit or -1).decode("utf-8", "ignore").replace("<|endoftext|>", "\n")
            data = re.sub(r"\s*\n\s*", "\n", text).encode()
        plain.write_bytes(data)
    return plain


def _measure(part: Part, text: Path | None, settings: Bench, scratch: Path) -> dict[str, dict]:
    """Median numbers of every tool that is installed."""
    cores = sorted(os.sched_getaffinity(0))
    tools = [tool for tool in part.tools if installed(tool, settings.minbpe)]
    for tool in set(part.tools) - set(tools):
        print(f"skipped {tool}: " + ("give --minbpe FOLDER" if tool == "minbpe" else "not installed"), file=sys.stderr)
    runs: dict[str, list[dict]] = {tool: [] for tool in tools}
    for number in range(settings.rounds):
        for tool in tools:
            task = {"work": part.work, "tool": tool, "file": str(text), "minbpe": settings.minbpe, **dict(part.options)}
            n_cores, environment = part.cores, dict(os.environ)
            if tool in ("ours 1", "ours 2"):
                task["tool"], n_cores = "ours", int(tool[-1])
            if tool == "ours half":
                half = scratch / f"half_{text.name}"
                if not half.exists():
                    half.write_bytes(text.read_bytes()[: text.stat().st_size // 2].decode("utf-8", "ignore").encode())
                task |= {"tool": "ours", "file": str(half)}
            if part.work == "compile_cold":
                environment["NUMBA_CACHE_DIR"] = str(scratch / f"cache {number}")
            pinned = ",".join(map(str, cores[:n_cores]))
            threads = str(min(n_cores, len(cores)))
            environment |= {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true" if n_cores > 1 else "false"}
            print(f"{part.title}: {tool}, run {number + 1} of {settings.rounds}", file=sys.stderr)
            runs[tool].append(_once(task, pinned, environment, scratch))
    result = {}
    for tool, numbers in runs.items():
        result[tool] = {key: median(run[key] for run in numbers) for key in ("seconds", "cpu_over_wall", "peak_mb")}
        result[tool] |= {"check": numbers[0]["check"], "runs": [round(run["seconds"], 4) for run in numbers]}
    return result


def _once(task: dict, pinned: str, environment: dict, scratch: Path) -> dict:
    """One run in a fresh process."""
    if task["work"] == "start":
        return _start_warm(pinned, environment, scratch)
    command = ["taskset", "-c", pinned, sys.executable, str(WORKER), json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{task['tool']}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _start_warm(pinned: str, environment: dict, scratch: Path) -> dict:
    """The whole command as a user starts it."""
    import time

    (scratch / "small.txt").write_text("a small file\n" * 100)
    command = [sys.executable, str(WORKER.with_name("run.py")), "encode", str(scratch / "small.txt"), "--out"]
    start = time.perf_counter()
    subprocess.run(["taskset", "-c", pinned, *command, str(scratch / "small.npy")], check=True, capture_output=True,
                   env=environment)  # fmt: skip
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "cpu_over_wall": 1.0, "peak_mb": 0, "check": None}


def table(results: dict) -> str:
    """Markdown: every tool, its time, and how many times as fast ours is, against the goal."""
    lines = ["| work | tool | seconds | MB/s | cpu/wall | peak MB | ours is | goal |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|---|")
    for name, result in results.items():
        part, tools = PARTS[name], result["tools"]
        for tool, numbers in tools.items():
            speed = result["bytes"] / 1e6 / numbers["seconds"] if result["bytes"] else 0
            ratios, verdicts = [], []
            for ours, peer, goal, stretch in part.goals:
                if peer == tool and ours in tools:
                    ratio = numbers["seconds"] / tools[ours]["seconds"]
                    ratios.append(f"{ratio:.2f}x" + (f" ({ours})" if ours != "ours" else ""))
                    verdicts.append(verdict(ratio, goal, stretch))
            if tool == "ours half":
                ratio = tools["ours"]["seconds"] / numbers["seconds"]
                ratios.append(f"{ratio:.2f}x for twice the text")
                verdicts.append("met (at most 2.2)" if ratio <= 2.2 else "missed (at most 2.2)")
            if name in ("compile_cold", "start_warm"):
                limit = {"compile_cold": 30, "start_warm": 1.5}[name]
                verdicts.append(f"{'met' if numbers['seconds'] <= limit else 'missed'} (at most {limit} s)")
            mb_per_s = f"{speed:.1f}" if speed else ""
            lines.append(
                f"| {part.title} | {tool} | {numbers['seconds']:.3f} | {mb_per_s} | {numbers['cpu_over_wall']:.2f} "
                f"| {numbers['peak_mb']:.0f} | {'; '.join(ratios)} | {'; '.join(verdicts)} |"
            )
    return "\n".join(lines)


def verdict(ratio: float, goal: float, stretch: float | None) -> str:
    """'met (1.3), stretch met (2)'."""
    parts = [f"{'met' if ratio >= goal else 'missed'} ({goal:g})"] if goal else []
    if stretch:
        parts.append(f"stretch {'met' if ratio >= stretch else 'missed'} ({stretch:g})")
    return ", ".join(parts)


def draw(results: dict, path: Path) -> None:
    """Bars of how many times as fast ours is, beside the goals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    bars = []
    for name, result in results.items():
        for ours, peer, goal, _ in PARTS[name].goals:
            if ours in result["tools"] and peer in result["tools"]:
                ratio = result["tools"][peer]["seconds"] / result["tools"][ours]["seconds"]
                label = f"{PARTS[name].title}: {ours} against {peer}" if ours != "ours 2" else PARTS[name].title
                bars.append((label, ratio, goal))
    figure, axes = plt.subplots(figsize=(9, 0.6 + 0.3 * len(bars)), layout="constrained")
    labels, ratios, goals = zip(*bars[::-1], strict=True) if bars else ((), (), ())
    axes.barh(labels, ratios, color=["#3a7bd5" if r >= g else "#d9822b" for r, g in zip(ratios, goals, strict=True)])
    for row, (ratio, goal) in enumerate(zip(ratios, goals, strict=True)):
        axes.text(ratio * 1.05, row, f"{ratio:.1f}", va="center", fontsize=8)
        if goal:
            axes.plot([goal, goal], [row - 0.4, row + 0.4], color="black", linewidth=2)
    axes.set(xscale="log", xlabel="times as fast as the other tool (black: the goal)", title="bpe/ beside other tools")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.12)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.tick_params(axis="y", labelsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
