"""Checkpoints: folders `checkpoints/step_00000250/` that exist only when complete.

    model.safetensors       parameters by name
    training.safetensors    state of the optimizers, "PARAMETER/KEY", and of the random generator
    state.json              step, position of the reader, recent losses, and the architecture and data they belong to

A folder is written beside (`.tmp`), every file is flushed to the disk, and one rename makes it visible: after a crash
at any moment the newest visible folder is whole. No pickle is read or written.
"""

import json
import os
import re
import shutil
from pathlib import Path

import torch
from presets import InputError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn


def save(folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], state: dict) -> Path:
    """Write the checkpoint of state["step"]; returns its folder. On an error (a full disk) nothing is left of it."""
    target = folder / f"step_{state['step']:08d}"
    temporary = target.with_suffix(".tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        names = {p: name for name, p in model.named_parameters()}
        save_file({name: p.detach().contiguous() for p, name in names.items()}, temporary / "model.safetensors")
        slots = {f"{names[p]}/{key}": value.contiguous() for optimizer in optimizers
                 for p, values in optimizer.state.items() for key, value in values.items()}
        save_file({**slots, "random": torch.get_rng_state()}, temporary / "training.safetensors")
        write_text(temporary / "state.json", json.dumps(state))
        for path in [*temporary.iterdir(), temporary]:
            flush(path)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        flush(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def load(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]):
    """Fill model and optimizers from a checkpoint folder, in place."""
    try:
        weights, slots = load_file(path / "model.safetensors"), load_file(path / "training.safetensors")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); delete that folder to continue from the one before") from None
    parameters = dict(model.named_parameters())
    if parameters.keys() != weights.keys():
        other = sorted(parameters.keys() ^ weights.keys())[:5]
        raise InputError(f"{path} holds other parameters than this model: {', '.join(other)}")
    owner = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(weights[name])
    torch.set_rng_state(slots.pop("random"))
    for slot, value in slots.items():
        name, key = slot.rsplit("/", 1)
        p = parameters[name]
        owner[p].state[p][key] = value.to(p.device)


def read_state(path: Path) -> dict:
    """state.json of a checkpoint folder."""
    return json.loads((path / "state.json").read_text("utf-8"))


def listing(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step_\d{8,}", path.name))


def prune(folder: Path, keep: int, best: str | None):
    """Delete all but the last `keep` and the best; and what a crash left half-written."""
    for path in [*listing(folder)[:-keep], *folder.glob("*.tmp")]:
        if path.name != best:
            trash = path.with_suffix(".tmp")  # a half-deleted folder must not look complete
            path.rename(trash)
            shutil.rmtree(trash)


def differences(saved: dict, current: dict, prefix: str = "") -> list[str]:
    """Human-readable lines "name: saved -> current" where two settings differ."""
    return [f"{prefix}{key}: {saved.get(key)} -> {current.get(key)}"
            for key in sorted(saved.keys() | current.keys()) if saved.get(key) != current.get(key)]


def write_text(path: Path, text: str):
    """Write a small file so that a crash leaves the old or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, "utf-8")
    flush(temporary)
    temporary.rename(path)


def flush(path: Path):
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
