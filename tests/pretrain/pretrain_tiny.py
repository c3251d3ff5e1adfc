"""Tiny token shards and settings, and the command as a subprocess, for the tests of pretraining."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import attention
import model
import numpy as np
import torch
from presets import GPTConfig, Settings

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "pretrain" / "model.py"
VOCABULARY = 61


def make_shards(folder: Path, train=(700, 900), val=(500,), vocabulary=VOCABULARY, seed=0, dtype="uint16") -> Path:
    """Shards of a learnable order: each token is mostly the one before plus a step that its document keeps."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    manifest = {"format": 1, "dtype": dtype, "vocab_size": vocabulary, "end_of_text": 0,
                "tokenizer": "tokenizer/of-no-folder", "tokenizer_sha256": "0" * 64, "shards": {}}
    for split, sizes in (("train", train), ("val", val)):
        manifest["shards"][split] = []
        for i, size in enumerate(sizes):
            tokens = np.zeros(size, dtype)
            step, token = 1, 1
            for n in range(size):
                if rng.random() < 0.05:
                    step, token = int(rng.integers(1, 5)), 0
                else:
                    token = 1 + (token + step) % (vocabulary - 1)
                tokens[n] = token
            path = folder / f"{split}_{i:06d}.npy"
            np.save(path, tokens)
            manifest["shards"][split].append({"file": path.name, "tokens": size, "bytes": 3 * size,
                                              "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


class Alone:
    """What evaluation asks of a World, for one process."""

    rank, size, main, device = 0, 1, True, torch.device("cpu")

    def sum(self, *numbers):
        """The numbers themselves."""
        return list(numbers)


def tiny_model(**changes) -> GPTConfig:
    """A LLaMA-style model of some thousand parameters."""
    values = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "vocab_size": 0, "mlp": "swiglu",
              "norm": "rmsnorm", "position": "rope", "qk_norm": True, "bias": False, "zero_init": True}
    return GPTConfig(**{**values, **changes})


def tiny_settings(data: Path, out: Path, model: GPTConfig | None = None, **changes) -> Settings:
    """Settings of a run of ten steps of 128 tokens in fp32 on one thread."""
    values = {"preset": "tiny", "data": data, "out": out, "model": model or tiny_model(), "max_steps": 10,
              "total_batch": 128, "micro_batch": 2, "optimizer": "muon", "lr": 3e-3, "eval_every": 5, "eval_tokens": 0,
              "choices_every": 0, "sample_every": 0, "prompt": "", "save_every": 4, "device": "cpu", "dtype": "float32",
              "compile": False, "threads": 1, "timeout": 60, "peak_tflops": 0.1}
    return dataclasses.replace(Settings(), **{**values, **changes})


def flags(settings: Settings) -> list[str]:
    """The command line that gives these settings."""
    words, default = ["--preset", "stories"], Settings()
    values = {**vars(settings), **vars(settings.model)}
    for name, value in values.items():
        if name in ("model", "preset"):
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        elif not (value is None and getattr(default, name, None) is None):
            words += [f"--{name}", str(value)]
    return words


def start(settings: Settings, processes: int = 1, script=(MODEL,), **options) -> subprocess.Popen:
    """The command, running; under torchrun where it has several processes. `script` stands before the flags."""
    head = [sys.executable] if processes == 1 else [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.Popen([*head, *map(str, script), *flags(settings)], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def run(settings: Settings, processes: int = 1, script=(MODEL,)) -> None:
    """The command to its end, which must be a success."""
    process = start(settings, processes, script)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]


def metrics(out: Path, name: str = "loss") -> dict[int, float]:
    """Values of one metric by step."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def checkpoint_bytes(out: Path) -> dict[str, bytes]:
    """The tensors' files of the newest checkpoint."""
    newest = sorted((out / "checkpoints").glob("step_*"))[-1]
    return {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}


def layers_of_pytorch(monkeypatch):
    """Let a CPU use PyTorch's own layers, which keep for the backward pass what they keep on a GPU."""
    for module in (attention, model):
        monkeypatch.setattr(module, "eager_cpu", lambda x: False)
