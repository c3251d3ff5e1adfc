"""The base model and its tokenizer, made ready for training: device, types, fused operations, adapter, attention."""

from dataclasses import replace
from pathlib import Path

import finetune_quiet  # noqa: F401  (before transformers)
import torch
import transformers
from adapter_files import CONFIG, load_adapter, read_config
from adapters import base_sha256, install_adapter
from finetune_settings import InputError, Settings, out_of_memory
from fused_operations import fuse_operations
from packing_check import pack_checked
from torch import nn

from lora import convert_linear_layer_to_lora, only_optimize_lora_parameters

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def choose_device(device: str, rank: int = 0) -> torch.device:
    """auto: this process's GPU if there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda, but PyTorch sees no CUDA device; use --device cpu")
    return torch.device(device, rank) if device == "cuda" else torch.device(device)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """auto: bf16 where the hardware multiplies it faster than fp32 (GPUs since 2020, CPUs with AVX512-BF16 or AMX)."""
    if dtype == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = torch.cpu._is_avx512_bf16_supported()
        dtype = "bf16" if fast else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]


def from_pretrained(factory, name: str, **options):
    """factory.from_pretrained(name), its failures as one line; a name that looks like a path must be a folder."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.startswith("data/")
    if looks_local and not Path(name).is_dir():
        raise InputError(f"no model folder '{name}'; the default one, data/models/stories, comes from: bash train.sh")
    if Path(name, CONFIG).is_file() and not Path(name, "config.json").exists():
        raise InputError(f"'{name}' holds an adapter, not a model; name its base, and the adapter with train.py "
                         "--lora_load_path or generate.py --adapters")
    try:
        return factory.from_pretrained(name, **options)
    except Exception as error:  # a damaged file can make anything of transformers
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        if not isinstance(error, (OSError, ValueError)):  # whose texts may be a mere 'key'
            reason = f"{type(error).__name__}: {reason}"
        where = (
            "is not a complete model folder"
            if Path(name).is_dir()
            else "is neither a folder nor within reach on the hub"
        )
        raise InputError(f"'{name}' {where}: {reason}") from error


def load_tokenizer(name: str, trust_remote_code: bool = False):
    """The model's own tokenizer."""
    return from_pretrained(transformers.AutoTokenizer, name, trust_remote_code=trust_remote_code)


def load_base(name: str, dtype=torch.float32, device="cpu", trust_remote_code: bool = False):
    """The base model in `dtype`; only the safetensors weights of a folder are read. InputError where they leave a part
    of the model out, which transformers would fill with random numbers.
    """
    config = from_pretrained(transformers.AutoConfig, name, trust_remote_code=trust_remote_code)
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(f"'{name}' is an encoder-decoder model ({config.model_type}); only models that continue text "
                         "(GPT-2, Llama, ...) are fine-tuned and asked here")
    model, info = from_pretrained(
        transformers.AutoModelForCausalLM, name, dtype=dtype, trust_remote_code=trust_remote_code, use_safetensors=True,
        output_loading_info=True, ignore_mismatched_sizes=True,
    )
    unlike = {key for key, *_ in info["mismatched_keys"]} | info["missing_keys"]
    unlike = sorted(unlike & {key for key, _ in model.named_parameters()})
    if unlike:
        raise InputError(f"'{name}': {len(unlike)} of the weights that its config.json asks for are missing or of "
                         f"another shape, {unlike[0]} the first of them")
    model.config.use_cache = False
    check_causal(model.to(device), name)
    return model


@torch.no_grad()
def check_causal(model, name: str):
    """InputError where a token's scores depend on the tokens behind it, which they are to foretell (BERT, XLNet)."""
    vocabulary = model.config.get_text_config().vocab_size
    ids = (vocabulary // 2 + torch.arange(12)) % vocabulary
    other = torch.cat([ids[:4], ids[:1].expand(8)])  # begins alike
    first, second = model(input_ids=torch.stack([ids, other]).to(model.device)).logits[:, :4].float()
    if (first - second).norm() > 0.02 * first.norm():
        raise InputError(f"'{name}' sees what follows a token ({type(model).__name__}); only models that continue text "
                         "(GPT-2, Llama, ...) are fine-tuned and asked here")


def set_dropout(model, rate: float):
    """Gives every dropout of the model this rate, those included that are plain numbers, whatever their names; whole
    layers are not dropped, and a router's input has no noise.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name, value in vars(module).items():
            if isinstance(value, float) and ("drop" in name or "jitter" in name):
                setattr(module, name, 0.0 if "layerdrop" in name or "jitter" in name else rate)


def quantise_base(model):
    """Stores the blocks' linear layers in int8 with one scale per row (torchao); adapters work on top."""
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError:
        raise InputError("--base_int8 needs torchao: pip install torchao") from None
    from lora import LoRALinear

    quantize_(model, Int8WeightOnlyConfig(), filter_fn=lambda module, name: isinstance(module, LoRALinear))


def with_loaded_rank(s: Settings) -> Settings:
    """The settings with rank and alpha of the adapter that --lora_load_path names; InputError where the flags ask for
    others.
    """
    if not s.lora_load_path:
        return s
    config = read_config(Path(s.lora_load_path) / CONFIG)
    loaded = {"lora_dim": config["r"], "lora_scaling": config["lora_alpha"]}
    for name, own in loaded.items():
        if getattr(s, name) not in (getattr(Settings, name), own):
            raise InputError(
                f"--{name} is {getattr(s, name)}, but the adapter {s.lora_load_path} has {own}; leave it out"
            )
    return replace(s, **loaded)


def prepare_model(s: Settings, device: torch.device, dtype: torch.dtype, trained_vocabulary: int = 0):
    """The model ready to train, and the sha256 of its base weights.

    LoRA: the frozen base in dtype, the adapter in fp32. Full: weights in fp32, cast to dtype in each pass of the loop.
    """
    model = load_base(s.model_name_or_path, dtype if s.use_lora else torch.float32, device, s.trust_remote_code)
    vocabulary = model.get_input_embeddings().num_embeddings
    if trained_vocabulary > vocabulary:
        raise InputError(
            f"the tokenizer of '{s.model_name_or_path}' has {trained_vocabulary} tokens, its model only {vocabulary}"
        )
    base_hash = base_sha256(model)
    set_dropout(model, s.base_dropout)
    if s.use_lora:
        torch.manual_seed(s.seed)
        if s.lora_load_path:
            install_adapter(model, replace(load_adapter(s.lora_load_path, model), dropout=s.dropout), base_hash)
        else:
            convert_linear_layer_to_lora(
                model, s.lora_module_name, s.lora_dim, s.lora_scaling, s.dropout, s.rslora, s.lora_init, s.dora
            )
        only_optimize_lora_parameters(model)
    fuse_operations(model)
    if s.base_int8:
        quantise_base(model)
    if s.packing:
        pack_checked(model, s.max_length, exact=dtype == torch.float32 and s.matmul_precision == "highest")
    if s.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train(), base_hash
