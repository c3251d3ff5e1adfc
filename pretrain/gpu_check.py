"""All checks and measurements that need a GPU, in one call of under ten minutes; no network is used.

    python3 pretrain/gpu_check.py --nanogpt DIR --data data/tokens/gutenberg --out $OUT/gpu.json
    python3 pretrain/gpu_check.py --only race --race_minutes 4.5 --nanogpt DIR --data data/tokens/gutenberg
    python pretrain/gpu_check.py --cpu_dry_run --nanogpt DIR --out /tmp/gpu.json     # does the script run? tiny models

Parts, in this order, with results on the disk after each. One for which too little time is left is left out; at the end
of --budget the one that runs is stopped:

    tests       pytest -m gpu tests/pretrain/test_pretrain_gpu.py
    speed       GPT-2 124M, T = 1024, bf16, compiled: tokens/s and MFU of ours at several micro-batches and of nanoGPT
    memory      peak of one step against account.py
    generation  tokens/s of ours and of transformers, the same weights
    race        nanoGPT trains for some minutes; ours, modern block and Muon, gets 0.6 of that time, then 0.4: is its
                validation loss as low? Needs --data, shards of GPT-2 tokens (20 to 60 MB suffice)
    kernels     GPT-2 124M: the milliseconds of a step of ours by kernel

MFU counts 6 FLOPs per weight and token plus attention over the full T x T scores, against 989 TFLOP/s on every device:
dense bf16 of the H100's and H200's data sheet.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from presets import DATA, InputError, read_settings, run_command
from whole_file import write_text

HERE = Path(__file__).resolve().parent
PARTS = ("tests", "speed", "memory", "generation", "race", "kernels")
# Seconds without which a part is not begun, mostly its start and compilation. Estimates: none has been measured.
# Those of speed are for one batch of one side, those of race for one run beside its training time.
NEEDED = {"tests": 60, "speed": 60, "memory": 20, "generation": 40, "race": 40, "kernels": 40}
PEAK = 989e12  # FLOP/s
# The race: sequences of 1,024 tokens per step, for both sides a quarter of GPT-2's 0.5M tokens, as a run of minutes
# needs many steps; those per forward pass of ours; nanoGPT's own learning rate, which it has for 0.5M tokens.
RACE_SEQUENCES, RACE_MICRO, NANOGPT_LR = 128, 64, 6e-4


@dataclass
class Settings:
    """What to check and measure."""

    nanogpt: Path | None = None  # a clone of nanoGPT, to compare with; without it only ours is measured
    data: Path | None = None  # shards of GPT-2 tokens for the race; without them it is left out
    only: tuple[str, ...] = PARTS  # parts to run
    steps: int = 25  # timed training steps per speed measurement, after 5 that are not
    micro_batches: tuple[int, ...] = (64, 32)  # sequences of 1,024 tokens per forward pass of ours
    nanogpt_batches: tuple[int, ...] = (64, 32)  # the same of nanoGPT (its default: 12)
    race_minutes: float = 2.0  # training time of nanoGPT
    budget: float = 570.0  # seconds for all parts together
    cpu_dry_run: bool = False  # tiny models on the CPU, uncompiled: a test of this script
    out: Path = DATA / "runs" / "pretrain" / "gpu.json"  # results
    debug: bool = False  # show tracebacks of input errors


class OutOfTime(BaseException):
    """The budget is over. No Exception, so that no library takes it for a failure of its own."""


class Check:
    """The parts, with what they share: settings, results so far, deadline."""

    def __init__(self, settings: Settings):
        self.settings, self.results = settings, {}
        self.end = time.monotonic() + settings.budget
        self.tiny = settings.cpu_dry_run
        self.device = "cpu" if self.tiny else "cuda"

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.end - time.monotonic()

    def enough(self, name: str, seconds: float) -> bool:
        """Whether this much time is left; if not, a note says that `name` is left out."""
        left = self.left()
        if left < seconds:
            self.note(f"{name}_left_out", f"it needs some {seconds:.0f} s, {left:.0f} s are left")
        return left >= seconds

    def note(self, name: str, value):
        """Keep, print and write a result."""
        self.results[name] = value
        print(f"[{self.left():4.0f} s left] {name}: {json.dumps(value)}", flush=True)
        self.settings.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.settings.out, json.dumps(self.results, indent=1))

    def tests(self):
        """The GPU tests of pretrain/."""
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider",
                   "tests/pretrain/test_pretrain_gpu.py"]
        status, output, errors = finish(command, HERE.parent)
        print(output[-6000:], errors[-3000:], sep="\n", flush=True)
        self.note("tests", {"status": status, "summary": output.strip().splitlines()[-1:]})

    def speed(self):
        """Training speed of both at the best micro-batch of each."""
        from account import forward_flops
        from bench import training_speed
        from presets import PRESETS

        layers, T = (12, 12, 768), 1024
        cases = [("ours", B) for B in self.settings.micro_batches]
        if self.settings.nanogpt:
            cases += [("peer", B) for B in self.settings.nanogpt_batches]
        if self.tiny:
            layers, T, cases = (1, 2, 32), 64, [(who, 2) for who, _ in cases[:1] + cases[-1:]]
        per_token = 3 * sum(forward_flops(PRESETS["gpt2"].model, 1, 1024).values()) / 1024
        rows = {}
        for who, B in cases:
            if not self.enough(f"speed_{who}_{B}", NEEDED["speed"]):
                break
            with tempfile.TemporaryDirectory() as scratch:
                try:
                    row = training_speed(who, (*layers, B), T, self.settings, Path(scratch), self.device, not self.tiny)
                except (InputError, RuntimeError) as error:  # out of memory, say; the other batches may still fit
                    row = {"failed": str(error)[-600:]}
            if "tokens_per_s" in row:
                row["mfu"] = round(row["tokens_per_s"] * per_token / PEAK, 4)
            rows[f"{who} {B}"] = row
            self.note("speed", rows)
        best = {who: max((row.get("tokens_per_s", 0) for name, row in rows.items() if name.startswith(who)), default=0)
                for who in ("ours", "peer")}
        if best["ours"] and best["peer"]:
            self.note("speed_ratio", round(best["ours"] / best["peer"], 3))

    def memory(self):
        """PyTorch's peak of one step beside what account.py counts, also with the optimizer in 8 bits."""
        from account import measure, memory
        from presets import PRESETS, GPTConfig

        config, B, T = PRESETS["gpt2"].model, 16, 1024
        if self.tiny:
            config, B, T = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=32, vocab_size=300), 2, 32
        for name, bits in (("memory", 32), ("memory_8_bits", 8)):
            measured = measure(config, B, T, "adamw", "bfloat16", bits)["bytes"]
            counted = sum(memory(config, B, T, "adamw", "bfloat16", bits).values())
            self.note(name, {"measured_gb": round(measured / 1e9, 3), "counted_gb": round(counted / 1e9, 3),
                             "ratio": round(measured / counted, 3)})

    def generation(self):
        """Greedy generation, GPT-2 124M with random weights, bf16."""
        import dataclasses

        import torch
        from convert import export, load
        from model import GPT
        from presets import PRESETS
        from sample import generate
        from transformers import AutoModelForCausalLM

        config = PRESETS["gpt2"].model
        if self.tiny:
            config = dataclasses.replace(config, n_layer=1, n_head=2, n_embd=32)
        count, rows = 5 if self.tiny else 200, {}
        with tempfile.TemporaryDirectory() as scratch:
            export(GPT(config), None, Path(scratch) / "m")
            ours = load(Path(scratch) / "m", torch.bfloat16).to(self.device)
            theirs = AutoModelForCausalLM.from_pretrained(Path(scratch) / "m", dtype=torch.bfloat16).to(self.device)
        for batch in (1, 16):
            prompt = torch.randint(50257, (batch, 8), device=self.device)
            speeds = {}
            for name, run in (("ours", lambda p=prompt: generate(ours, p.tolist(), count, temperature=0)),
                              ("transformers", lambda p=prompt: theirs.generate(
                                  p, attention_mask=torch.ones_like(p), max_new_tokens=count, min_new_tokens=count,
                                  do_sample=False, pad_token_id=0).tolist())):
                run()
                times = []
                for _ in range(3):
                    start = time.perf_counter()
                    run()
                    times.append(time.perf_counter() - start)
                speeds[name] = round(batch * count / sorted(times)[1], 1)
            rows[f"batch {batch}"] = speeds | {"ratio": round(speeds["ours"] / speeds["transformers"], 2)}
        self.note("generation", rows)

    def race(self):
        """Validation loss of nanoGPT after a time, and of ours after shares of it."""
        if self.settings.data is None or self.settings.nanogpt is None:
            self.note("race", "left out: it needs --data and --nanogpt")
            return
        minutes = 0.05 if self.tiny else self.settings.race_minutes
        if not self.enough("race", 3 * NEEDED["race"] + 1.6 * 60 * minutes):  # nanoGPT's probe and run, and one of ours
            return
        with tempfile.TemporaryDirectory() as scratch:
            target = self.nanogpt_loss(Path(scratch), minutes)
        self.note("race_nanogpt", target)
        for share in (0.6, 0.4):
            if not self.enough(f"race_ours_{share}", NEEDED["race"] + 60 * minutes * share):
                break
            with tempfile.TemporaryDirectory() as scratch:
                ours = self.our_loss(Path(scratch), minutes * share)
            self.note(f"race_ours_{share}", ours | {"as_low": ours["val_loss"] <= target["val_loss"]})

    def kernels(self):
        """Where the time of our step goes: {kernel: milliseconds}, the longest 30 of them, and all together."""
        import torch
        from model import GPT
        from optim import make_optimizers
        from presets import PRESETS, GPTConfig
        from torch.autograd import DeviceType
        from torch.profiler import profile

        settings, steps = PRESETS["gpt2"], 5
        config, B, T = settings.model, max(self.settings.micro_batches), 1024
        if self.tiny:
            config, B, T = GPTConfig(n_layer=1, n_head=2, n_embd=32, block_size=32, vocab_size=300), 2, 32
        torch.set_float32_matmul_precision("high")
        model = GPT(config, torch.bfloat16).to(self.device)
        if not self.tiny:
            model.compile_blocks()
        optimizers = make_optimizers(model, settings)
        tokens = torch.randint(config.vocab_size, (B, T + 1), device=self.device)

        def run(count: int):
            for _ in range(count):
                model(tokens[:, :-1], tokens[:, 1:]).backward()
                for optimizer in optimizers:
                    optimizer.step()
                model.zero_grad(set_to_none=True)
            float(model.transformer["wte"].weight.detach()[0, 0])  # all of it is done

        run(3)
        with profile() as record:
            run(steps)
        on_gpu, times = self.device == "cuda", Counter()
        for event in record.key_averages():
            if event.device_type == (DeviceType.CUDA if on_gpu else DeviceType.CPU) and not event.is_user_annotation:
                times[event.key[:80]] += event.self_device_time_total if on_gpu else event.self_cpu_time_total  # us
        self.note("kernels", {name: round(time / 1e3 / steps, 3) for name, time in
                              [("all", times.total()), *times.most_common(30)]})

    def our_loss(self, scratch: Path, minutes: float) -> dict:
        """The preset llama-124m with its schedule over `minutes` of training time."""
        command = [sys.executable, HERE / "model.py", "--preset", "llama-124m", "--data", self.settings.data, "--out",
                   scratch / "run", "--minutes", minutes, "--max_steps", 0, "--total_batch", RACE_SEQUENCES * 1024,
                   "--micro_batch", RACE_MICRO, "--prompt", "", "--eval_every", 0, "--sample_every", 0,
                   "--save_every", 0, "--device", self.device]
        if self.tiny:
            command += ["--n_layer", 1, "--n_head", 2, "--n_embd", 32, "--block_size", 64, "--total_batch", 128,
                        "--micro_batch", 2, "--eval_tokens", 256, "--no_compile"]
        status, _, errors = finish(command)
        if status:
            raise RuntimeError(errors[-3000:])
        lines = [json.loads(line) for line in (scratch / "run" / "metrics.jsonl").read_text().splitlines()]
        last = found([line for line in lines if "val_loss" in line], "validation loss", errors)[-1]
        return {"val_loss": round(last["val_loss"], 4), "steps": last["step"], "train_seconds": round(last["time"], 1)}

    def nanogpt_loss(self, scratch: Path, minutes: float) -> dict:
        """train.py as is on the same tokens, its cosine schedule over the steps that fit; loss of its last weights."""
        import numpy as np

        for name in ("train.py", "model.py", "configurator.py"):
            shutil.copy(self.settings.nanogpt / name, scratch / name)
        folder = scratch / "data" / "race"
        folder.mkdir(parents=True)
        for split in ("train", "val"):
            shards = sorted(self.settings.data.glob(f"{split}_*.npy"))
            np.concatenate([np.load(shard) for shard in shards]).astype(np.uint16).tofile(folder / f"{split}.bin")
        B, T = (2, 64) if self.tiny else (32, 1024)
        flags = {"device": self.device, "dtype": "bfloat16", "dataset": "race", "compile": not self.tiny,
                 "gradient_accumulation_steps": 1 if self.tiny else RACE_SEQUENCES // B, "batch_size": B,
                 "block_size": T, "eval_interval": 10**6, "eval_iters": 2 if self.tiny else 32, "log_interval": 1,
                 "learning_rate": NANOGPT_LR, "min_lr": NANOGPT_LR / 10, "always_save_checkpoint": False}
        if self.tiny:
            flags |= {"n_layer": 1, "n_head": 2, "n_embd": 32, "dtype": "float32"}

        def run(iterations: int) -> tuple[list[float], list[float]]:
            """Seconds of each iteration, validation losses."""
            extra = {"max_iters": iterations, "lr_decay_iters": iterations, "warmup_iters": max(1, iterations // 20),
                     "eval_interval": iterations}
            words = [f"--{name}={value}" for name, value in (flags | extra).items()]
            command = [sys.executable, "-u", "train.py", *words]
            status, output, errors = finish(command, scratch)
            if status:
                raise RuntimeError(errors[-3000:])
            seconds = [float(ms) / 1e3 for ms in re.findall(r"time ([\d.]+)ms", output)]
            losses = [float(x) for x in re.findall(r"val loss ([\d.]+)", output)]
            return found(seconds[1:-1], "time of a step", output), found(losses, "validation loss", output)

        probe, _ = run(8)  # the first step compiles, and the last one includes an evaluation
        step = sorted(probe)[len(probe) // 2]
        iterations = max(3, int(60 * minutes / step))
        seconds, losses = run(iterations)
        return {"val_loss": losses[-1], "steps": iterations, "train_seconds": round(sum(seconds), 1)}


def finish(command: list, folder: Path | None = None) -> tuple[int, str, str]:
    """Run a command: its status, output, errors. An exception meanwhile, as OutOfTime, ends it and its children."""
    with subprocess.Popen(list(map(str, command)), cwd=folder, text=True, start_new_session=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            output, errors = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output, errors


def found(values: list, what: str, log: str) -> list:
    """The values; if there are none, RuntimeError with the end of the log that should have had them."""
    if not values:
        raise RuntimeError(f"no {what} in the log, which ends with:\n{log[-1000:]}")
    return values


def main(settings: Settings):
    """Run the parts in order, whatever happens to one of them."""
    unknown = set(settings.only) - set(PARTS)
    if unknown:
        raise InputError(f"--only {' '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    if settings.nanogpt is not None and not (settings.nanogpt / "train.py").exists():
        raise InputError(f"--nanogpt {settings.nanogpt} has no train.py")
    if settings.data is not None and not (settings.data / "manifest.json").exists():
        raise InputError(f"--data {settings.data} has no manifest.json; make shards with bpe/run.py encode")
    for name in ("nanogpt", "data"):  # the parts change folders
        value = getattr(settings, name)
        setattr(settings, name, value and value.resolve())
    import torch

    if not settings.cpu_dry_run and not torch.cuda.is_available():
        raise InputError("PyTorch sees no CUDA device here; --cpu_dry_run tests the script without one")
    check = Check(settings)
    check.note("machine", {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                           "torch": torch.__version__, "python": sys.version.split()[0]})

    def stop(number, frame):
        raise OutOfTime(f"stopped, because the --budget of {settings.budget:.0f} s is over")

    signal.signal(signal.SIGALRM, stop)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by an exception, which ends what was started
    failed = []
    for name in settings.only:
        if not check.enough(name, NEEDED[name]):
            continue
        try:
            signal.setitimer(signal.ITIMER_REAL, check.left())
            getattr(check, name)()
        except (Exception, OutOfTime) as error:
            failed.append(name)
            check.note(f"{name}_failed", str(error)[-2000:])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    if failed or check.results.get("tests", {}).get("status", 0) not in (0, 5):  # 5: no test was collected
        sys.exit(1)


if __name__ == "__main__":
    run_command(main, lambda: read_settings(Settings, __doc__))
