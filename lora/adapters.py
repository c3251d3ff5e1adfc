"""Adapters on disk in PEFT's format, and which base model they belong to.

    save_adapter(adapter_of(model), "data/adapters/NAME")       # adapter_config.json + adapter_model.safetensors
    install_adapter(model, load_adapter("data/adapters/NAME", model))
    install_adapter(model, combine_adapters([(poet, 0.7), (lawyer, 0.3)]))

`PeftModel.from_pretrained` reads what is saved here, and `load_adapter` reads what PEFT saved (LoRA, rsLoRA, DoRA,
patterns of rank and alpha). What PEFT's format lacks is kept in the header of the safetensors file, which PEFT skips:
the name of the base model and the sha256 of its weights, so that an adapter is refused on another base. Everything in
a file is checked against the model's shapes before memory is taken for it.

Shapes: R rank, in / out features; PEFT's lora_A is A^T (R, in), lora_B is B^T (out, R).
"""

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import regex
import torch
from atomic_file import write_atomically
from finetune_settings import InputError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
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

PREFIX = "base_model.model."
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
# Of PEFT's LoraConfig: what is more than a branch beside a linear layer ...
UNSUPPORTED = (
    "bias", "modules_to_save", "layer_replication", "trainable_token_indices", "lora_bias", "target_parameters",
    "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "kasa_config", "velora_config",
    "monteclora_config",
)
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")  # ... and starts that leave the base as it is


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
    rslora: bool = field(default=False)


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
        raise InputError(f"{source}: adapts '{name}', which this base model does not have")
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


def save_adapter(adapter: Adapter, folder, model=None):
    """Writes PEFT's two files; each is complete or absent (written beside, then renamed).

    With the model, target_modules become short suffixes ("c_attn") where these name the same layers.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, branch in adapter.branches.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = branch.right.t().contiguous().cpu()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = branch.left.t().contiguous().cpu()
        if branch.magnitude is not None:
            tensors[f"{PREFIX}{name}.lora_magnitude_vector"] = branch.magnitude.contiguous().cpu()
    base = {"base_name": adapter.base_name, "base_sha256": adapter.base_sha256}
    # one entry, since safetensors writes several in a random order: the same adapter is to be the same bytes
    write_atomically(folder / WEIGHTS, save(tensors, {"lora_base": json.dumps(base, sort_keys=True)}))
    write_atomically(folder / CONFIG, (json.dumps(peft_config(adapter, model), indent=2) + "\n").encode())


def peft_config(adapter: Adapter, model=None) -> dict:
    """PEFT's LoraConfig as it stands in adapter_config.json."""
    ranks = {name: branch.right.shape[1] for name, branch in adapter.branches.items()}
    alphas = {
        name: tidy(branch.scaling * divisor(ranks[name], adapter.rslora)) for name, branch in adapter.branches.items()
    }
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    targets, conv1d = sorted(ranks), False
    if model is not None:
        layers = {**linear_layers(model), **lora_layers(model)}
        suffixes = {name.rpartition(".")[2] for name in ranks}
        if {name for name in layers if name.rpartition(".")[2] in suffixes} == set(ranks):
            targets = sorted(suffixes)
        conv1d = any(isinstance(layers[name], Conv1D) or getattr(layers[name], "is_conv1d", False) for name in ranks)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.base_name,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": adapter.dropout,
        "bias": "none",
        "fan_in_fan_out": conv1d,
        "target_modules": targets,
        "modules_to_save": None,
        "init_lora_weights": True,
        "use_rslora": adapter.rslora,
        "use_dora": any(branch.magnitude is not None for branch in adapter.branches.values()),
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
    }


def divisor(rank: int, rslora: bool) -> float:
    """What alpha is divided by."""
    return math.sqrt(rank) if rslora else rank


def tidy(number: float):
    """16.0 as 16, and 15.999999999999998 as well: alpha is nearly always whole."""
    return round(number) if abs(number - round(number)) < 1e-9 * max(1, abs(number)) else number


def read_config(path: Path) -> dict:
    """adapter_config.json, refused where it asks for what this layer is not."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent}: no adapter here ({path.name} is missing)") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise InputError(
            f"{path}: not a LoRA adapter (peft_type {config.get('peft_type') if isinstance(config, dict) else None})"
        )
    for key in UNSUPPORTED:
        if config.get(key) not in (None, False, [], {}, "none"):
            raise InputError(f"{path}: {key} = {config[key]!r} is not supported")
    if (start := config.get("init_lora_weights", True)) not in PLAIN_STARTS:
        raise InputError(
            f"{path}: init_lora_weights = {start!r} changes the base model as well; convert the adapter in PEFT, with "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(config.get(key) or {}, dict):
            raise InputError(f"{path}: {key} must be an object")
        for name, value in (config.get(key) or {}).items():
            check_positive(value, f"{path}: {key} of '{name}'")
    for key in ("r", "lora_alpha"):
        check_positive(config.get(key), f"{path}: {key}")
    dropout = config.get("lora_dropout") or 0
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise InputError(f"{path}: lora_dropout = {dropout!r} is not a share from 0 to below 1")
    return config


def check_positive(value, what: str):
    """InputError unless the value is a positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise InputError(f"{what} = {value!r} is not a positive number")


def load_adapter(folder, model) -> Adapter:
    """Reads a PEFT folder for this model. The header's shapes are compared with the model before any tensor is
    loaded.
    """
    folder = Path(folder)
    config, path = read_config(folder / CONFIG), folder / WEIGHTS
    layers = {**linear_layers(model), **lora_stand_ins(model)}
    try:
        with safe_open(path, framework="pt") as file:
            base = recorded_base(path, file.metadata() or {})
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()  # noqa: SIM118
                      if not is_base_weight(path, file, key, layers)}
            names = check_header(path, config, shapes, layers)
            tensors = {key: file.get_tensor(key) for key in shapes}
            for key, tensor in tensors.items():
                if not torch.isfinite(tensor.float()).all():
                    raise InputError(f"{path}: '{key}' holds NaN or infinite numbers; its training diverged")
    except FileNotFoundError:
        raise InputError(f"{folder}: {WEIGHTS} is missing") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a valid safetensors file ({error})") from None
    rslora = bool(config.get("use_rslora"))
    branches = {}
    for name, rank in names.items():
        alpha = pattern_value(config.get("alpha_pattern") or {}, name, config["lora_alpha"])
        branches[name] = Branch(
            tensors[f"{PREFIX}{name}.lora_A.weight"].t().contiguous().float(),
            tensors[f"{PREFIX}{name}.lora_B.weight"].t().contiguous().float(),
            alpha / divisor(rank, rslora),
            tensors.get(f"{PREFIX}{name}.lora_magnitude_vector"),
        )
    return Adapter(
        branches,
        base.get("base_name") or str(config.get("base_model_name_or_path") or ""),
        base.get("base_sha256", ""),
        float(config.get("lora_dropout") or 0),
        str(folder),
        rslora,
    )


def is_base_weight(path: Path, file, key: str, layers: dict) -> bool:
    """Whether a tensor is the base's own weight (rounded to bf16, as in base_sha256), which PEFT saves beside the
    adapter of an output head; InputError if it is another one.
    """
    layer = layers.get(key.removeprefix(PREFIX).removesuffix(".base_layer.weight"))
    if layer is None or not key.endswith(".base_layer.weight"):
        return False
    here = layer.weight.detach().cpu().bfloat16()
    same_shape = tuple(file.get_slice(key).get_shape()) == tuple(here.shape)
    if not same_shape or not torch.equal(file.get_tensor(key).bfloat16(), here):
        raise InputError(f"{path}: '{key}' is not the weight of this base model; load it on its own base")
    return True


def recorded_base(path: Path, metadata: dict[str, str]) -> dict[str, str]:
    """Name and sha256 of the base in a file's metadata: one entry of JSON, or two as older files have; {} in PEFT's."""
    if "lora_base" not in metadata:
        return metadata
    try:
        base = json.loads(metadata["lora_base"])
    except (ValueError, RecursionError):
        base = None
    if not isinstance(base, dict) or not all(isinstance(value, str) for value in base.values()):
        raise InputError(f"{path}: the entry 'lora_base' of its metadata is not a JSON object of texts")
    return base


def lora_stand_ins(model) -> dict:
    """The base layers behind LoRA layers, for their shapes."""
    return {name: layer.plain_layer() for name, layer in lora_layers(model).items()}


def check_header(path: Path, config: dict, shapes: dict, layers: dict) -> dict[str, int]:
    """Rank by layer name, from the tensors' shapes; InputError for unknown tensors and for shapes that do not fit."""
    kinds = (".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector")
    names: dict[str, int] = {}
    for key in shapes:
        kind = next((kind for kind in kinds if key.endswith(kind)), None)
        if kind is None or not key.startswith(PREFIX):
            raise InputError(f"{path}: tensor '{key}' is not part of a LoRA adapter of linear layers")
        names[key[len(PREFIX) : -len(kind)]] = 0
    if not names:
        raise InputError(f"{path}: holds no tensors")
    for name in names:
        a, b = (shapes.get(f"{PREFIX}{name}{kind}") for kind in kinds[:2])
        if a is None or b is None:
            raise InputError(f"{path}: '{name}' lacks its lora_{'A' if a is None else 'B'}.weight")
        check_shapes(str(path), layers, name, a[::-1], b[::-1])
        rank = pattern_value(config.get("rank_pattern") or {}, name, config["r"])
        if a[0] != rank:
            raise InputError(f"{path}: '{name}' has rank {a[0]}, but {CONFIG} says {rank}")
        norms = shapes.get(f"{PREFIX}{name}{kinds[2]}")
        if norms not in (None, (b[0],)) or (norms is None) == bool(config.get("use_dora")):
            raise InputError(
                f"{path}: '{name}' has DoRA norms of shape {norms}; use_dora is {config.get('use_dora', False)}"
            )
        names[name] = rank
    return names


def pattern_value(pattern: dict, name: str, default):
    """The value of the first key, a regular expression, that is the layer's name or the end of it, as PEFT matches
    rank_pattern and alpha_pattern.
    """
    for key, value in pattern.items():
        try:
            if regex.match(rf"(.*\.)?({key})$", name, timeout=1):  # re would try a hostile one for years
                return value
        except (regex.error, TimeoutError) as error:
            raise InputError(f"{CONFIG}: '{key}' is no regular expression to use ({error})") from None
    return default
