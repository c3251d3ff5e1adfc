"""Adapters on disk in PEFT's format.

    save_adapter(adapter_of(model), "data/adapters/NAME")       # adapter_config.json + adapter_model.safetensors
    install_adapter(model, load_adapter("data/adapters/NAME", model))

`PeftModel.from_pretrained` reads what is saved here, and `load_adapter` reads what PEFT saved (LoRA, rsLoRA, DoRA,
patterns of rank and alpha). What PEFT's format lacks is kept in the header of the safetensors file, which PEFT skips:
the name of the base model and the sha256 of its weights, so that an adapter is refused on another base. Everything in
a file is checked against the model's shapes before memory is taken for it.

Shapes: R rank, in / out features; PEFT's lora_A is A^T (R, in), lora_B is B^T (out, R).
"""

import json
import math
from pathlib import Path
from statistics import mode

import regex
import torch
from adapters import Adapter, Branch, check_shapes
from atomic_file import write_atomically
from finetune_settings import InputError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from transformers.pytorch_utils import Conv1D

from lora import linear_layers, lora_layers

PREFIX = "base_model.model."
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
# Of PEFT's LoraConfig: what is more than a branch beside a linear layer ...
UNSUPPORTED = (
    "bias", "modules_to_save", "layer_replication", "trainable_token_indices", "lora_bias", "target_parameters",
    "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "kasa_config", "velora_config",
    "monteclora_config",
)
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")  # ... and starts that leave the base as it is


def save_adapter(adapter: Adapter, folder, model=None):
    """Writes PEFT's two files; each is complete or absent (written beside, then renamed).

    With the model, target_modules become short suffixes ("c_attn") where these name the same layers and nothing else.
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
    rank, alpha = mode(ranks.values()), mode(alphas.values())  # the patterns name the layers that have others
    targets, conv1d = sorted(ranks), False
    if model is not None:
        modules, suffixes = dict(model.named_modules()), {name.rpartition(".")[2] for name in ranks}
        if {name for name in modules if name.rpartition(".")[2] in suffixes} == set(ranks):
            targets = sorted(suffixes)
        conv1d = any(isinstance(modules[name], Conv1D) or getattr(modules[name], "is_conv1d", False) for name in ranks)
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
        inside = path.parent / "adapter"
        hint = f"; there is one in {inside}" if (inside / path.name).exists() else ""  # the folder of a run
        raise InputError(f"{path.parent}: no adapter here ({path.name} is missing){hint}") from None
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
        pickled = (folder / "adapter_model.bin").exists()
        hint = "; adapter_model.bin is a pickle, which could run any code: save the adapter again with today's PEFT"
        raise InputError(f"{folder}: {WEIGHTS} is missing{hint * pickled}") from None
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
