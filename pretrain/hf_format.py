"""Our configuration and tensors as Hugging Face has them, GPT-2, Llama, Qwen2 and Qwen3, and the way back.

A Mistral without a sliding window computes what a Llama does; it is read, and written as a Llama.

Shapes: C channels, V vocabulary; GPT-2's Conv1D keeps its weights (in, out), everybody else (out, in).
"""

from presets import GPTConfig, InputError

ACTIVATIONS = {"gelu": "gelu_new", "relu2": "relu2", "silu": "silu"}  # ours -> transformers' name, without a gate
# What we read back as "gelu": the tanh form under its three names.
OUR_ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_fast": "gelu", "relu2": "relu2",
                   "silu": "silu"}
# The families that we read, and the end-of-text that transformers takes where config.json names none.
ENDS = {"gpt2": 50256, "llama": 2, "mistral": 2, "qwen2": None, "qwen3": None}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}  # what rotary_table takes these for


def architecture(config: GPTConfig) -> str:
    """The Hugging Face class that computes the same function; InputError if there is none."""
    c = config
    if c.position == "learned" and c.norm == "layernorm" and c.norm_place == "pre" and c.mlp != "swiglu" \
            and not c.qk_norm and c.kv_heads == c.n_head and c.head_dim * c.n_head == c.n_embd:
        return "GPT2LMHeadModel"
    if c.position == "rope" and c.norm == "rmsnorm" and c.norm_place == "pre" and c.mlp == "swiglu" \
            and not ((c.bias or c.qkv_bias) and c.qk_norm) and (c.qk_norm or c.n_embd % c.n_head == 0):
        return "Qwen3ForCausalLM" if c.qk_norm else "Qwen2ForCausalLM" if c.qkv_bias and not c.bias \
            else "LlamaForCausalLM"
    raise InputError(
        f"no Hugging Face architecture computes --position {c.position} --norm {c.norm} --norm_place {c.norm_place} "
        f"--mlp {c.mlp} --qk_norm {c.qk_norm} --bias {c.bias} --qkv_bias {c.qkv_bias} --n_kv_head {c.n_kv_head} "
        f"--head_size {c.head_size}.\n"
        "GPT-2: learned, layernorm, pre, no swiglu, qk_norm, shared heads or head_size; Llama: rope, rmsnorm, pre, "
        f"swiglu, --n_embd {c.n_embd} a multiple of the heads; Qwen2: the same with qkv_bias; Qwen3: with qk_norm, "
        "without biases, of any width")


def layout(config: GPTConfig) -> list[tuple[str, list[str], list[int], bool]]:
    """(our name, their names, rows of each of theirs in ours, whether theirs is transposed) of every tensor."""
    c, rows = config, []
    gpt2 = architecture(c) == "GPT2LMHeadModel"
    qkv = [c.n_head * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim]
    biases = c.bias or gpt2

    def add(ours, theirs, sizes=None, transposed=False, with_bias=biases):
        for kind in ["weight", "bias"] if with_bias else ["weight"]:
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
            add(f"{ours}.attn.c_attn", [f"{theirs}.self_attn.{x}_proj" for x in "qkv"], qkv,
                with_bias=c.bias or c.qkv_bias)
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
    rope = {"rope_type": "default", "rope_theta": c.rope_theta}
    if c.rope_factor != 1:
        rope |= {"rope_type": "llama3", "factor": c.rope_factor, **LLAMA3,
                 "original_max_position_embeddings": c.rope_original}
    kind = name.removesuffix("ForCausalLM").lower()
    return common | {
        "model_type": kind, "num_hidden_layers": c.n_layer, "hidden_size": c.n_embd,
        "num_attention_heads": c.n_head, "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim,
        "intermediate_size": c.hidden, "hidden_act": "silu", "max_position_embeddings": c.block_size,
        "rms_norm_eps": c.norm_eps, "rope_theta": c.rope_theta, "rope_parameters": rope,
    } | ({"attention_bias": c.bias, "mlp_bias": c.bias} if kind == "llama" else {"use_sliding_window": False})


def our_config(hf: dict, where: str) -> GPTConfig:
    """GPTConfig of a config.json; InputError names the field that we have no switch for."""
    def require(field, allowed, default=None, fields=hf):
        value = fields.get(field, default)
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

    kind = read("model_type", str, None)
    if kind not in ENDS:
        raise InputError(f"{where}: model_type {kind!r} is not supported, only {', '.join(map(repr, ENDS))}")
    ends = hf.get("eos_token_id", ENDS[kind])
    end = (ends or [None])[0] if isinstance(ends, list) else ends
    vocab_size, end = read("vocab_size", int), read("eos_token_id", int, None, fields={"eos_token_id": end})
    shared = {"vocab_size": vocab_size, "tied": read("tie_word_embeddings", bool, kind == "gpt2"),
              "end_of_text": end if end is not None and 0 <= end < vocab_size else None,
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
        scaling = rope.get("rope_type", rope.get("type", "default"))
        if scaling not in ("default", "llama3"):
            raise InputError(f"{where}: rotary scaling {scaling!r} is not supported, only 'default' and 'llama3'")
        stretched = {}
        if scaling == "llama3":
            for field, value in LLAMA3.items():
                require(field, (value,), fields=rope)
            stretched = {"rope_factor": read("factor", float, fields=rope),
                         "rope_original": read("original_max_position_embeddings", int, fields=rope)}
        require("hidden_act", ("silu",), "silu")
        require("use_sliding_window", (False,), False)
        if kind == "mistral":
            require("sliding_window", (None,), 4096)
        bias = kind in ("llama", "qwen3") and read("attention_bias", bool, False)
        mlp_bias = kind == "llama" and read("mlp_bias", bool, False)
        if bias != mlp_bias:
            raise InputError(f"{where}: biases in some layers only, attention_bias = {bias} and mlp_bias = {mlp_bias}, "
                             "are not supported")
        heads = read("num_attention_heads", int)
        values = {
            "n_layer": read("num_hidden_layers", int), "n_head": heads, "n_embd": read("hidden_size", int),
            "block_size": read("max_position_embeddings", int), "n_kv_head": read("num_key_value_heads", int, heads),
            "head_size": read("head_dim", int, 0), "mlp": "swiglu", "mlp_hidden": read("intermediate_size", int),
            "norm": "rmsnorm", "norm_eps": read("rms_norm_eps", float, 1e-6), "position": "rope",
            "qk_norm": kind == "qwen3", "bias": bias, "qkv_bias": kind == "qwen2", **stretched,
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
