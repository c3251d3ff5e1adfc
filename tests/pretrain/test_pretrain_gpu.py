"""What only a GPU can show; skipped without one. pretrain/gpu_check.py runs these first."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attention import attention, document_starts, plain_attention, visible_from
from loss import linear_cross_entropy
from model import GPT
from presets import GPTConfig

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
ROOT = Path(__file__).parents[2]
LLAMA = {"norm": "rmsnorm", "position": "rope", "mlp": "swiglu", "bias": False, "qk_norm": True, "n_kv_head": 2}
SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 128, "block_size": 128, "vocab_size": 1000}


def model_on(device, dtype=torch.float32, **switches):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**SMALL | switches), dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return model.to(device)


@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_the_formula(heads, masked):
    torch.manual_seed(0)
    q = torch.randn(2, 4, 256, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    k, v = (torch.randn(2, heads, 256, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in "kv")
    mask = visible_from(document_starts(torch.randint(20, (2, 256), device="cuda"), 0)) if masked else None
    upstream = torch.randn(2, 4, 256, 64, device="cuda", dtype=torch.bfloat16)
    ours, exact = attention(q, k, v, mask), plain_attention(q.float(), k.float(), v.float(), mask)
    assert torch.allclose(ours.float(), exact, atol=0.03)
    for a, b in zip(torch.autograd.grad(ours, (q, k, v), upstream),
                    torch.autograd.grad(exact, (q, k, v), upstream.float()), strict=True):
        assert F.cosine_similarity(a.float().flatten(), b.float().flatten(), dim=0) > 0.999


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_equal_full_logits(dtype):
    torch.manual_seed(0)
    x = (torch.randn(1500, 128, device="cuda") * 0.5).to(dtype).requires_grad_()
    weight = (torch.randn(1024, 128, device="cuda") * 0.1).requires_grad_()
    targets = torch.randint(1000, (1500,), device="cuda")
    loss = linear_cross_entropy(x, weight, targets, 1000, 1e-3)
    logits = x.float() @ weight[:1000].T
    cross_entropy = F.cross_entropy(logits, targets)  # the value; the gradient is also that of the z-loss
    assert torch.allclose(loss, cross_entropy, rtol=1e-3 if dtype == torch.bfloat16 else 1e-5)
    expected = cross_entropy + 1e-3 * logits.logsumexp(1).square().mean()
    for a, b in zip(torch.autograd.grad(loss, (x, weight)), torch.autograd.grad(expected, (x, weight)), strict=True):
        assert F.cosine_similarity(a.float().flatten(), b.float().flatten(), dim=0) > 0.999


@pytest.mark.parametrize("switches", [{}, LLAMA], ids=["gpt2", "llama"])
def test_model_equals_the_cpu(switches):
    tokens = torch.randint(1000, (4, 128))
    torch.set_float32_matmul_precision("highest")
    expected, ours = model_on("cpu", **switches)(tokens), model_on("cuda", **switches)(tokens.cuda()).cpu()
    assert torch.allclose(ours, expected, atol=1e-3)
    half = model_on("cuda", torch.bfloat16, **switches)(tokens.cuda()).float().cpu()
    assert F.cosine_similarity(half.flatten(), expected.flatten(), dim=0) > 0.998


@pytest.mark.parametrize("documents", [False, True])
def test_compiled_step_equals_eager(documents):
    tokens = torch.randint(20, (4, 129), device="cuda")
    losses = []
    for compiled in (False, True):
        model = model_on("cuda", torch.bfloat16, **LLAMA, document_mask=documents, end_of_text=0)
        if compiled:
            model.compile_blocks()
        loss = model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        losses.append((float(loss), float(norm)))
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("switches", [{}, LLAMA], ids=["gpt2", "llama"])
def test_generation_equals_the_cpu(switches):
    from sample import generate

    torch.set_float32_matmul_precision("highest")
    prompts = [[5, 6, 7], [1], [9, 8, 7, 6, 5]]
    expected = generate(model_on("cpu", **switches), prompts, 40, temperature=0)
    assert generate(model_on("cuda", **switches), prompts, 40, temperature=0) == expected
    assert len(generate(model_on("cuda", torch.bfloat16, **switches), prompts, 5)[0]) == 5  # draws on the device


def test_choices_equal_the_cpu():
    from hellaswag import score

    generator = np.random.default_rng(0)
    sequences = [(tuple(generator.integers(0, 1000, 1 + i % 50)), tuple(generator.integers(0, 1000, 1 + i % 7)))
                 for i in range(64)]
    torch.set_float32_matmul_precision("highest")
    on_cpu = score(model_on("cpu"), sequences, "cpu", 0, 1)
    assert torch.allclose(score(model_on("cuda"), sequences, "cuda", 0, 1).cpu(), on_cpu, atol=1e-2)


@pytest.mark.parametrize("columns", [256, 192])
def test_adamw_in_8_bits_equals_the_cpu_s(columns):
    import eight_bits

    torch.manual_seed(0)
    there, here = torch.randn(64, columns), []
    for device in ("cpu", "cuda"):
        p = there.to(device)
        here.append((p, {"step": torch.zeros((), device=device),
                         **eight_bits.slots(p, exp_avg=torch.int8, exp_avg_sq=torch.uint8)}))
    for _ in range(3):
        gradient = torch.randn(64, columns)
        for p, state in here:
            eight_bits.adamw(p, gradient.to(p.device), state, 0.01, 0.9, 0.95, 1e-8, 0.1)
    (ours, state), (p, other) = here
    assert torch.allclose(ours, p.cpu(), atol=1e-3)
    for name in ("exp_avg", "exp_avg_sq"):
        assert ((state[name].int() - other[name].cpu().int()) != 0).float().mean() < 1e-3


@pytest.mark.parametrize("bits", [32, 8])
def test_memory_is_as_accounted(bits):
    """GPT-2's shape at 6 layers; the allocator's peak within 15% of the count."""
    from account import measure, memory

    config = GPTConfig(n_layer=6)
    measured = measure(config, 8, 1024, "adamw", "bfloat16", bits)["bytes"]
    assert sum(memory(config, 8, 1024, "adamw", "bfloat16", bits).values()) == pytest.approx(measured, rel=0.15)


def run(out, data, *flags):
    command = [sys.executable, ROOT / "pretrain" / "model.py", "--preset", "stories", "--data", data, "--out", out,
               "--n_layer", "2", "--n_embd", "64", "--n_head", "2", "--block_size", "64", "--total_batch", "512",
               "--micro_batch", "8", "--prompt", "", "--max_steps", "20", "--save_every", "10", *flags]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.fixture
def shards(tmp_path):
    """A text of one repeated pattern, so that the loss must fall."""
    import hashlib

    folder = tmp_path / "tokens"
    folder.mkdir()
    entries = {}
    for name, count in (("train", 40_000), ("val", 2_000)):
        np.save(folder / f"{name}_000000.npy", (np.arange(count) * 7 % 90 + 1).astype(np.uint16))
        digest = hashlib.sha256((folder / f"{name}_000000.npy").read_bytes()).hexdigest()
        entries[name] = [{"file": f"{name}_000000.npy", "tokens": count, "bytes": count, "sha256": digest}]
    (folder / "manifest.json").write_text(json.dumps({
        "format": 1, "dtype": "uint16", "vocab_size": 100, "end_of_text": 0, "tokenizer": "none",
        "tokenizer_sha256": "0" * 64, "shards": entries}))
    return folder


def test_training_and_resume(shards, tmp_path):
    """The loss falls, is that of the CPU within bf16's accuracy, and a resumed run continues it within 1e-2."""
    import shutil

    whole = run(tmp_path / "whole", shards, "--device", "cuda")
    assert whole[20] < whole[1] - 0.5
    on_cpu = run(tmp_path / "cpu", shards, "--device", "cpu", "--dtype", "float32")
    assert whole[1] == pytest.approx(on_cpu[1], rel=1e-2)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step_00000020")
    again = run(tmp_path / "again", shards, "--device", "cuda")
    assert [again[step] for step in range(11, 21)] == pytest.approx([whole[step] for step in range(11, 21)], rel=1e-2)
