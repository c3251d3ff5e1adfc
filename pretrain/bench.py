"""Measurements on a CPU: training speed and memory beside nanoGPT, loss in equal time, generation beside transformers.

    git clone https://github.com/karpathy/nanoGPT /somewhere/nanoGPT
    python pretrain/bench.py --nanogpt /somewhere/nanoGPT                 # everything, about 35 minutes
    python pretrain/bench.py --only generation loss_ours                  # some of it; results are merged into --out
    python pretrain/bench.py --nanogpt /somewhere/nanoGPT --rounds 3 --only d384_peer d384_peer_bf16 d384_ours
    python pretrain/bench.py --tiny --only d384_ours generation --out /tmp/b.json    # does it run? numbers mean nothing

nanoGPT's train.py runs unchanged in a scratch copy (`_peer`: compiled, fp32, because it never uses bf16 on a CPU), and
with the one line changed that forbids it (`_peer_bf16`). Both sides train the same shape on the same tokens with one
process, the same environment and the same number of threads, and are stopped after the same number of steps. Speed is
that of the median step. cpu/wall near the number of threads says that nobody else used the cores; where somebody does,
--rounds 3 runs each case three times, in turn, and takes the median run.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from presets import AS_GPT2, DATA, InputError, read_settings, run_command
from whole_file import write_text

HERE = Path(__file__).resolve().parent
SHAPES = {  # name: layers, heads, channels, sequences of 256 tokens
    "d384": (6, 6, 384, 8), "124m": (12, 12, 768, 4), "tiny": (1, 2, 32, 2)}
RATES = (1e-3, 2e-3, 4e-3)  # learning rates of the GPT-2 + AdamW baseline
# Sequences of 256 tokens, for it the better half of the same batch: 1.26 bits per byte against 1.35 (NOTES.md).
GPT2_BLOCK = [*AS_GPT2.split(), "--n_head=4", "--block_size=256", "--micro_batch=8"]
SIDES = ("peer", "peer_bf16", "ours", "ours_8bit")
CASES = ([f"{shape}_{who}" for shape in ("d384", "124m") for who in SIDES]
         + ["loss_ours", *(f"loss_gpt2_{rate:g}" for rate in RATES), "generation"])


@dataclass
class Settings:
    """What to measure."""

    nanogpt: Path | None = None  # a clone of nanoGPT, for the _peer cases
    only: tuple[str, ...] = ()  # cases to run; empty = all (see --list)
    list: bool = False  # print the cases and end
    rounds: int = 1  # runs of each case, taking turns; the median one counts
    steps: int = 15  # timed training steps per case, after 5 that are not
    minutes: float = 3.0  # training time of the loss cases
    text: Path = DATA / "text" / "tinystories"  # of the loss cases, folder with train.txt and val.txt
    vocab_size: int = 4096  # of the loss cases; tokenizer and shards are made where they are absent
    new_tokens: int = 200  # generated per row
    tiny: bool = False  # tiny models, uncompiled: a test of this script
    out: Path = DATA / "runs" / "pretrain" / "bench.json"  # results, merged with those already there
    debug: bool = False  # show tracebacks of input errors


def run_until(command: list[str], folder: Path, finished, log: Path) -> dict:
    """Run a command until finished(its output so far) gives a list of seconds per step; then end it.

    Returns {"ms": median step, "rss_mb": peak of the process, "cpu_wall": CPU seconds per second over the last steps}.
    """
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    began, marks, steps = time.monotonic(), [], []
    try:
        while len(marks) < 2:
            time.sleep(0.2)
            pid, _, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = 1  # waited for already
                raise InputError(f"{' '.join(map(str, command))} ended early:\n{log.read_text()[-3000:]}")
            steps, wanted = finished()
            if (not marks and steps) or len(steps) >= wanted:
                # fields 14 and 15 of proc(5): CPU ticks of the process so far
                ticks = sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
                marks.append((time.monotonic(), ticks / os.sysconf("SC_CLK_TCK")))
                if len(steps) >= wanted and len(marks) < 2:
                    marks.append(marks[0])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    _, _, usage = os.wait4(process.pid, 0)
    (t0, c0), (t1, c1) = marks[0], marks[-1]
    return {"ms": round(1e3 * statistics.median(steps), 2), "steps": len(steps), "rss_mb": usage.ru_maxrss // 1024,
            "cpu_wall": round((c1 - c0) / (t1 - t0), 2) if t1 > t0 else None,
            "seconds": round(time.monotonic() - began, 1)}


def training_speed(who: str, shape: tuple[int, int, int, int], T: int, settings, scratch: Path, device: str = "cpu",
                   compiled: bool = True) -> dict:
    """Steps of one of SIDES (8bit: --optimizer_bits 8); shape is layers, heads, channels, sequences of T tokens.

    Of the settings it reads nanogpt and steps; gpu_check.py calls it too.
    """
    import numpy as np

    L, H, C, B = shape
    warm, vocabulary = 5, 50304
    ids = np.random.default_rng(1).integers(0, vocabulary, 400_000, dtype=np.uint16)
    if who.startswith("ours"):
        write_shards(scratch / "tokens", {"train": ids, "val": ids[:5000]}, vocabulary)
        command = [sys.executable, HERE / "model.py", "--preset", "gpt2", "--n_layer", L, "--n_head", H, "--n_embd", C,
                   "--block_size", T, "--vocab_size", vocabulary, "--no_bias", "--data", scratch / "tokens", "--out",
                   scratch / "run", "--total_batch", B * T, "--micro_batch", B, "--max_steps", 100_000, "--prompt", "",
                   "--eval_every", 0, "--eval_tokens", T, "--sample_every", 0, "--save_every", 0, "--device", device]
        command += [*([] if compiled else ["--no_compile"]), "--optimizer_bits", 8 if who == "ours_8bit" else 32]

        def finished():
            path = scratch / "run" / "metrics.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines(True)
                     if line.endswith("\n")] if path.exists() else []
            steps = [B * T / line["tokens_per_s"] for line in lines if "tokens_per_s" in line]
            return steps[warm:], settings.steps
    else:
        if settings.nanogpt is None or not (settings.nanogpt / "train.py").exists():
            raise InputError(f"--nanogpt {settings.nanogpt} has no train.py; name a clone of "
                             "https://github.com/karpathy/nanoGPT")
        for name in ("train.py", "model.py", "configurator.py"):
            shutil.copy(settings.nanogpt / name, scratch / name)
        (scratch / "data" / "bench").mkdir(parents=True)
        for split in ("train", "val"):
            ids.tofile(scratch / "data" / "bench" / f"{split}.bin")
        if who == "peer_bf16":
            script = (scratch / "train.py").read_text()
            changed = script.replace("nullcontext() if device_type == 'cpu' else torch.amp", "torch.amp")
            if changed == script:
                raise InputError(f"{settings.nanogpt}/train.py has no line that forbids bf16 on a CPU")
            (scratch / "train.py").write_text(changed)
        bf16 = who == "peer_bf16" or device == "cuda"
        flags = {"device": device, "dtype": "bfloat16" if bf16 else "float32", "dataset": "bench",
                 "compile": compiled, "gradient_accumulation_steps": 1, "batch_size": B, "block_size": T,
                 "n_layer": L, "n_head": H, "n_embd": C, "eval_interval": 10**6, "eval_iters": 1, "log_interval": 1,
                 "max_iters": 100_000, "always_save_checkpoint": False}
        command = [sys.executable, "-u", "train.py", *(f"--{name}={value}" for name, value in flags.items())]

        def finished():
            times = re.findall(r"iter \d+: loss [\d.]+, time ([\d.]+)ms", (scratch / "log").read_text())
            return [float(ms) / 1e3 for ms in times[warm:]], settings.steps

    result = run_until([str(word) for word in command], scratch, finished, scratch / "log")
    return result | {"tokens_per_s": round(B * T / result["ms"] * 1e3)}


def write_shards(folder: Path, splits: dict, vocabulary: int):
    """Token arrays as the folder that training reads."""
    import hashlib

    import numpy as np

    folder.mkdir(parents=True)
    shards = {}
    for name, ids in splits.items():
        path = folder / f"{name}_000000.npy"
        np.save(path, ids)
        shards[name] = [{"file": path.name, "tokens": len(ids), "bytes": 4 * len(ids),
                         "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}]
    manifest = {"format": 1, "dtype": "uint16", "vocab_size": vocabulary, "end_of_text": 0, "tokenizer": "none",
                "tokenizer_sha256": "0" * 64, "shards": shards}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def finish(command: list):
    """Run a command to its end; InputError if it fails, where its own message stands above."""
    words = [str(word) for word in command]
    if status := subprocess.run(words, check=False).returncode:
        raise InputError(f"{' '.join(words)} ended with status {status}")


def training_loss(flags: list[str], settings: Settings, scratch: Path) -> dict:
    """Validation bits per byte after the given training time."""
    name = f"{settings.text.name}-{settings.vocab_size}"
    tokenizer, tokens = DATA / "tokenizer" / name, DATA / "tokens" / name
    if not (tokens / "manifest.json").exists():
        if not (settings.text / "train.txt").exists():
            raise InputError(f"--text {settings.text} holds no train.txt; data/prepare.py makes such a folder")
        run = [sys.executable, HERE.parent / "bpe" / "run.py"]
        finish([*run, "train", settings.text / "train.txt", "--vocab_size", settings.vocab_size, "--special_tokens",
                "<|endoftext|>", "--out", tokenizer])
        finish([*run, "encode", settings.text, "--tokenizer", tokenizer, "--out", tokens])
    command = [sys.executable, HERE / "model.py", "--preset", "text", "--data", tokens, "--out",
               scratch / "run", "--minutes", settings.minutes, "--max_steps", 0, "--sample_every", 0, "--save_every", 0,
               "--eval_every", 0, "--eval_tokens", 0, "--prompt", "", *flags]
    began, cpu = time.monotonic(), os.times()
    finish(command)
    seconds, after = time.monotonic() - began, os.times()
    lines = [json.loads(line) for line in (scratch / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "val_bpb" in line][-1]
    speeds = [line["tokens_per_s"] for line in lines if "tokens_per_s" in line]
    used = after.children_user + after.children_system - cpu.children_user - cpu.children_system
    return {"val_bpb": round(last["val_bpb"], 4), "val_loss": round(last["val_loss"], 4), "steps": last["step"],
            "tokens_per_s": statistics.median(speeds), "cpu_wall": round(used / seconds, 2), "seconds": round(seconds)}


def generation(settings: Settings, scratch: Path) -> dict:
    """Greedy tokens per second of our generate and of transformers', same weights, dtype and threads."""
    import dataclasses

    import torch
    from convert import export, load
    from model import GPT
    from presets import PRESETS
    from sample import generate
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    results, new = {}, 8 if settings.tiny else settings.new_tokens
    for preset, vocabulary in (("stories", 4096), ("gpt2", 50257)):
        config = dataclasses.replace(PRESETS[preset].model, vocab_size=vocabulary, zero_init=False,
                                     **({"n_layer": 1, "n_embd": 64, "n_head": 2} if settings.tiny else {}))
        torch.manual_seed(1)
        export(GPT(config), None, scratch / preset)
        for dtype in ("float32", "bfloat16"):
            ours = load(scratch / preset, getattr(torch, dtype))
            theirs = AutoModelForCausalLM.from_pretrained(scratch / preset, dtype=getattr(torch, dtype)).eval()
            for batch in (1, 16):
                count = new if preset == "stories" else -(-new // 4)
                prompt = torch.randint(vocabulary, (batch, 8), generator=torch.Generator().manual_seed(1))

                def run_ours(model=ours, prompt=prompt, count=count):
                    return generate(model, prompt.tolist(), count, temperature=0)

                def run_theirs(model=theirs, prompt=prompt, count=count):
                    return model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count,
                                          min_new_tokens=count, do_sample=False, pad_token_id=0)[:, 8:].tolist()

                same = run_ours() == run_theirs()  # also the warm-up
                times = {"ours": [], "transformers": []}
                cpu, began = time.process_time(), time.perf_counter()
                for _ in range(3):  # in turn, so that a disturbance meets both
                    for name, function in (("ours", run_ours), ("transformers", run_theirs)):
                        start = time.perf_counter()
                        function()
                        times[name].append(time.perf_counter() - start)
                used = (time.process_time() - cpu) / (time.perf_counter() - began)
                speeds = {name: round(batch * count / statistics.median(t), 1) for name, t in times.items()}
                results[f"{preset} {dtype} batch {batch}"] = speeds | {
                    "ratio": round(speeds["ours"] / speeds["transformers"], 2), "same_tokens": same,
                    "cpu_wall": round(used, 2)}
                print(f"{preset} {dtype} batch {batch}: {results[f'{preset} {dtype} batch {batch}']}", flush=True)
    return results


def measure(case: str, settings: Settings, scratch: Path) -> dict:
    """Run one case in an empty folder."""
    if case == "generation":
        return generation(settings, scratch)
    if case.startswith("loss"):
        flags = [] if case == "loss_ours" else [*GPT2_BLOCK, "--lr", case.rsplit("_", 1)[1]]
        return training_loss(flags, settings, scratch)
    shape, who = case.split("_", 1)
    return training_speed(who, SHAPES["tiny" if settings.tiny else shape], 256, settings, scratch,
                          compiled=not settings.tiny)


def median_run(runs: list[dict]) -> dict:
    """The run with the median step, or loss; "turns" has all of them in order.

    Of generation, whose rows are medians already, the last run.
    """
    key = next((key for key in ("ms", "val_bpb") if key in runs[0]), None)
    if key is None:
        return runs[-1]
    turns = [run[key] for run in runs]
    return runs[turns.index(statistics.median_low(turns))] | {"turns": turns}


def summary(results: dict) -> str:
    """What has been measured so far, beside the goals."""
    lines = []
    for shape in ("d384", "124m"):
        for who, side, speed_goal in (("peer", "ours", 3.0), ("peer_bf16", "ours", 1.35), ("peer", "ours_8bit", 3.0)):
            peer, ours = results.get(f"{shape}_{who}"), results.get(f"{shape}_{side}")
            if ours and peer:
                turns = [p / o for p, o in zip(peer.get("turns", ()), ours.get("turns", ()), strict=False)]
                spread = f", by turn {min(turns):.2f}-{max(turns):.2f}" if len(turns) > 1 else ""
                eight = " with --optimizer_bits 8" if side == "ours_8bit" else ""
                lines.append(f"{shape} {who}{eight}: {ours['tokens_per_s']} against {peer['tokens_per_s']} tokens/s = "
                             f"{peer['ms'] / ours['ms']:.2f}x{spread} (goal {speed_goal}); peak {ours['rss_mb']} "
                             f"against {peer['rss_mb']} MB = {ours['rss_mb'] / peer['rss_mb']:.2f}x")
    baseline = [results[name]["val_bpb"] for name in results if name.startswith("loss_gpt2")]
    if "loss_ours" in results:
        ours = results["loss_ours"]["val_bpb"]
        lines.append(f"bits per byte in equal time: {ours} (goal 0.95)" + (
            f", GPT-2 + AdamW at its best of {len(baseline)} rates {min(baseline)}: {ours / min(baseline):.3f}x "
            "(goal 0.80)" if baseline else ""))
    for name, row in results.get("generation", {}).items():
        lines.append(f"generation, {name}: {row['ours']} against {row['transformers']} tokens/s = {row['ratio']}x "
                     f"(goal 2){'' if row['same_tokens'] else '; other tokens'}")
    return "\n".join(lines)


def earlier_results(path: Path) -> dict:
    """What earlier calls measured, by case; InputError where the file is none of this script's."""
    try:
        return json.loads(path.read_text("utf-8")) if path.exists() else {}
    except ValueError:
        raise InputError(f"--out {path} holds no results of this script; name another file") from None


def main(settings: Settings):
    """Run the cases one after the other; each result is on the disk before the next begins."""
    if settings.list:
        print("\n".join(CASES))
        return
    for name in ("rounds", "steps", "new_tokens"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} is {getattr(settings, name)}; it must be at least 1")
    if settings.tiny and settings.out == Settings.out:
        raise InputError("--tiny measures nothing; give it an --out of its own, so that it replaces no results")
    unknown = set(settings.only) - set(CASES)
    if unknown:
        raise InputError(f"--only {' '.join(sorted(unknown))}: there are {', '.join(CASES)}")
    results = earlier_results(settings.out)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    cases = settings.only or CASES
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by an exception, which ends what was started
    runs = {case: [] for case in cases}
    for case in [*cases] * settings.rounds:
        with tempfile.TemporaryDirectory(prefix="pretrain_bench_") as folder:
            runs[case].append(measure(case, settings, Path(folder)))
        print(f"{case}: {json.dumps(runs[case][-1])}", flush=True)
        results[case] = median_run(runs[case])
        write_text(settings.out, json.dumps(results, indent=1))
    print(summary(results))


if __name__ == "__main__":
    run_command(main, lambda: read_settings(Settings, __doc__))
