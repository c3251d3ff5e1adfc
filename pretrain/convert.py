"""Hugging Face folders in and out: GPT-2, Llama and Qwen3 (Llama with QK-norm).

    python pretrain/convert.py data/runs/pretrain/stories data/models/stories    # a run's checkpoint -> a folder
    python pretrain/convert.py gpt2 data/models/gpt2                             # a model of the hub -> a folder
    python pretrain/convert.py data/models/stories /tmp/copy                     # a folder, read and written again

A folder holds config.json, generation_config.json, model.safetensors, the tokenizer's files and a model card, and is
what `AutoModelForCausalLM.from_pretrained` loads. Weights are read from safetensors only: a pickle can run any code.

Shapes: C channels, V vocabulary; GPT-2's Conv1D keeps its weights (in, out), everybody else (out, in).
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from account import parameters
from presets import DATA, GPTConfig, InputError, read_settings, run_command


@dataclass
class Settings:
    """What to convert."""

    source: Annotated[str, tyro.conf.Positional]  # run folder, exported folder, or name on the Hugging Face hub
    out: Annotated[Path, tyro.conf.Positional]  # folder to write
    tokenizer: Path | None = None  # folder with the tokenizer's files; default: the source's own
    debug: bool = False  # show tracebacks of input errors


TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                   "chat_template.jinja", "vocab.json", "merges.txt"]
EXPORTED = {"config.json", "generation_config.json", "model.safetensors", "README.md", *TOKENIZER_FILES}
DOCUMENT_MASK = ("trained with --document_mask: no token looked beyond an end-of-text; transformers computes the same "
                 "within one document, but looks back across them")
ACTIVATIONS = {"gelu": "gelu_new", "relu2": "relu2", "silu": "silu"}  # ours -> transformers' name, without a gate
# What we read back as "gelu": the tanh form under its three names.
OUR_ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_fast": "gelu", "relu2": "relu2",
                   "silu": "silu"}


def architecture(config: GPTConfig) -> str:
    """The Hugging Face class that computes the same function; InputError if there is none."""
    c = config
    if c.position == "learned" and c.norm == "layernorm" and c.norm_place == "pre" and c.mlp != "swiglu" \
            and not c.qk_norm and c.kv_heads == c.n_head and c.head_dim * c.n_head == c.n_embd:
        return "GPT2LMHeadModel"
    if c.position == "rope" and c.norm == "rmsnorm" and c.norm_place == "pre" and c.mlp == "swiglu" \
            and not (c.bias and c.qk_norm):
        return "Qwen3ForCausalLM" if c.qk_norm else "LlamaForCausalLM"
    raise InputError(
        f"no Hugging Face architecture computes --position {c.position} --norm {c.norm} --norm_place {c.norm_place} "
        f"--mlp {c.mlp} --qk_norm {c.qk_norm} --bias {c.bias} --n_kv_head {c.n_kv_head} --head_size {c.head_size}.\n"
        "GPT-2: learned, layernorm, pre, no swiglu, qk_norm, shared heads or head_size; Llama: rope, rmsnorm, pre, "
        "swiglu; Qwen3: the same with qk_norm and without biases")


def layout(config: GPTConfig) -> list[tuple[str, list[str], list[int], bool]]:
    """(our name, their names, rows of each of theirs in ours, whether theirs is transposed) of every tensor."""
    c, rows = config, []
    gpt2 = architecture(c) == "GPT2LMHeadModel"
    qkv = [c.n_head * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim]
    kinds = ["weight", "bias"] if c.bias or gpt2 else ["weight"]

    def add(ours, theirs, sizes=None, transposed=False, with_bias=True):
        for kind in kinds if with_bias else ["weight"]:
            names = [f"{name}.{kind}" for name in theirs]
            rows.append((f"{ours}.{kind}", names, sizes or [-1], transposed and kind == "weight"))

    if gpt2:
        add("transformer.wte", ["transformer.wte"], with_bias=False)
        add("transformer.wpe", ["transformer.wpe"], with_bias=False)
        for i in range(c.n_layer):
            block = f"transformer.h.{i}"
            for norm in ("ln_1", "ln_2"):
                add(f"{block}.{norm}", [f"{block}.{norm}"])
            for linear in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
                add(f"{block}.{linear}", [f"{block}.{linear}"], transposed=True)
        add("transformer.ln_f", ["transformer.ln_f"])
    else:
        add("transformer.wte", ["model.embed_tokens"], with_bias=False)
        for i in range(c.n_layer):
            ours, theirs = f"transformer.h.{i}", f"model.layers.{i}"
            add(f"{ours}.ln_1", [f"{theirs}.input_layernorm"], with_bias=False)
            add(f"{ours}.ln_2", [f"{theirs}.post_attention_layernorm"], with_bias=False)
            add(f"{ours}.attn.c_attn", [f"{theirs}.self_attn.{x}_proj" for x in "qkv"], qkv)
            add(f"{ours}.attn.c_proj", [f"{theirs}.self_attn.o_proj"])
            add(f"{ours}.mlp.c_fc", [f"{theirs}.mlp.gate_proj", f"{theirs}.mlp.up_proj"], [c.hidden, c.hidden])
            add(f"{ours}.mlp.c_proj", [f"{theirs}.mlp.down_proj"])
            for norm in ("q_norm", "k_norm") if c.qk_norm else ():
                add(f"{ours}.attn.{norm}", [f"{theirs}.self_attn.{norm}"], with_bias=False)
        add("transformer.ln_f", ["model.norm"], with_bias=False)
    if not c.tied:
        add("lm_head", ["lm_head"], with_bias=False)
    return rows


def hf_config(config: GPTConfig) -> dict:
    """The contents of config.json."""
    c, name = config, architecture(config)
    common = {"architectures": [name], "vocab_size": c.vocab_size, "tie_word_embeddings": c.tied, "dtype": "float32",
              "bos_token_id": c.end_of_text, "eos_token_id": c.end_of_text, "initializer_range": 0.02}
    if c.document_mask:  # a field of our own: transformers keeps it and does not read it
        common["document_mask"] = True
    if name == "GPT2LMHeadModel":
        return common | {
            "model_type": "gpt2", "n_layer": c.n_layer, "n_head": c.n_head, "n_embd": c.n_embd, "n_inner": c.hidden,
            "n_positions": c.block_size, "activation_function": ACTIVATIONS[c.mlp], "layer_norm_epsilon": c.norm_eps,
            "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    return common | {
        "model_type": "qwen3" if c.qk_norm else "llama", "num_hidden_layers": c.n_layer, "hidden_size": c.n_embd,
        "num_attention_heads": c.n_head, "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim,
        "intermediate_size": c.hidden, "hidden_act": "silu", "max_position_embeddings": c.block_size,
        "rms_norm_eps": c.norm_eps, "attention_bias": c.bias, "rope_theta": c.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
    } | ({"use_sliding_window": False} if c.qk_norm else {"mlp_bias": c.bias})


def our_config(hf: dict, where: str) -> GPTConfig:
    """GPTConfig of a config.json; InputError names the field that we have no switch for."""
    def require(field, allowed, default=None):
        value = hf.get(field, default)
        if value not in allowed:
            raise InputError(f"{where}: {field} = {value!r} is not supported, only {', '.join(map(repr, allowed))}")
        return value

    def read(field, kind, *default, fields=hf):
        value = fields.get(field)
        if value is None:
            if not default:
                raise InputError(f"{where}: the field {field!r} is missing")
            return default[0]
        if type(value) is not kind and (kind, type(value)) != (float, int):
            raise InputError(f"{where}: {field} = {value!r} must be of type {kind.__name__}")
        return kind(value)

    kind = hf.get("model_type")
    if kind not in ("gpt2", "llama", "qwen3"):
        raise InputError(f"{where}: model_type {kind!r} is not supported, only 'gpt2', 'llama' and 'qwen3'")
    ends = hf.get("eos_token_id")
    end = (ends or [None])[0] if isinstance(ends, list) else ends
    shared = {"vocab_size": read("vocab_size", int), "tied": read("tie_word_embeddings", bool, kind == "gpt2"),
              "end_of_text": read("eos_token_id", int, 0, fields={"eos_token_id": end}),
              "document_mask": read("document_mask", bool, False)}  # our own field, which others pass over
    if kind == "gpt2":
        for field in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"):
            require(field, (False,), False)
        require("scale_attn_weights", (True,), True)
        values = {
            "n_layer": read("n_layer", int), "n_head": read("n_head", int), "n_embd": read("n_embd", int),
            "block_size": read("n_positions", int), "mlp_hidden": read("n_inner", int, 0),
            "mlp": OUR_ACTIVATIONS[require("activation_function", tuple(OUR_ACTIVATIONS), "gelu_new")],
            "norm_eps": read("layer_norm_epsilon", float, 1e-5)}
    else:
        rope = read("rope_scaling", dict, {}) or read("rope_parameters", dict, {})  # the old name wins in transformers
        for name in ("rope_type", "type"):
            if rope.get(name, "default") != "default":
                raise InputError(f"{where}: rotary scaling {rope[name]!r} is not supported, only 'default'")
        require("hidden_act", ("silu",), "silu")
        require("use_sliding_window", (False,), False)
        bias = require("attention_bias", (False, True), False)
        if kind == "llama":
            require("mlp_bias", (bias,), False)
        heads = read("num_attention_heads", int)
        values = {
            "n_layer": read("num_hidden_layers", int), "n_head": heads, "n_embd": read("hidden_size", int),
            "block_size": read("max_position_embeddings", int), "n_kv_head": read("num_key_value_heads", int, heads),
            "head_size": read("head_dim", int, 0), "mlp": "swiglu", "mlp_hidden": read("intermediate_size", int),
            "norm": "rmsnorm", "norm_eps": read("rms_norm_eps", float, 1e-6), "position": "rope",
            "qk_norm": kind == "qwen3", "bias": bias,
            "rope_theta": read("rope_theta", float, read("rope_theta", float, 10000.0), fields=rope)}
    try:
        return GPTConfig(**values, **shared)
    except InputError as error:
        raise InputError(f"{where}, in our names: {error}") from None


def hf_tensors(config: GPTConfig, state: dict) -> dict:
    """Our state -> theirs: names, splits, transposes; padding rows of the vocabulary are cropped."""
    import torch

    result = {}
    for ours, theirs, sizes, transposed in layout(config):
        tensor = state.get(ours)
        if tensor is None:  # GPT-2 always has biases; without ours they are zero
            tensor = torch.zeros(len(state[ours.removesuffix("bias") + "weight"]))
        tensor = tensor.detach()
        if ours in ("transformer.wte.weight", "lm_head.weight"):
            tensor = tensor[: config.vocab_size]
        parts = [tensor] if sizes == [-1] else tensor.split(sizes)
        for name, part in zip(theirs, parts, strict=True):
            result[name] = (part.T if transposed else part).to("cpu", torch.float32).contiguous().clone()
    return result


def load(source: str | Path, dtype=None):
    """GPT with the weights of a Hugging Face folder or hub name (gpt2, HuggingFaceTB/SmolLM2-135M, ...), fp32.

    `dtype` is that of the forward pass (default fp32). Raises InputError for architectures and files we do not read.
    """
    import torch
    from model import GPT
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = locate(source)
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} has no config.json; expected a Hugging Face folder")
    config = our_config(read_json(folder / "config.json"), str(folder / "config.json"))
    tensors = {}
    for name in weight_files(folder):
        if not (folder / name).exists():
            pickles = [p.name for p in folder.glob("*.bin")] + [p.name for p in folder.glob("*.pt")]
            note = f"; {pickles[0]} is a pickle, which can run any code, and is not read" if pickles else ""
            raise InputError(f"{folder} has no {name}{note}")
        try:
            tensors.update(load_file(folder / name))
        except SafetensorError as error:
            raise InputError(f"{folder / name} is damaged: {error}") from None
    needed, held = sum(parameters(config).values()), sum(tensor.numel() for tensor in tensors.values())
    if needed > 2 * held:  # before memory is taken for it; up to 2, the tensor that is missing can be named
        raise InputError(f"{folder}: config.json describes {needed:,} parameters, the weights are {held:,}")
    model = GPT(config, dtype or torch.float32)
    copy_tensors(model, tensors, str(folder))
    return model


def weight_files(folder: Path) -> list[str]:
    """Names of the files that hold a folder's weights, one or several."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return ["model.safetensors"]
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{index} has no weight_map from tensors to files")
    return sorted(set(places.values()))


def copy_tensors(model, tensors: dict, where: str):
    """Fill our parameters from theirs; InputError for a tensor that is missing, left over or of another shape."""
    import torch

    config = model.config
    if architecture(config) == "GPT2LMHeadModel":
        # The hub's oldest files have no prefix; attn.bias and attn.masked_bias are causal masks, not weights.
        tensors = {name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": value
                   for name, value in tensors.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))}
    head, embedding = tensors.get("lm_head.weight"), tensors.get(layout(config)[0][1][0])
    if config.tied and head is not None:
        if embedding is None or not torch.equal(head, embedding):
            raise InputError(f"{where}: lm_head.weight is not the embedding, but config.json has tie_word_embeddings")
        tensors.pop("lm_head.weight")
    state = dict(model.named_parameters())
    with torch.no_grad():
        for ours, theirs, _, transposed in layout(config):
            missing = [name for name in theirs if name not in tensors]
            if missing:
                raise InputError(f"{where}: the tensor {missing[0]} is missing")
            parts = [tensors.pop(name) for name in theirs]
            value = torch.cat([part.T if transposed else part for part in parts]).float()
            target = state[ours]
            if ours in ("transformer.wte.weight", "lm_head.weight"):
                target[config.vocab_size:] = 0
                target = target[: config.vocab_size]
            if value.shape != target.shape:
                raise InputError(f"{where}: {theirs[0]} gives shape {tuple(value.shape)}, config.json says "
                                 f"{tuple(target.shape)}")
            target.copy_(value)
    left = [name for name in tensors if not name.endswith("rotary_emb.inv_freq")]
    if left:
        raise InputError(f"{where}: {len(left)} tensors have no place in the model, the first is {left[0]}")


def locate(source: str | Path) -> Path:
    """The folder of this path, or of the hub model of this name."""
    return Path(source) if Path(source).exists() else download(str(source))


def download(name: str) -> Path:
    """Folder of a hub model in the local cache, without pickles."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        wanted = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "*.model"]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name} is neither a folder nor a model that the hub gives: {reason}\n"
                         "without a network, copy a Hugging Face folder here and name its path") from None


def read_json(path: Path) -> dict:
    """Parsed file; InputError if it is not a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {str(value)[:40]}, not an object in braces")
    return value


def special_tokens(folder: Path) -> dict:
    """The bos and eos ids of generation_config.json, or else of config.json; eos may be a list. Empty for a run."""
    ids = {}
    for name in ("config.json", "generation_config.json"):
        if (folder / name).exists():
            ids |= {key: value for key, value in read_json(folder / name).items()
                    if key in ("bos_token_id", "eos_token_id") and value is not None}
    return ids


def model_card(config: GPTConfig, parameters: int, card: str | dict) -> str:
    """README.md of an exported folder; `card`, text or named values, says how it was trained and how well it does."""
    text = card if isinstance(card, str) else "\n".join(f"- {name}: {value}" for name, value in card.items())
    if config.document_mask:
        text = f"{text.strip()}\n\nIt was {DOCUMENT_MASK}."
    return f"""---
library_name: transformers
pipeline_tag: text-generation
---

# {architecture(config)}, {parameters:,} parameters

{config.n_layer} layers, {config.n_head} heads ({config.kv_heads} for keys and values), {config.n_embd} channels,
vocabulary {config.vocab_size:,}, up to {config.block_size:,} tokens. Every document of the training data ended with
token {config.end_of_text}, at which generation stops.

{text.strip()}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
```
"""


def check_target(out: Path):
    """Raise InputError if an export may not take the place of `out`: only of nothing, an empty folder or an export."""
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    foreign = sorted(names - EXPORTED)
    if not out.is_dir() or foreign or (names and "config.json" not in names):
        reason = f" (it holds {foreign[0]})" if foreign else ""
        raise InputError(f"{out} exists and is no exported model{reason}; give another folder")


def export(model, tokenizer_dir: str | Path | None, out_dir: str | Path, card: str | dict = "",
           state: dict | None = None, special: dict | None = None):
    """Write `model` (a GPT) as a Hugging Face folder that appears at once and whole.

    `state` replaces model.state_dict(), e.g. the gathered one of a sharded model. Logits equal ours to 1e-4 in fp32.
    `special` holds bos and eos ids for generation that are not both the end-of-text, as special_tokens gives them.
    An earlier export is replaced; any other non-empty folder is refused (check_target).
    """
    from safetensors.torch import save_file

    config, out = model.config, Path(out_dir).resolve()  # a link keeps leading to it
    tensors = hf_tensors(config, model.state_dict() if state is None else state)  # refuses before anything is written
    check_target(out)
    part, old = out.with_name(f".{out.name}.tmp"), out.with_name(f".{out.name}.old")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / "config.json").write_text(json.dumps(hf_config(config), indent=2) + "\n")
        ids = {"bos_token_id": config.end_of_text, "eos_token_id": config.end_of_text} | (special or {})
        (part / "generation_config.json").write_text(json.dumps(ids, indent=2) + "\n")
        text = model_card(config, sum(t.numel() for t in tensors.values()), card)
        (part / "README.md").write_text(text, encoding="utf-8")
        for name in TOKENIZER_FILES if tokenizer_dir else ():
            if (Path(tokenizer_dir) / name).exists():
                shutil.copyfile(Path(tokenizer_dir) / name, part / name)
        save_file(tensors, part / "model.safetensors", metadata={"format": "pt"})
        for path in [*part.iterdir(), part]:
            sync(path)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        part.rename(out)
        sync(out.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path):
    """Make sure that a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_run(run: Path, dtype=None):
    """(GPT, tokenizer folder or None) of a run's newest checkpoint."""
    import checkpoint
    import torch
    from model import GPT
    from shards import fingerprint, read_manifest, tokenizer_folder

    if not (run / "args.json").exists():
        raise InputError(f"{run} is neither a run (no args.json) nor a Hugging Face folder (no config.json)")
    args, saved = read_json(run / "args.json"), checkpoint.listing(run / "checkpoints")
    if not saved:
        raise InputError(f"{run} has no checkpoint yet; train longer or lower --save_every")
    try:
        config, data = GPTConfig(**args["model"]), Path(args["data"]).expanduser()
    except (KeyError, TypeError) as error:
        raise InputError(f"{run}/args.json is not that of a pretraining run: {error}") from None
    model = GPT(config, dtype or torch.float32)
    checkpoint.load(saved[-1], model, [])
    data = data if data.is_absolute() else DATA.parent / data
    if not (data / "manifest.json").exists():
        return model, None
    manifest = read_manifest(data)
    if fingerprint(manifest, "train") != checkpoint.read_state(saved[-1])["identity"]["data"]:
        print(f"note: {data} has been encoded anew since {run} was trained, so its tokenizer may be another",
              file=sys.stderr)
        return model, None
    return model, tokenizer_folder(manifest)


def load_any(source: str | Path, dtype=None):
    """(GPT, folder with its tokenizer or None) of a run folder, a Hugging Face folder or a hub name."""
    path = Path(source)
    if path.is_dir() and not (path / "config.json").exists():
        return load_run(path, dtype)
    model = load(source, dtype)
    folder = locate(source)
    return model, folder if (folder / "tokenizer.json").exists() else None


def read_tokenizer(folder: Path | None, source: str | Path):
    """tokenizers.Tokenizer of the folder that load_any found for this source."""
    from tokenizers import Tokenizer

    if folder is None:
        raise InputError(f"{source} has no tokenizer.json beside it; convert.py --tokenizer adds one")
    path = folder / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the only type that tokenizers raises
        raise InputError(f"{path} cannot be read: {error}") from None


def main(settings: Settings):
    """Read one, write the other."""
    model, tokenizer = load_any(settings.source)
    tokenizer = settings.tokenizer or tokenizer
    if tokenizer is not None and not (tokenizer / "tokenizer.json").exists():
        raise InputError(f"{tokenizer} has no tokenizer.json; give the tokenizer's folder with --tokenizer")
    tokens = read_tokenizer(tokenizer, settings.source).get_vocab_size() if settings.tokenizer else 0
    if tokens > model.config.vocab_size:
        raise InputError(f"--tokenizer {tokenizer} has {tokens:,} tokens, the model only {model.config.vocab_size:,}")
    export(model, tokenizer, settings.out, f"Converted from `{Path(settings.source).name}`.",
           special=special_tokens(locate(settings.source)))
    print(f"{architecture(model.config)} with {model.parameter_count():,} parameters -> {settings.out}"
          + ("" if tokenizer else "; no tokenizer found, give one with --tokenizer")
          + (f"; {DOCUMENT_MASK}" if model.config.document_mask else ""))


if __name__ == "__main__":
    run_command(main, lambda: read_settings(Settings, __doc__))
