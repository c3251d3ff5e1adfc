"""LoRA by hand: a frozen linear layer plus a trainable product of two thin matrices (Hu et al. 2021,
arXiv:2106.09685).

    from lora import convert_linear_layer_to_lora, only_optimize_lora_parameters
    model = AutoModelForCausalLM.from_pretrained("gpt2")
    convert_linear_layer_to_lora(model, lora_dim=8, lora_scaling=16)     # every linear layer of the blocks
    only_optimize_lora_parameters(model)
    ... train ...; merge_lora(model)                                     # inference at the base model's cost

    y = x W^T + b + s (x A) B        s = alpha / r, or alpha / sqrt(r) (rsLoRA, arXiv:2312.03732)

Why B starts at zero: then y is the base model's output, bit for bit, and training starts from the base model's loss.
A must not be zero as well: dL/dB = s (xA)^T g and dL/dA = s x^T (g B^T), so with both zero both gradients vanish
forever.

Why (xA)B and not x(AB): per token the branch costs 2 r (in + out) FLOPs beside the base layer's 2 in out, 2% at r = 8
and in = out = 768. Forming W + sAB costs 2 r in out FLOPs once per step, whatever the number of tokens N, so it needs
fewer FLOPs as soon as N > in out / (in + out) (384 tokens here); but it needs a second copy of every adapted W
(memory of the base model again), rounds the update into W's type (bf16 keeps 8 bits: a small update is lost), allows
no dropout on the branch and only one adapter per pass. lora/bench.py measures both.

Backward: with g = dL/dy (N, out), h = xA (N, R):  dB = s h^T g,  dA = x^T (s g B^T),  dx = g W + (s g B^T) A^T. Only
x, h and the parameters are kept for it. Plain autograd keeps no more, W having no gradient, but forms hB, s hB and s g,
each of size (N, out), on the way; here s is taken into B, and the products add up in y's memory.

Shapes: N tokens, R rank, in / out the layer's features. A is `lora_right_weight` (in, R), B is `lora_left_weight` (R,
out).
"""

import math
import re

import torch
import torch.nn.functional as F
from finetune_settings import InputError
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class LowRankLinear(torch.autograd.Function):
    """x W^T + b + z (A (sB)) with z = x, or x after dropout; see the file's docstring for the gradients."""

    @staticmethod
    def forward(ctx, x, dropped, weight, bias, right, left, scaling):
        """x, dropped (N, in) of one dtype; dropped is None where there is no dropout. Returns (N, out)."""
        z = x if dropped is None else dropped
        a, scaled_b = right.to(x.dtype), (left * scaling).to(x.dtype)
        h = z @ a  # (N, R)
        y = h @ scaled_b if bias is None else torch.addmm(bias.to(x.dtype), h, scaled_b)  # thin products first: the
        y.addmm_(x, dense(weight, x.dtype).t())  # large one adds to them as it goes, without a pass for the bias
        ctx.save_for_backward(z, h, weight, right, left)
        ctx.scaling, ctx.has_dropout = scaling, dropped is not None
        return y

    @staticmethod
    def backward(ctx, g):
        """Gradients of x, dropped, right and left for g (N, out); weight and bias are frozen."""
        z, h, weight, right, left = ctx.saved_tensors
        a, scaled_b = right.to(g.dtype), (left * ctx.scaling).to(g.dtype)
        gb = g @ scaled_b.t()  # (N, R)
        d_right = (z.t() @ gb).to(right.dtype)
        d_left = (h.t() @ g).to(left.dtype).mul_(ctx.scaling)
        d_x = d_dropped = None
        if ctx.needs_input_grad[0]:
            weight = dense(weight, g.dtype)
            d_x = g @ weight if ctx.has_dropout else (gb @ a.t()).addmm_(g, weight)
        if ctx.has_dropout and ctx.needs_input_grad[1]:
            d_dropped = gb @ a.t()
        return d_x, d_dropped, None, None, d_right, d_left, None


def dense(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight as a plain tensor of `dtype`; a quantised one (torchao) is unpacked for the moment of its use."""
    if type(weight.data) is not Tensor and hasattr(weight, "dequantize"):
        weight = weight.dequantize()
    return weight.to(dtype)


class LoRALinear(nn.Module):
    """A frozen linear layer with one low-rank branch.

    weight (out, in) and bias (out) or None are the base layer's and are never changed (`merge` replaces, `unmerge`
    puts back). lora_dim is R; lora_scaling is alpha; lora_dropout acts on the branch's input. `is_conv1d`: the base
    layer was a Conv1D, whose (in, out) weight is viewed transposed here. init: "zero" (Kaiming-uniform A with a =
    sqrt 5, zero B) or "pissa" (the top R singular triples of W, arXiv:2404.02948; their product is subtracted again
    in the branch, so that W stays as it is and the first output is the base layer's). dora: W + sAB with its rows'
    norms as parameters (arXiv:2402.09353).
    """

    def __init__(
        self,
        weight,
        bias,
        lora_dim,
        lora_scaling,
        lora_dropout=0.0,
        rslora=False,
        init="zero",
        dora=False,
        is_conv1d=False,
    ):
        super().__init__()
        if lora_dim < 1:
            raise InputError(f"lora_dim is {lora_dim}; the rank must be at least 1")
        if init not in ("zero", "pissa"):
            raise InputError(f"unknown LoRA initialisation '{init}'; use zero or pissa")
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.out_features, self.in_features = weight.shape
        self.is_conv1d, self.lora_dropout, self.rslora = is_conv1d, lora_dropout, rslora
        self.base_weight = None  # the base's own bits while merged
        self.install(
            torch.empty(self.in_features, lora_dim, device=weight.device),
            torch.zeros(lora_dim, self.out_features, device=weight.device),
            lora_scaling / (math.sqrt(lora_dim) if rslora else lora_dim),
        )
        nn.init.kaiming_uniform_(self.lora_right_weight, a=math.sqrt(5))
        if init == "pissa":
            self.start_from_singular_vectors()
        if dora:
            self.lora_magnitude = nn.Parameter(dense(self.weight, torch.float32).norm(dim=1))

    def install(self, right, left, scaling, magnitude=None):
        """Puts another adapter, A (in, R), B (R, out) and its factor s, in the place of the present one."""
        if self.base_weight is not None:
            raise InputError("this layer is merged; unmerge it before changing its adapter")
        self.lora_right_weight = nn.Parameter(right.float())
        self.lora_left_weight = nn.Parameter(left.float())
        self.lora_magnitude = None if magnitude is None else nn.Parameter(magnitude.float())
        self.lora_scaling, self.lora_dim = scaling, right.shape[1]
        self.register_buffer("lora_initial_right", None)
        self.register_buffer("lora_initial_left", None)

    @torch.no_grad()
    def start_from_singular_vectors(self):
        """PiSSA: sAB = the best rank-R approximation of W^T: the first R terms of its SVD (computed in full)."""
        if self.lora_dim > min(self.weight.shape):
            raise InputError(
                f"lora_dim is {self.lora_dim}, but a layer of {self.in_features} x {self.out_features} has only "
                f"{min(self.weight.shape)} singular vectors for pissa; lower --lora_dim, or leave the layer out with "
                "--lora_module_name"
            )
        u, s, vh = torch.linalg.svd(dense(self.weight, torch.float32).t(), full_matrices=False)  # W^T = u s vh
        r, root = self.lora_dim, (s[: self.lora_dim] / self.lora_scaling).sqrt()
        self.lora_right_weight.copy_(u[:, :r] * root)
        self.lora_left_weight.copy_(root[:, None] * vh[:r])
        self.lora_initial_right = self.lora_right_weight.detach().clone()
        self.lora_initial_left = self.lora_left_weight.detach().clone()

    def factors(self):
        """A (in, R) and B (R, out) of the branch against the unchanged W; for PiSSA of rank 2R: AB - A0 B0."""
        if self.lora_initial_right is None:
            return self.lora_right_weight, self.lora_left_weight
        return (
            torch.cat([self.lora_right_weight, self.lora_initial_right], 1),
            torch.cat([self.lora_left_weight, -self.lora_initial_left], 0),
        )

    def forward(self, x):
        """The layer's output: x (..., in) -> (..., out)."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if self.base_weight is not None:
            if self.training and torch.is_grad_enabled() and self.lora_right_weight.requires_grad:
                raise RuntimeError("a merged LoRA layer does not train; call unmerge_lora(model) first")
            return F.linear(x, self.weight.to(x.dtype), self.bias)
        with torch.autocast(x.device.type, enabled=False):
            flat = x.reshape(-1, self.in_features)
            dropped = F.dropout(flat, self.lora_dropout) if self.training and self.lora_dropout > 0 else None
            bias = self.bias if self.lora_magnitude is None else None
            y = LowRankLinear.apply(flat, dropped, self.weight, bias, *self.factors(), self.lora_scaling)
            if self.lora_magnitude is not None:  # DoRA: the norm is held constant in backward (section 4.3)
                y = y * (self.lora_magnitude / self.merged_direction().norm(dim=1)).to(y.dtype)
                y = y if self.bias is None else y + self.bias.to(y.dtype)
        return y.view(*x.shape[:-1], self.out_features)

    @torch.no_grad()
    def merged_direction(self):
        """W + s (AB)^T in fp32, (out, in)."""
        a, b = self.factors()
        return torch.addmm(dense(self.weight, torch.float32), b.t(), a.t(), alpha=self.lora_scaling)

    @torch.no_grad()
    def merge(self):
        """W becomes W + s (AB)^T (DoRA: with the learned norms); a second call changes nothing. The base's bits are
        kept.
        """
        if self.base_weight is not None:
            return
        merged = self.merged_direction()
        if self.lora_magnitude is not None:
            merged.mul_((self.lora_magnitude / merged.norm(dim=1))[:, None])
        if not torch.isfinite(merged).all():
            raise InputError("the adapter holds NaN or infinite numbers; it was not merged")
        self.base_weight = self.weight.data
        plain = self.base_weight.dtype if type(self.base_weight) is Tensor else self.lora_right_weight.dtype
        self.weight = nn.Parameter(merged.to(plain), requires_grad=False)

    def unmerge(self):
        """Puts the base weight back, the same bits as before `merge`."""
        if self.base_weight is not None:
            self.weight = nn.Parameter(self.base_weight, requires_grad=False)
            self.base_weight = None

    def plain_layer(self):
        """The layer as an nn.Linear or Conv1D, with the weight that is in place now (merged or not)."""
        weight = self.weight.data.t().contiguous() if self.is_conv1d else self.weight.data
        with torch.device("meta"):  # no memory, no random numbers: the tensors are set below
            layer = (
                Conv1D(self.out_features, self.in_features)
                if self.is_conv1d
                else nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
            )
        layer.weight = nn.Parameter(weight, requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.data, requires_grad=False)
        return layer

    def extra_repr(self):
        """What print(model) shows."""
        return f"in={self.in_features}, out={self.out_features}, rank={self.lora_dim}, scaling={self.lora_scaling:g}"


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The model's LoRA layers by their dotted name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """All layers that LoRA can adapt, by their dotted name: nn.Linear, Conv1D, and of their heirs those that compute
    nothing else (Llama 4's router does).
    """
    plain = (nn.Linear.forward, Conv1D.forward)
    return {name: module for name, module in model.named_modules() if getattr(type(module), "forward", None) in plain}


def names_layer(part: str, name: str) -> bool:
    r"""Whether a part of --lora_module_name names the layer: as one or several whole parts of its dotted name (* for
    any), or as a regular expression for the whole of it, as in PEFT.

    >>> [names_layer(part, "layers.1.attn.q_proj") for part in ("attn", "layers.*.q_proj", r".*\.1\..*proj", "proj")]
    [True, True, True, False]
    """
    words = part.strip(".").split(".")
    if all(re.fullmatch(r"[\w-]+|\*", word) for word in words):
        middle = r"\.".join(".*" if word == "*" else re.escape(word) for word in words)
        return bool(re.search(rf"(^|\.){middle}(\.|$)", name))
    try:
        return bool(re.fullmatch(part, name))
    except re.error as error:
        raise InputError(f"lora_module_name '{part}' is neither a name nor a regular expression ({error})") from None


def block_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers of the text model's blocks, which have a number in them: `h.3.mlp.c_fc`.

    So neither head nor embeddings nor a tower for images, and of Mamba's mixers none whose weight is read without
    calling the layer, on a GPU at least; PEFT refuses their out_proj.
    """
    mixers = [name for name, module in model.named_modules() if hasattr(module, "A_log") and hasattr(module, "D")]
    bypassed = {f"{mixer}.{layer}" for mixer in mixers for layer in ("dt_proj", "out_proj")}
    layers = {name: layer for name, layer in linear_layers(model).items()
              if re.search(r"\.\d+\.", name) and name not in bypassed}
    text = set(model.get_decoder().modules()) if hasattr(model, "get_decoder") else set()
    return [name for name, layer in layers.items() if layer in text] or list(layers)


def target_layers(model: nn.Module, pattern: str = "") -> list[str]:
    """Names of the layers to adapt.

    pattern "" takes block_layers; else those that one of its parts, separated by commas, names (names_layer). Raises
    InputError where a part matches nothing, listing what there is, and where the output head would be taken that shares
    its weight with the embedding.

    >>> target_layers(llama, "q_proj,v_proj")[:2]
    ['model.layers.0.self_attn.q_proj', 'model.layers.0.self_attn.v_proj']
    """
    layers = linear_layers(model)
    parts = [part.strip() for part in re.split(r",(?![^{]*\})", pattern) if part.strip()]  # not the one in \d{1,2}
    idle = [part for part in parts if not any(names_layer(part, name) for name in layers)]
    named = [name for name in layers if any(names_layer(part, name) for part in parts)]
    names = named if parts else block_layers(model)
    if idle or not names:
        kinds = sorted({re.sub(r"\.\d+\.", ".*.", name) for name in layers}) or ["(none: no Linear or Conv1D)"]
        found = ", ".join(kinds)
        raise InputError(f"lora_module_name '{','.join(idle)}' matches no linear layer; the model's are: {found}")
    embedding = model.get_input_embeddings().weight if hasattr(model, "get_input_embeddings") else None
    tied = [name for name in names if layers[name].weight is embedding]
    if tied:
        raise InputError(
            f"'{tied[0]}' shares its weight with the input embedding and cannot be adapted alone; "
            "name a narrower lora_module_name"
        )
    return names


def expert_weights(model: nn.Module) -> dict[str, Tensor]:
    """The blocks' weights of many experts in one tensor (experts, rows, columns), by name; LoRA does not reach them."""
    return {
        f"{name}.{key}": weight
        for name, module in model.named_modules()
        if not hasattr(module, "kernel_size")  # a convolution's weight has three dimensions as well
        for key, weight in module.named_parameters(recurse=False)
        if weight.ndim == 3 and re.search(r"\.\d+\.", f"{name}.{key}")
    }


def replace_module(model: nn.Module, name: str, new: nn.Module):
    """Sets the submodule with the dotted `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def convert_linear_layer_to_lora(
    model, part_module_name="", lora_dim=8, lora_scaling=16.0, lora_dropout=0.0, rslora=False, init="zero", dora=False
):
    """Replaces the layers that `target_layers(model, part_module_name)` names by LoRALinear, in place; returns the
    model.
    """
    for name in target_layers(model, part_module_name):
        layer = model.get_submodule(name)
        is_conv1d = isinstance(layer, Conv1D)
        weight = layer.weight.data.t() if is_conv1d else layer.weight.data  # (out, in)
        new = LoRALinear(weight, layer.bias, lora_dim, lora_scaling, lora_dropout, rslora, init, dora, is_conv1d)
        replace_module(model, name, new.train(layer.training))
    return model


def convert_lora_to_linear_layer(model):
    """The reverse: every LoRALinear becomes a plain layer again, merged if it was merged; returns the model."""
    for name, layer in lora_layers(model).items():
        replace_module(model, name, layer.plain_layer())
    return model


def only_optimize_lora_parameters(model):
    """Freezes everything but the adapters; returns the model."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return model


def get_lora_state_dict(model) -> dict[str, Tensor]:
    """Copies of the adapters' tensors by parameter name; alpha and rank are saved by adapter_files.py, beside them."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if "lora_" in name}


def merge_lora(model):
    """Merges every layer, or none if one of them holds a NaN (InputError)."""
    layers = lora_layers(model)
    for name, layer in layers.items():
        try:
            layer.merge()
        except InputError as error:
            unmerge_lora(model)
            raise InputError(f"{name}: {error}") from None
    return model


def unmerge_lora(model):
    """Puts every base weight back, exactly."""
    for layer in lora_layers(model).values():
        layer.unmerge()
    return model
