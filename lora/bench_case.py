"""One measurement of bench.py in a process of its own, so that its peak memory is its own; prints one line of JSON.

    python lora/bench_case.py <<< '{"what": "step", "variant": "peft", "precision": "bf16", "shape": "gpt2", "rank": 8,
                                    "batches": "fixed", "batch_size": 16, "length": 140, "labelled": 0.66,
                                    "repeats": 3, "device": "cpu", "threads": 2}'

what       step (training steps), gradients (ours against PEFT's), forms ((W+BA)x against Wx + B(Ax), one layer)
variant    peft; layer: ours in its place, the rest as PEFT has it; ours: everything this project has; full: the same
           without LoRA; full-hf: full fine-tuning as transformers has it
precision  fp32: PyTorch's defaults; fp32-fast: matmuls at "medium" on a CPU (oneDNN), "high" on a GPU (TF32);
           bf16: autocast over fp32 weights for PEFT; ours has a bf16 base, or (full) casts its weights once per pass;
           bf16-weights: PEFT over a bf16 base as well
batches    fixed: batch_size x length; random or bucketed: `examples`, (prompt tokens, all tokens) each, padded; packed:
           the batches of random laid end to end

Shapes: B rows, T positions, N tokens of a batch, R rank.
"""

import json
import resource
import sys
import time
from statistics import median

import torch
import transformers
from fused_head import CastLoss, labelled_loss
from fused_operations import fuse_operations
from instructions import Examples
from packed_attention import use_packed_attention
from packing import pack
from torch.nn import functional as F

from lora import LowRankLinear, convert_linear_layer_to_lora, lora_layers, only_optimize_lora_parameters

PEFT_TARGETS = {"gpt2": ["c_attn", "c_proj", "c_fc"], "tiny": ["c_attn", "c_proj", "c_fc"], "llama-1b": "all-linear"}
ALPHA = 16


def build_model(shape, dtype, device):
    """A model with random weights: "gpt2" (124M), "llama-1b" (Llama 3.2 1B), "tiny" (for tests); no dropout."""
    torch.manual_seed(0)
    if shape == "llama-1b":
        config = transformers.LlamaConfig(
            vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
            num_key_value_heads=8, max_position_embeddings=4096, rope_theta=500000.0, tie_word_embeddings=True)
    else:
        size = {"vocab_size": 1000, "n_embd": 64, "n_layer": 2, "n_head": 2} if shape == "tiny" else {}
        config = transformers.GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **size)
    torch.set_default_dtype(dtype)
    model = transformers.AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(torch.float32)
    model.config.use_cache = False
    return model.to(device).train()


def prepare(case, device):
    """The model of the case's variant, and its loss, a function (examples, indices) -> (sum or mean, labels or 1)."""
    variant, low = case["variant"], case["precision"].startswith("bf16")
    peft_like = variant in ("peft", "layer", "full-hf")
    bf16_weights = case["precision"] == "bf16-weights" or (low and variant == "ours")
    model = build_model(case["shape"], torch.bfloat16 if bf16_weights else torch.float32, device)
    if variant == "peft":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(
            r=case["rank"], lora_alpha=ALPHA, target_modules=PEFT_TARGETS[case["shape"]], task_type="CAUSAL_LM",
            fan_in_fan_out=case["shape"] != "llama-1b"))
    elif variant in ("layer", "ours"):
        convert_linear_layer_to_lora(model, lora_dim=case["rank"], lora_scaling=ALPHA)
        only_optimize_lora_parameters(model)
    autocast = torch.autocast(device, torch.bfloat16, enabled=low)
    if peft_like:
        def loss_of(examples, chosen):
            with autocast:
                return model(**padded(examples, chosen, device)).loss, 1
    else:
        use_packed_attention(fuse_operations(model))
        whole = CastLoss(model, torch.bfloat16)

        def loss_of(examples, chosen):
            batch = pack(examples, chosen, device)
            loss = whole.cast(batch) if low and variant == "full" else labelled_loss(model, batch)
            return loss, len(batch.targets)
    return model, loss_of


def padded(examples, chosen, device):
    """The chosen examples as transformers' collator makes them: ids, mask, labels (B, T), padded on the right."""
    longest = max(len(examples[i]) for i in chosen)
    ids, labels = torch.zeros(len(chosen), longest, dtype=torch.long), torch.full((len(chosen), longest), -100)
    mask = torch.zeros_like(ids)
    for row, i in enumerate(chosen):
        tokens, first = torch.from_numpy(examples[i]).long(), examples.first_label[i]
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        labels[row, first : len(tokens)] = tokens[first:]
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}


def batches_of(case):
    """(Examples, list of batches) in the lengths that the case asks for; token ids random unless it gives `tokens`."""
    import numpy as np

    vocabulary = 900 if case["shape"] == "tiny" else 50000
    if case["batches"] == "fixed":
        prompt = max(1, int(case["length"] * (1 - case["labelled"])))  # the first token has nothing that foretells it
        lengths = [(prompt, case["length"])] * case["batch_size"]
        batches = [list(range(case["batch_size"]))]
    else:
        lengths, batches = case["examples"], case[case["batches"] if case["batches"] != "packed" else "random"]
    random = np.random.default_rng(1).integers(1, vocabulary, sum(total for _, total in lengths))
    tokens = (np.array(case.get("tokens", random)) % vocabulary).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum([total for _, total in lengths])])
    return Examples(tokens, starts, np.array([prompt for prompt, _ in lengths])), batches


def clock(device):
    """Seconds, once the device has done what was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory(device):
    """Bytes: the GPU's peak, or the peak resident set of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_steps(case):
    """Medians over the repeats of the ms of forward, backward and step over all batches; peak bytes; first loss."""
    device = case["device"]
    model, loss_of = prepare(case, device)
    examples, batches = batches_of(case)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    shortest = [min(range(len(examples)), key=lambda i: len(examples[i]))]
    times, losses = [], []
    for repeat in range(case["repeats"] + 1):
        spent = [0.0, 0.0, 0.0]
        for chosen in batches if repeat or device == "cuda" else [shortest]:  # the first round warms up
            started = clock(device)
            loss, labels = loss_of(examples, chosen)
            loss = loss / labels
            forward = clock(device)
            loss.backward()
            backward = clock(device)
            if repeat:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            spent = [a + b for a, b in zip(spent, (forward - started, backward - forward, clock(device) - started),
                                           strict=True)]
            losses.append(loss.item())
        if repeat:
            times.append(spent)
    chosen = [i for batch in batches for i in batch]
    return {
        "forward_ms": 1e3 * median(t[0] for t in times),
        "backward_ms": 1e3 * median(t[1] for t in times),
        "step_ms": 1e3 * median(t[2] for t in times),
        "all_step_ms": [1e3 * t[2] for t in times],
        "tokens": sum(len(examples[i]) for i in chosen),
        "labels": sum(len(examples[i]) - int(examples.first_label[i]) for i in chosen),
        "positions": sum(len(b) * max(len(examples[i]) for i in b) for b in batches),
        "peak_bytes": peak_memory(device),
        "trainable": sum(p.numel() for p in parameters),
        "loss": losses[0 if device == "cuda" else 1],
    }


def compare_gradients(case):
    """Loss and gradients of PEFT's layers and of ours, B not zero, on a batch with padding (PEFT) and packed (ours)."""
    device = case["device"]
    examples, (chosen, *_) = batches_of(case)
    theirs, their_loss = prepare({**case, "variant": "peft"}, device)
    ours, our_loss = prepare({**case, "variant": "ours"}, device)
    torch.manual_seed(3)
    pairs = []
    for name, layer in lora_layers(ours).items():
        peft_layer = theirs.get_submodule("base_model.model." + name)
        a, b = peft_layer.lora_A["default"].weight, peft_layer.lora_B["default"].weight  # (R, in), (out, R)
        b.data.normal_(std=0.02)
        layer.lora_right_weight.data.copy_(a.data.t())
        layer.lora_left_weight.data.copy_(b.data.t())
        pairs += [(name + ".A", a, layer.lora_right_weight), (name + ".B", b, layer.lora_left_weight)]
    loss_a, labels_a = their_loss(examples, chosen)
    (loss_a / labels_a).backward()
    loss_b, labels_b = our_loss(examples, chosen)
    (loss_b / labels_b).backward()
    worst = max(pairs, key=lambda p: (p[1].grad.t() - p[2].grad).abs().max().item())
    return {
        "loss_peft": loss_a.item() / labels_a,
        "loss_ours": loss_b.item() / labels_b,
        "largest_difference": (worst[1].grad.t() - worst[2].grad).abs().max().item(),
        "largest_relative": max(((a.grad.t() - b.grad).norm() / a.grad.norm()).item() for _, a, b in pairs),
        "where": worst[0],
        "largest_gradient": max(a.grad.abs().max().item() for _, a, _ in pairs),
    }


class MergedLinear(torch.autograd.Function):
    """x (W + s (AB)^T)^T: the weight is formed anew, x and the formed weight are kept; gradients stay low-rank."""

    @staticmethod
    def forward(ctx, x, weight, right, left, scaling):
        """From x (N, in), weight (out, in), right (in, R), left (R, out) to (N, out)."""
        formed = torch.addmm(weight, left.t(), right.t(), alpha=scaling)
        ctx.save_for_backward(x, formed, right, left)
        ctx.scaling = scaling
        return x @ formed.t()

    @staticmethod
    def backward(ctx, g):
        """Gradients of x, right and left from g (N, out)."""
        x, formed, right, left = ctx.saved_tensors
        gb = g @ left.t()
        return g @ formed, None, (x.t() @ gb) * ctx.scaling, ((x @ right).t() @ g) * ctx.scaling, None


def layer_forms(weight):
    """{form: function of x (N, in), A (in, R), B (R, out)}; "autograd": as one writes it first, without a function."""
    return {
        "base": lambda x, a, b: F.linear(x, weight),
        "Wx + B(Ax)": lambda x, a, b: LowRankLinear.apply(x, None, weight, None, a, b, 2.0),
        "Wx + B(Ax), autograd": lambda x, a, b: F.linear(x, weight) + (x @ a) @ b * 2,
        "(W+BA)x": lambda x, a, b: MergedLinear.apply(x, weight, a, b, 2.0),
        "(W+BA)x, autograd": lambda x, a, b: F.linear(x, weight + 2 * (a @ b).t()),
    }


def compare_forms(case):
    """Times forward + backward of one layer (in -> out), in ms: each form, rank R and number of tokens N."""
    device, inputs, outputs = case["device"], case["in"], case["out"]
    dtype = torch.bfloat16 if case["precision"].startswith("bf16") else torch.float32
    weight = torch.randn(outputs, inputs, device=device, dtype=dtype) * 0.02

    forms, rows = layer_forms(weight), []
    for rank in case["ranks"]:
        for tokens in case["token_counts"]:
            x = torch.randn(tokens, inputs, device=device, dtype=dtype, requires_grad=True)
            g = torch.randn(tokens, outputs, device=device, dtype=dtype)
            a = torch.randn(inputs, rank, device=device, dtype=dtype).mul_(0.02).requires_grad_()
            b = torch.randn(rank, outputs, device=device, dtype=dtype).mul_(0.02).requires_grad_()
            times = {name: [] for name in forms}
            for repeat in range(case["repeats"] + 1):
                for name, form in forms.items():  # interleaved, so that a slow moment of the machine hits all alike
                    started = clock(device)
                    for _ in range(case["inner"]):
                        x.grad = a.grad = b.grad = None
                        form(x, a, b).backward(g)
                    if repeat:
                        times[name].append(1e3 * (clock(device) - started) / case["inner"])
            rows.append({"rank": rank, "tokens": tokens, **{name: median(t) for name, t in times.items()}})
    return {"rows": rows}


def main():
    """Runs the case on the command line."""
    case = json.load(sys.stdin)
    torch.set_num_threads(case["threads"])
    transformers.logging.set_verbosity_error()
    fast = "medium" if case["device"] == "cpu" else "high"
    torch.set_float32_matmul_precision(fast if case["precision"] == "fp32-fast" else "highest")
    measure = {"step": measure_steps, "gradients": compare_gradients, "forms": compare_forms}[case["what"]]
    print(json.dumps(measure(case)))


if __name__ == "__main__":
    main()
