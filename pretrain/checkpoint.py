"""Checkpoints: folders `checkpoints/step_00000250/` that exist only when complete.

    model.safetensors       parameters by name
    training.safetensors    state of the optimizers, "PARAMETER/KEY", and of the random generator
    shard-*.safetensors     instead of both, under --fsdp: each process its part (torch.distributed.checkpoint)
    state.json              step, position of the reader, recent losses, and the architecture and data they belong to

A folder is written beside (`.tmp`), every file is flushed to the disk, and one rename makes it visible: after a crash
at any moment the newest visible folder is whole. One that is written again stands aside (`.old`) until then, from where
`recover` brings it back. No pickle is read or written.
"""

import json
import re
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
from optim import AdamW, Muon
from presets import InputError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sharded import is_split, split_like
from torch import nn
from whole_file import flush, write_text


def save(folder: Path, model: nn.Module, optimizers: list[AdamW | Muon], state: dict, world) -> Path:
    """Write the checkpoint of state["step"], called by every process; returns its folder.

    On an error (a full disk) the unfinished folder is removed and the error raised.
    """
    target = folder / f"step_{state['step']:08d}"
    temporary, old = target.with_suffix(".tmp"), target.with_suffix(".old")
    parameters, slots = tensors(model, optimizers)
    slots["random"] = torch.get_rng_state()

    def prepare():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)

    def write():
        try:
            if is_sharded(model):
                save_sharded(temporary, {**parameters, **slots})
            elif world.main:
                save_file({name: p.contiguous() for name, p in parameters.items()}, temporary / "model.safetensors")
                save_file({name: slot.contiguous() for name, slot in slots.items()}, temporary / "training.safetensors")
        except SafetensorError as error:
            raise OSError(f"cannot write {temporary}: {error}") from None

    def publish():
        write_text(temporary / "state.json", json.dumps(state))
        for path in [*temporary.iterdir(), temporary]:
            flush(path)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        flush(folder)
        shutil.rmtree(old, ignore_errors=True)

    try:
        world.agree(prepare if world.main else nothing)
        world.agree(write)
        world.agree(publish if world.main else nothing)
    except BaseException:
        if world.main:
            shutil.rmtree(temporary, ignore_errors=True)
            recover(folder)
        raise
    return target


def load(path: Path, model: nn.Module, optimizers: list[AdamW | Muon]):
    """Fill the model from a checkpoint folder, in place; with optimizers, also them and the random state."""
    parameters, slots = tensors(model, optimizers)
    if optimizers:
        slots["random"] = torch.get_rng_state()
    wanted = {**parameters, **slots}
    try:
        if (path / "model.safetensors").exists():
            stored = load_file(path / "model.safetensors")
            other = parameters.keys() ^ stored.keys()
            if optimizers:
                stored |= load_file(path / "training.safetensors")
        else:
            stored, other = load_sharded(path, wanted)
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None
    if other:
        raise InputError(f"{path} holds other parameters than this model: {', '.join(sorted(other)[:5])}")
    if wanted.keys() - stored.keys():
        raise damaged(path, f"it lacks {min(wanted.keys() - stored.keys())}")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(split_like(tensor, stored[name]))
    if optimizers:
        torch.set_rng_state(slots["random"])


def tensors(model: nn.Module, optimizers: list[AdamW | Muon]) -> tuple[dict, dict]:
    """Parameters by name, and the optimizers' state by "PARAMETER/KEY"."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    names = {p: name for name, p in model.named_parameters()}
    return parameters, {f"{names[p]}/{key}": value for optimizer in optimizers
                        for p, values in optimizer.state.items() for key, value in values.items()}


def save_sharded(folder: Path, tensors: dict):
    """Write the part of the tensors that this process holds."""
    import torch.distributed.checkpoint as dcp

    try:
        dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(folder, save_distributed=True))
    except dcp.api.CheckpointException as error:
        raise OSError(f"cannot write {folder}: {error}") from None


def load_sharded(path: Path, wanted: dict) -> tuple[dict, set[str]]:
    """What a checkpoint in parts, by any number of processes, holds of the wanted tensors, split as they are.

    And the names of parameters that only one of the two has.
    """
    import torch.distributed.checkpoint as dcp

    reader = dcp.HuggingFaceStorageReader(path)
    there = reader.read_metadata().state_dict_metadata
    for name in there.keys() & wanted.keys():
        stored = sum(chunk.sizes.numel() for chunk in there[name].chunks)
        if stored != there[name].size.numel() or there[name].size != wanted[name].shape:
            raise damaged(path, f"{name} is not whole: a shard is missing")
    stored = {name: torch.zeros_like(wanted[name]) for name in there.keys() & wanted.keys()}
    dcp.load(stored, storage_reader=reader, no_dist=not dist.is_initialized())
    return stored, {name for name in there.keys() ^ wanted.keys() if "/" not in name and name != "random"}


def is_sharded(model: nn.Module) -> bool:
    """Whether the model is split over the processes (FSDP2)."""
    return any(map(is_split, model.parameters()))


def read_state(path: Path) -> dict:
    """state.json of a checkpoint folder: step, progress, identity."""
    try:
        state = json.loads((path / "state.json").read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise damaged(path, error) from None
    if not isinstance(state, dict) or not {"progress", "identity"} <= state.keys():
        raise damaged(path, "state.json has no progress and identity")
    return state


def damaged(path: Path, error: Exception | str) -> InputError:
    """What to say of a checkpoint that cannot be read."""
    return InputError(f"{path} is damaged ({error}); delete that folder to continue from the one before")


def listing(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step_\d{8,}", path.name))


def recover(folder: Path):
    """Bring back a checkpoint that a crash left aside before the new one stood; remove it where that one stands."""
    for old in folder.glob("*.old"):
        if old.with_suffix("").exists():
            shutil.rmtree(old)
        else:
            old.rename(old.with_suffix(""))


def prune(folder: Path, keep: int, best: str | None):
    """Delete all but the last `keep` and the best; and what a crash left half-written."""
    for path in [*folder.glob("*.tmp"), *listing(folder)[:-keep]]:
        if path.name != best:
            trash = path.with_suffix(".tmp")  # a half-deleted folder must not look complete
            path.rename(trash)
            shutil.rmtree(trash)


def differences(saved: dict, current: dict) -> list[str]:
    """Lines "name: saved -> current" where two settings differ."""
    return [f"{key}: {saved.get(key)} -> {current.get(key)}"
            for key in sorted(saved.keys() | current.keys()) if saved.get(key) != current.get(key)]


def nothing(*_):
    """What the other processes do meanwhile."""
