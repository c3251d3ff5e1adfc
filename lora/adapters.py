"""Adapters in memory: taken from a model, installed on it, combined; and which base model they belong to.

    adapter = adapter_of(model)
    install_adapter(model, adapter)                                                  # in the place of any other
    install_adapter(model, combine_adapters([(poet, 0.7), (lawyer, 0.3)]))

How they lie on the disk is told by adapter_files.py.

Shapes: R rank, in / out features of a layer.
"""

import hashlib
from dataclasses import dataclass

import torch
from finetune_settings import InputError
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from lora import (
    LoRALinear,
    convert_lora_to_linear_layer,
    linear_layers,
    lora_layers,
    replace_module,
    unmerge_lora,
)


@dataclass
class Branch:
    """One layer's adapter: A (in, R), B (R, out), the factor s, and DoRA's row norms (out) or None."""

    right: Tensor
    left: Tensor
    scaling: float
    magnitude: Tensor | None = None


@dataclass
class Adapter:
    """Branches by the dotted name of their layer, and the base model they were trained on ("" if not recorded)."""

    branches: dict[str, Branch]
    base_name: str = ""
    base_sha256: str = ""
    dropout: float = 0.0
    source: str = "this adapter"
    rslora: bool = False


def base_sha256(model) -> str:
    """sha256 over the base model's parameters: name, shape, values rounded to bf16.

    The rounding makes it the same whether the base was loaded in fp32 or in bf16. Adapters are left out and merged
    layers count as unmerged, so it does not change when a model is adapted. A model quantised to int8 must be hashed
    before.
    """
    digest = hashlib.sha256()
    layers = lora_layers(model)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            continue
        layer, tensor = layers.get(name.rpartition(".")[0]), parameter.data
        if layer is not None and name.endswith(".weight"):
            tensor = tensor if layer.base_weight is None else layer.base_weight
            tensor = tensor.t() if layer.is_conv1d else tensor
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.to(torch.bfloat16).contiguous().view(torch.uint8).cpu().numpy())
    return digest.hexdigest()


def adapter_of(model, base_name: str = "", base_hash: str = "") -> Adapter:
    """The model's present adapter, copied; PiSSA's becomes an ordinary one of rank 2R. base_hash "" computes it."""
    branches = {}
    for name, layer in lora_layers(model).items():
        right, left = layer.factors()
        magnitude = None if layer.lora_magnitude is None else layer.lora_magnitude.detach().clone()
        branches[name] = Branch(right.detach().clone(), left.detach().clone(), layer.lora_scaling, magnitude)
    if not branches:
        raise InputError("this model has no LoRA layers to save")
    first = next(iter(lora_layers(model).values()))
    return Adapter(branches, base_name, base_hash or base_sha256(model), first.lora_dropout, rslora=first.rslora)


def install_adapter(model, adapter: Adapter, base_hash: str = ""):
    """Puts the adapter on the model in the place of any other, switching being nothing more; returns the model.

    base_hash: base_sha256(model), "" computes it. Raises InputError where a layer does not exist, its shapes differ, or
    the base model is another one.
    """
    check_base(model, adapter, base_hash)
    convert_lora_to_linear_layer(unmerge_lora(model))
    layers = linear_layers(model)
    for name, branch in adapter.branches.items():
        check_shapes(adapter.source, layers, name, branch.right.shape, branch.left.shape)
    for name, branch in adapter.branches.items():
        layer = layers[name]
        is_conv1d = isinstance(layer, Conv1D)
        weight = layer.weight.data.t() if is_conv1d else layer.weight.data
        new = LoRALinear(
            weight, layer.bias, branch.right.shape[1], 1.0, adapter.dropout, adapter.rslora, is_conv1d=is_conv1d
        )
        move = weight.device
        new.install(
            branch.right.to(move, copy=True),
            branch.left.to(move, copy=True),
            branch.scaling,
            None if branch.magnitude is None else branch.magnitude.to(move, copy=True),
        )
        replace_module(model, name, new.train(model.training))
    return model


def check_base(model, adapter: Adapter, base_hash: str = ""):
    """InputError, naming both, if the adapter records another base model than this one, whose base_sha256 is base_hash
    ("" computes it).
    """
    if not adapter.base_sha256:
        return
    here = base_hash or base_sha256(model)
    if here != adapter.base_sha256:
        name = getattr(model.config, "_name_or_path", "") or type(model).__name__
        raise InputError(
            f"{adapter.source} was trained on '{adapter.base_name}' (sha256 {adapter.base_sha256[:12]}), "
            f"but this base is '{name}' (sha256 {here[:12]}); load it on its own base"
        )


def check_shapes(source: str, layers: dict, name: str, right_shape, left_shape):
    """InputError unless A (in, R) and B (R, out) fit the layer called name."""
    if name not in layers:
        raise InputError(f"{source}: adapts '{name}', which is no linear layer of this base model")
    layer = layers[name]
    shape = tuple(layer.weight.shape) if isinstance(layer, Conv1D) else tuple(layer.weight.shape)[::-1]  # (in, out)
    if len(right_shape) != 2 or len(left_shape) != 2 or right_shape[1] != left_shape[0]:
        raise InputError(
            f"{source}: '{name}' has A {tuple(right_shape)} and B {tuple(left_shape)}, which do not multiply"
        )
    if (right_shape[0], left_shape[1]) != shape:
        raise InputError(
            f"{source}: '{name}' has A {tuple(right_shape)} and B {tuple(left_shape)}, but the base layer is {shape}"
        )


def combine_adapters(weighted: list[tuple[Adapter, float]]) -> Adapter:
    """The weighted sum of adapters as one adapter, exactly: sum of w s A B = [A1 A2 ...] [w1 s1 B1; w2 s2 B2; ...].

    Its rank is the sum of the ranks and its factor 1. Raises InputError for DoRA, which is not a sum, and for
    adapters of different base models.
    """
    bases = {adapter.base_sha256: adapter for adapter, _ in weighted if adapter.base_sha256}
    if len(bases) > 1:
        raise InputError(
            "cannot combine adapters of different base models: "
            + ", ".join(f"{a.source} ('{a.base_name}')" for a in bases.values())
        )
    if any(branch.magnitude is not None for adapter, _ in weighted for branch in adapter.branches.values()):
        raise InputError("DoRA adapters cannot be combined: their norms do not add up")
    branches = {}
    for name in dict.fromkeys(name for adapter, _ in weighted for name in adapter.branches):
        parts = [(adapter.branches[name], weight) for adapter, weight in weighted if name in adapter.branches]
        branches[name] = Branch(
            torch.cat([branch.right for branch, _ in parts], 1),
            torch.cat([branch.left * (branch.scaling * weight) for branch, weight in parts], 0),
            1.0,
        )
    first = next(iter(bases.values()), weighted[0][0])
    return Adapter(branches, first.base_name, first.base_sha256, source="the combined adapter")
