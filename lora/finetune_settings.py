"""The settings of lora/train.py, with the seed's names and defaults, and what can be said about them without torch."""

import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

if "OMP_WAIT_POLICY" not in os.environ:  # read when PyTorch loads: a thread that spins longer while it waits for others
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # keeps the core from them where another program is busy as well

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "data" / "runs" / "lora"
# Settings that only LoRA has; of rank and alpha full fine-tuning takes no notice.
LORA_ONLY = ("lora_load_path", "base_int8", "lora_module_name", "lora_init", "dropout", "rslora", "dora",
             "loraplus_ratio")
TEMPLATES = ("seed", "alpaca", "plain", "chat", "raw")


class InputError(ValueError):
    """A user's mistake: reported in one or two lines, without a traceback."""


@dataclass
class Settings:
    """One fine-tuning run."""

    model_name_or_path: str = "gpt2"
    """base model: a folder, or a name on the Hugging Face hub"""
    data_path: str = str(ROOT / "data" / "instructions" / "stories_train.json")
    """records to train on: .json, .jsonl or .txt (see lora/instructions.py)"""
    eval_data_path: str = ""
    """records to evaluate on; empty: the last eval_ratio of data_path"""
    trust_remote_code: bool = False
    """run Python code that comes with the model; only for sources you trust"""

    max_length: int = 512
    """longest example in tokens, prompt and answer; longer ones are cut"""
    template: Literal[TEMPLATES] = "seed"
    """the prompt's form; plain: words and a line break; chat: the base's template (always for messages); raw: words"""
    text_mode: Literal["documents", "blocks", "sentiment"] = "documents"
    """what plain text becomes: one example each, blocks of max_length tokens, or (with labels) a sentiment to name"""
    train_on_prompt: bool = False
    """take the loss on the prompt as well, not on the answer and its end token alone"""

    use_lora: bool = True
    """True: train an adapter; False: train every weight"""
    lora_dim: int = 32
    """rank r of the adapter"""
    lora_scaling: float = 32.0
    """alpha; the branch is multiplied by alpha / r"""
    lora_module_name: str = ""
    """parts of layers' names (h or q_proj,v_proj) or a regex of the whole ('.*1.*q_proj'); empty: all of the blocks"""
    lora_load_path: str = ""
    """adapter folder (PEFT's format) to start from; its layers, rank and alpha hold, --dropout is the flag's"""
    lora_init: Literal["zero", "pissa"] = "zero"
    """zero: B = 0; pissa: the leading singular vectors of each weight"""
    dropout: float = 0.0
    """share of the branch's inputs dropped in training"""
    rslora: bool = False
    """divide alpha by sqrt(r) instead of r"""
    dora: bool = False
    """train the norms of the weight's rows as well (DoRA)"""
    loraplus_ratio: float = 1.0
    """learning rate of B as a multiple of A's (LoRA+; its paper suggests 16)"""
    base_dropout: float = 0.0
    """the base model's own dropout in training; GPT-2 was made with 0.1, 0 is faster"""

    epochs: float = 8.0
    """passes over the training records"""
    max_steps: int = 0
    """stop after this many updates; 0: as epochs says"""
    minutes: float = 0.0
    """stop after this many minutes of training, the learning rate following the clock; 0: no limit"""
    train_batch_size: int = 16
    """sequences in one forward pass, per process"""
    gradient_accumulation_steps: int = 4
    """forward passes per update; every labelled token of an update counts the same"""
    lr: float = 3e-4
    """highest learning rate"""
    lr_warmup_ratio: float = 0.03
    """share of the updates in which the rate rises from 0; then a cosine to 10% of lr"""
    weight_decay: float = 0.01
    """AdamW's decay per update, times the learning rate, of matrices"""
    max_grad_norm: float = 1.0
    """the gradient is scaled down to this norm; 0: never"""
    seed: int = 42
    """of the adapter's start, the order of the examples and dropout"""

    eval_batch_size: int = 16
    """sequences in one evaluation pass, per process"""
    eval_ratio: float = 0.01
    """share of data_path, its end, held out for evaluation; 0: none"""
    eval_interval: int = 100
    """updates between evaluations; there is always one at the start and one at the end"""
    patience: int = 0
    """stop after this many evaluations without a better loss, keep the best weights; 0: never"""

    packing: bool = True
    """lay sequences end to end; False: padded rows of similar length"""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """arithmetic; auto: bf16 where the GPU or CPU has units for it. A frozen base is kept in it, adapters are fp32"""
    base_int8: bool = False
    """store the frozen base's linear layers in 8 bits (torchao), to save memory"""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """of fp32 matrix products; medium: bf16 or TF32 units where there are any, 2-3 times faster on many CPUs"""
    gradient_checkpointing: bool = False
    """recompute activations in the backward pass: a third more work, far less memory"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute; auto: on a GPU if there is one"""

    output_dir_name: str = ""
    """run folder: a name under data/runs/lora or a path; empty: MODEL-METHOD-TIME"""
    adapter_out: str = ""
    """also save the adapter in this folder"""
    model_out: str = ""
    """save the whole model in this folder, an adapter merged into it"""
    resume: Literal["auto", "never"] = "auto"
    """auto: continue from the checkpoint in the run folder, if there is one"""
    save_interval: int = 0
    """updates between checkpoints; 0: eval_interval"""
    response_tokens: int = 64
    """length of the answers written to response.txt after training; 0: none"""
    debug: bool = False
    """show tracebacks of usage errors"""


def check_settings(s: Settings):
    """Raises InputError naming the flag and its value."""
    for field in fields(s):
        value = getattr(s, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"--{field.name} is {value}; it must be a number")
    for name in (
        "max_length",
        "lora_dim",
        "train_batch_size",
        "gradient_accumulation_steps",
        "eval_batch_size",
        "eval_interval",
    ):
        if getattr(s, name) < 1:
            raise InputError(f"--{name} is {getattr(s, name)}; it must be at least 1")
    for name in ("lr", "lora_scaling", "loraplus_ratio", "epochs"):
        if not getattr(s, name) > 0:
            raise InputError(f"--{name} is {getattr(s, name)}; it must be above 0")
    for name in ("dropout", "base_dropout", "eval_ratio", "lr_warmup_ratio"):
        if not 0 <= getattr(s, name) < 1:
            raise InputError(f"--{name} is {getattr(s, name)}; it must be at least 0 and below 1")
    for name in ("max_steps", "minutes", "weight_decay", "max_grad_norm", "patience", "save_interval",
                 "response_tokens", "seed"):
        if getattr(s, name) < 0:
            raise InputError(f"--{name} is {getattr(s, name)}; it must not be negative")
    if s.seed >= 2**32:
        raise InputError(f"--seed is {s.seed}; it must be below 2^32")
    if not s.use_lora:
        for name in ("adapter_out", *LORA_ONLY):
            if getattr(s, name) != getattr(Settings, name):
                raise InputError(
                    f"--{name} belongs to LoRA; leave it out (--model_out saves the model), or give --use_lora True"
                )
    for name in ("dora", "rslora", "lora_module_name", "lora_init") if s.lora_load_path else ():
        if getattr(s, name) != getattr(Settings, name):
            raise InputError(f"--{name} cannot change the adapter that --lora_load_path loads; leave it out")
    if s.dora and s.lora_init == "pissa":
        raise InputError("--dora with --lora_init pissa is not supported; choose one")


def run_folder(s: Settings, now: str) -> Path:
    """Where the run's files go: output_dir_name under data/runs/lora (as it stands, if it is a path), or a name with
    the time.
    """
    if s.output_dir_name:
        return Path(s.output_dir_name) if "/" in s.output_dir_name else RUNS / s.output_dir_name
    base = re.sub(r"[^\w.-]+", "-", Path(s.model_name_or_path).name)
    return RUNS / f"{base}-{f'lora{s.lora_dim}' if s.use_lora else 'full'}-{now}"


def shareable(path: str) -> str:
    """A path as it may be written into saved files: relative to the repository or the present folder, never a home
    folder's.
    """
    if not path or not Path(path).is_absolute():
        return path
    for root in (ROOT, Path.cwd()):
        if Path(path).is_relative_to(root):
            return str(Path(path).relative_to(root))
    return Path(path).name


def run_command(main, read):
    """main(read()) as a command, whose result is the exit status.

    130 when interrupted; 2 with one line for a mistake (--debug True: traceback) or for want of memory; 141, as a shell
    has it, when the reader of the output has left (`--help | head`).
    """
    settings = None
    try:
        try:
            settings = read()
            status = main(settings)
        finally:
            sys.stdout.flush()
        sys.exit(status)
    except KeyboardInterrupt as error:
        print("; ".join(["interrupted", *error.args]), file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        sys.exit(141)
    except (InputError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        message = str(error)
        if isinstance(error, RuntimeError):
            message = out_of_memory(error)
        elif isinstance(error, subprocess.CalledProcessError):  # a script of ours, which has said why
            message = f"{Path(error.cmd[1]).name} ended with status {error.returncode}; see above"
        if message is None or getattr(settings, "debug", False):
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def out_of_memory(error: RuntimeError) -> str | None:
    """What to do about PyTorch's error if it is one of memory (GPU or CPU), else None."""
    of_memory = ("can't allocate memory", "Storage size calculation overflowed")
    if type(error).__name__ != "OutOfMemoryError" and not any(words in str(error) for words in of_memory):
        return None
    return (f"out of memory: {str(error).splitlines()[0]} Lower the batch (train.py: --train_batch_size, with more "
            "--gradient_accumulation_steps), --max_length or --lora_dim")
