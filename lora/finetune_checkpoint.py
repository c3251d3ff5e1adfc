"""Everything a run needs to continue exactly: one file, complete or absent, never a pickle that runs code.

A checkpoint holds the trained tensors, the optimiser's state, the number of updates done, the time spent, and what
the run is (settings, data, base, processes): continuing under other conditions is refused with a list of the
differences. Randomness needs no state: order and dropout of update u depend on (seed, u) alone.
"""

import fcntl
import hashlib
from dataclasses import asdict
from pathlib import Path

import torch
from adapter_files import CONFIG, WEIGHTS
from atomic_file import write_atomically
from finetune_settings import InputError, Settings

FILE = "checkpoint.pt"
# Settings that may be others when a run continues: those that do not change what is trained ...
FREE = {"resume", "debug", "output_dir_name", "adapter_out", "model_out", "save_interval", "response_tokens", "device",
        "trust_remote_code", "eval_batch_size"}
FREE |= {"model_name_or_path", "data_path", "eval_data_path", "lora_load_path"}  # ... and names, whose content counts


def trained_tensors(model) -> dict:
    """What training changes, by name; PiSSA's starting point too, an SVD not being exactly reproducible."""
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    return tensors | {name: buffer for name, buffer in model.named_buffers() if "lora_initial" in name}


def load_tensors(model, tensors: dict):
    """Puts trained tensors back, in place."""
    here = trained_tensors(model)
    for name, tensor in tensors.items():
        here[name].copy_(tensor)


def free(patience: int) -> set[str]:
    """What may differ when a run continues; with patience, when it is evaluated decides where it ends."""
    return FREE if patience else FREE | {"eval_interval"}


def identity(s: Settings, data: str, evaluation: str, base: str, world: int) -> dict:
    """What must be the same for a run to continue; data, evaluation and base are hashes."""
    start = [Path(s.lora_load_path, name).read_bytes() for name in (CONFIG, WEIGHTS) if s.lora_load_path]
    return {
        **{key: value for key, value in asdict(s).items() if key not in free(s.patience)},
        "training data": data,
        "evaluation data": evaluation,
        "loaded adapter": hashlib.sha256(b"".join(start)).hexdigest()[:16] if start else "",
        "base weights": base,
        "processes": world,
    }


def save_checkpoint(folder: Path, model, optimizer, progress: dict, who: dict, name: str = FILE):
    """Replaces the folder's checkpoint; progress: {"step", "elapsed", ...}."""
    state = {
        "tensors": trained_tensors(model),
        "optimizer": optimizer.state_dict() if optimizer else None,
        "progress": progress,
        "identity": who,
    }
    write_atomically(folder / name, lambda file: torch.save(state, file))


def load_checkpoint(folder: Path, model, optimizer, who: dict | None, name: str = FILE) -> dict | None:
    """Restores the checkpoint and returns its progress, None if there is none. who None skips the comparison."""
    path = folder / name
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        tensors, moments, progress, old = (state[key] for key in ("tensors", "optimizer", "progress", "identity"))
    except Exception as error:
        reason = str(error).partition("\n")[0][:120]
        raise InputError(
            f"{path}: not a readable checkpoint ({reason}); remove it, or start anew with --resume never"
        ) from None
    if who is not None:
        check_same_run(path, old, who, progress)
    with torch.no_grad():
        load_tensors(model, tensors)
    if optimizer:
        optimizer.load_state_dict(moments)
    return progress


def check_same_run(path: Path, old: dict, who: dict, progress: dict):
    """InputError, listing what differs, unless the checkpoint at path, of the run `old`, is one of the run `who`."""
    ignored = free(who["patience"])  # a checkpoint of an earlier version of this file may have it
    keys = [key for key in sorted({*old, *who} - ignored) if old.get(key) != who.get(key)]
    differences = "; ".join(f"{key}: {old.get(key)} -> {who.get(key)}" for key in keys)
    if keys and {"max_steps", "epochs", "minutes"}.issuperset(keys):  # the same training, but for its length
        state = "is finished" if progress["done"] else f"has done {progress['step']:,} updates"
        result = f"--lora_load_path {path.parent / 'adapter'}" if who["use_lora"] else "--model_name_or_path MODEL_OUT"
        raise InputError(
            f"{path}: this run {state}, with a learning rate that follows its length ({differences}), which cannot "
            f"change under way; to train its result further, give another --output_dir_name and {result}; "
            "to start anew, --resume never"
        )
    if keys:
        raise InputError(
            f"{path} belongs to another run ({differences}); "
            "use the same settings, another --output_dir_name, or --resume never"
        )


def lock_folder(folder: Path):
    """Takes the run folder for this process, or refuses; the lock ends with the returned file or the process."""
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / ".lock", "w")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"another run is using {folder}; give this one another --output_dir_name") from None
    return file
