"""Trains a grid or a list of settings one after another on the same tokens, and compares them.

    python lora/sweep.py --max_steps 400 --seed 1 2 3 --records data/instructions/stories_val.json
    python lora/sweep.py --name lr --lora_dim 8 --lr 3e-5 3e-4 3e-3 3e-2 --seed 1 2 3
    python lora/sweep.py --name mine --list settings.json         # [{"lora_dim": 4, "lr": 0.003}, {"lora_dim": 8}, ...]
    python lora/sweep.py --name try --max_steps 5 --lora_dim 1 2  # seconds, once `bash train.sh pretrain` has run

Every flag of lora/train.py works but those of output folders; the six of the grid take several values, all
combinations are trained. The same command again skips what is finished and continues what was interrupted; a longer
grid adds to it. Under data/runs/lora/NAME each run has its folder (settings, metrics, generated text, result.json),
beside sweep.md with the table, the figures, and, with --records, every model's replies and their scores by
data/checkers.py. A run that diverges is kept and shown as such.
"""

import functools
import gc
import hashlib
import itertools
import json
import resource
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_args

import tyro
from atomic_file import write_atomically
from curves import diverged, read_metrics
from finetune_settings import LORA_ONLY, ROOT, RUNS, InputError, Settings, check_settings, run_command
from sweep_report import read_json

GRID = ("lora_dim", "lora_scaling", "dropout", "lr", "train_batch_size", "seed")
NEUTRAL = {"output_dir_name", "adapter_out", "model_out", "resume", "debug", "save_interval"}  # do not change a result
JSON_VALUES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass
class SweepSettings(Settings):
    """What to train: lora/train.py's settings, six of them with several values."""

    model_name_or_path: str = str(ROOT / "data" / "models" / "stories")
    """base model: a folder, or a name on the Hugging Face hub"""
    lora_dim: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """ranks r"""
    lora_scaling: tuple[float, ...] = (32.0,)
    """alphas; the branch is multiplied by alpha / r"""
    dropout: tuple[float, ...] = (0.0,)
    """shares of the branch's inputs dropped in training"""
    lr: tuple[float, ...] = (3e-4,)
    """highest learning rates of LoRA"""
    train_batch_size: tuple[int, ...] = (16,)
    """sequences in one forward pass"""
    seed: tuple[int, ...] = (42,)
    """seeds; their spread is shown"""
    alpha_per_rank: float = 0.0
    """alpha = this times r in place of lora_scaling, so that the branch's factor is the same at every rank; 0: off"""
    full_lr: tuple[float, ...] = ()
    """learning rates of full fine-tuning, to compare with; empty: none"""
    list: str = ""
    """JSON file with a list of settings to train in place of the grid, each {"flag": value, ...}"""
    name: str = "ranks"
    """folder of the sweep under data/runs/lora"""
    records: str = ""
    """instruction records with checks; every model's replies to them are scored"""
    limit: int = 0
    """score the first so many of them; 0: all"""
    figures: str = ""
    """also write lora_ranks.png and lora_eval_by_rank.png into this folder, e.g. imgs"""


def planned_runs(s):
    """The settings of every run: the grid's combinations (full fine-tuning without LoRA's own), or those of --list.

    All of them are checked here, so that no mistake shows only after hours of training, but for what the model alone
    knows, as the names of its layers.
    """
    shared = {f.name: getattr(s, f.name) for f in fields(Settings) if f.name not in GRID}
    if s.alpha_per_rank < 0 or (s.alpha_per_rank and len(s.lora_scaling) > 1):
        raise InputError("--alpha_per_rank must not be negative, and stands in place of --lora_scaling")
    for name in GRID:
        if not getattr(s, name):
            raise InputError(f"--{name}: give at least one value")
    if s.lora_load_path and len(s.lora_dim) * len(s.lora_scaling) > 1:
        raise InputError("--lora_load_path brings its rank and alpha; give one --lora_dim and --lora_scaling, its own")
    for name in ("output_dir_name", "adapter_out", "model_out"):
        if getattr(s, name):
            raise InputError(f"--{name}: a sweep names its runs' folders itself, under --name; leave it out")
    if s.list:
        return listed_runs(s, {**shared, **{k: getattr(s, k)[0] for k in GRID}})
    runs = [Settings(**shared, **dict(zip(GRID, values, strict=True)))
            for values in itertools.product(*(getattr(s, name) for name in GRID)) if s.use_lora]
    for run in runs:
        run.lora_scaling = s.alpha_per_rank * run.lora_dim or run.lora_scaling
    full = s.full_lr if s.use_lora else s.full_lr or s.lr
    without_lora = {name: value for name, value in shared.items() if not s.use_lora or name not in LORA_ONLY}
    for lr, batch, seed in itertools.product(full, s.train_batch_size, s.seed):
        runs.append(Settings(**{**without_lora, "use_lora": False, "lr": lr, "train_batch_size": batch, "seed": seed}))
    for run in runs:
        check_settings(run)
    return runs


def listed_runs(s, shared):
    """The runs of --list; what an entry does not give is taken from `shared` or, its alpha, --alpha_per_rank."""
    runs = []
    for number, entry in enumerate(read_list(s.list), 1):
        beside = s.use_lora and not entry.get("use_lora", True)  # full fine-tuning beside LoRA: without LoRA's flags
        run = Settings(**{name: value for name, value in shared.items() if not beside or name not in LORA_ONLY} | entry)
        if not run.use_lora:  # the same run, whatever rank and alpha LoRA has
            run.lora_dim, run.lora_scaling = Settings.lora_dim, Settings.lora_scaling
        elif "lora_scaling" not in entry:
            run.lora_scaling = s.alpha_per_rank * run.lora_dim or run.lora_scaling
        try:
            check_settings(run)
        except InputError as error:
            raise InputError(f"--list {s.list}, entry {number}: {error}") from None
        runs.append(run)
    return runs


def read_list(path):
    """The entries of --list; InputError names the file, the entry and the flag."""
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not JSON, or not even UTF-8
        raise InputError(f"--list {path}: {error}") from None
    types = {f.name: f.type for f in fields(Settings)}
    if not isinstance(entries, list) or not entries:
        raise InputError(f"--list {path}: expected a non-empty list of objects")
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise InputError(f'--list {path}, entry {number}: {entry!r} is no object such as {{"lora_dim": 8}}')
        for flag, value in entry.items():
            if flag not in types:
                raise InputError(f"--list {path}, entry {number}: {flag!r} is no flag of lora/train.py")
            wanted = mismatch(value, types[flag])
            if wanted:
                raise InputError(f"--list {path}, entry {number}: --{flag} is {value!r}; it must be {wanted}")
            if types[flag] is float:
                entry[flag] = float(value)  # 1 is the same run as 1.0
    return entries


def mismatch(value, kind):
    """What a flag of this type wants in place of a JSON value, "" where it fits: (2.5, int) -> "a whole number"."""
    choices = get_args(kind)  # of a Literal
    if choices:
        return "" if value in choices else f"one of {', '.join(choices)}"
    return "" if type(value) is kind or (type(value) is int and kind is float and abs(value) < 1e300) \
        else JSON_VALUES[kind]


def deciding(run):
    """The settings that decide a run's result: all but those that only name places."""
    return {key: value for key, value in asdict(run).items() if key not in NEUTRAL}


def run_name(run):
    """A readable name that ends in a hash of the settings and of the data: r8-alpha32-lr0.0003-seed42-1a2b3c4d."""
    content = {k: v for k, v in deciding(run).items() if k not in ("data_path", "eval_data_path")}
    content["model_name_or_path"] = Path(run.model_name_or_path).name
    files = file_hashes(run.data_path, run.eval_data_path, run.model_name_or_path)
    digest = hashlib.sha256(json.dumps([content, files], sort_keys=True).encode()).hexdigest()[:8]
    method = f"r{run.lora_dim}-alpha{run.lora_scaling:g}" if run.use_lora else "full"
    drop = f"-drop{run.dropout:g}" if run.dropout else ""
    return f"{method}{drop}-lr{run.lr:g}-batch{run.train_batch_size}-seed{run.seed}-{digest}"


@functools.cache
def file_hashes(data_path, eval_data_path, base):
    """sha256 of the data files and of the base model's weights (all its shards), "" for what is not a file here."""
    for path in (data_path, eval_data_path):
        if path and not Path(path).is_file():
            raise InputError(f"{path} does not exist; make the default data with: python data/prepare.py stories")
    weights = sorted(Path(base).glob("*.safetensors")) or [Path(base, "model.safetensors")]
    return [sha256(path) if path.is_file() else "" for path in (Path(data_path), Path(eval_data_path), *weights)]


def sha256(path):
    """Of a file's content, in hexadecimal; read in pieces, since weights may be larger than the memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def memory(device, reset=False):
    """Peak memory in bytes since the last reset of what --device names: of the GPU, else of this process (macOS: since
    its start), with what it had not given back by then; bench.py measures each case in a process of its own.
    """
    import torch
    from finetune_model import choose_device

    if choose_device(device).type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if sys.platform == "darwin":  # which cannot reset it, and counts in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if reset:
        with suppress(OSError):  # a container may forbid it; then the peak is that since the start
            Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def shared_data(run, cache):
    """The run's tokenised data, from the cache if another run has the same."""
    from finetune_data import load_data
    from finetune_model import load_tokenizer
    from transformers import AutoConfig

    keys = ("model_name_or_path", "data_path", "eval_data_path", "eval_ratio", "template", "max_length", "text_mode",
            "train_on_prompt")
    key = tuple(getattr(run, k) for k in keys)
    if key not in cache:
        tokenizer = load_tokenizer(run.model_name_or_path, run.trust_remote_code)
        config = AutoConfig.from_pretrained(run.model_name_or_path, trust_remote_code=run.trust_remote_code)
        longest = getattr(config, "max_position_embeddings", None) or run.max_length
        cache[key] = load_data(run, tokenizer, min(run.max_length, longest))
    return cache[key]


def train_one(run, folder, cache):
    """Trains (or continues) one run and writes its result.json; one that diverged has no losses to compare."""
    from finetune_loop import Diverged, Stopped, fine_tune

    data = shared_data(run, cache)
    memory(run.device, reset=True)
    lost, trainable = False, None
    try:
        trainable = fine_tune(run, data=data)["trainable"]
    except Diverged as error:
        print(f"{folder.name}: diverged: {error}", file=sys.stderr)
        lost = True
    except Stopped as error:
        print(f"stopped by signal {error.status - 128}; the same command continues", file=sys.stderr)
        raise SystemExit(error.status) from None
    gc.collect()
    curves = read_metrics(folder)
    (_, train), (_, evals) = curves["loss"], curves["eval_loss"]
    times = [json.loads(line)["time"] for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    lost = lost or diverged(evals)
    recent = train[-max(len(train) // 20, 1):]
    result = {
        "status": "diverged" if lost else "finished",
        "settings": {f: getattr(run, f) for f in (*GRID, "use_lora", "rslora", "dora", "lora_init")},
        "steps": len(train), "seconds": times[-1] if times else 0.0, "peak_bytes": memory(run.device),
        "trainable": trainable,
        "base_eval_loss": evals[0] if evals else None,
        "eval_loss": evals[-1] if evals and not lost else None,
        "train_loss": sum(recent) / len(recent) if recent and not lost else None,
    }
    write_json(folder / "result.json", result)


def write_json(path, content):
    """Writes the file whole or not at all."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def score_replies(s, sweep, names):
    """Lets the models answer --records, all but those that diverged, and scores the replies: {model: its shares}."""
    trained = [name for name in names if read_json(sweep / name / "result.json")["status"] == "finished"]
    adapters = [str(sweep / "adapters" / name) for name in trained if (sweep / "adapters" / name).exists()]
    full = [str(sweep / "models" / name) for name in trained if (sweep / "models" / name).exists()]
    scores, replies = sweep / "scores.json", sweep / "replies.jsonl"
    wanted = {"models": sorted(["base", *trained]), "limit": s.limit, "records": sha256(s.records)}
    if scores.exists() and (found := read_json(scores)).get("of") == wanted:
        return found["scores"]
    command = [sys.executable, str(ROOT / "lora" / "generate.py"), "--base", s.model_name_or_path, "--device", s.device,
               "--records", s.records, "--limit", str(s.limit), "--replies", str(replies)]
    command += ["--trust_remote_code"] if s.trust_remote_code else []
    command += ["--max_length", str(s.max_length)] if s.text_mode == "sentiment" else []  # cut as in training
    command += ["--full", *full] if full else []
    command += ["--adapters", *adapters] if adapters else []
    subprocess.run(command, check=True)
    checkers = [sys.executable, str(ROOT / "data" / "checkers.py"), str(replies), "--json", str(scores)]
    subprocess.run(checkers, check=True, stdout=subprocess.DEVNULL)
    found = read_json(scores)
    if len(full) == 1:
        found[Path(full[0]).name] = found.pop("full")
    write_json(scores, {"of": wanted, "scores": found})
    return found


def main(s):
    """Trains what is missing, scores, reports; the exit status is 2 where a run could not be made."""
    runs = {run_name(run): run for run in planned_runs(s)}
    if s.name in ("", ".", ".."):
        raise InputError(f"--name '{s.name}': give the sweep a folder of its own")
    sweep = RUNS / s.name if "/" not in s.name else Path(s.name)
    if s.records and not Path(s.records).is_file():
        raise InputError(f"--records {s.records} does not exist; make it with: python data/prepare.py stories")
    if s.limit < 0:
        raise InputError(f"--limit is {s.limit}; it must be at least 0")
    if s.records:
        from generate import asking_records

        # a mistake in them is to show now, not after the training
        for number, record in enumerate(asking_records(s.records)[: s.limit or None], 1):
            if not isinstance(record.get("family"), str) or not isinstance(record.get("check"), dict):
                raise InputError(f"--records {s.records}, record {number}: needs a family (text) and a check (an "
                                 "object) to be scored, see data/checkers.py; or leave --records out")
    done = [name for name in runs if (sweep / name / "result.json").exists()]
    print(f"{len(runs)} runs in {sweep}, {len(done)} of them finished before", flush=True)
    cache, failed = {}, []
    for number, (name, run) in enumerate(runs.items(), 1):
        if name in done:
            continue
        print(f"== run {number} of {len(runs)}: {name}", flush=True)
        run.output_dir_name = str(sweep / name)
        run.adapter_out = str(sweep / "adapters" / name) if run.use_lora else ""
        run.model_out = "" if run.use_lora else str(sweep / "models" / name)
        try:
            train_one(run, sweep / name, cache)
        except InputError as error:
            print(f"error: run {number} of {len(runs)}, {name}: {error}", file=sys.stderr)
            failed.append(name)
    from sweep_report import report

    scores, settings = {}, {name: deciding(run) for name, run in runs.items() if name not in failed}
    if not settings:
        return 2
    try:
        scores = score_replies(s, sweep, list(settings)) if s.records else {}
    finally:  # what was trained is reported even where the scoring fails
        print(report(sweep, settings, scores, Path(s.figures) if s.figures else None))
    return 2 if failed else 0


if __name__ == "__main__":
    options = {"description": __doc__, "config": (tyro.conf.FlagConversionOff,), "use_underscores": True}
    run_command(main, lambda: tyro.cli(SweepSettings, **options))
