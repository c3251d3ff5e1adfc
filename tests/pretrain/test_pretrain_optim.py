"""Schedules, parameter groups, and Muon against a plain version and an exact orthogonalisation."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from model import GPT
from optim import AdamW, Muon, learning_rate_scale, make_optimizers, orthogonalise
from presets import Settings
from pretrain_tiny import tiny_model


def scale(progress, **changes):
    values = {"schedule": "cosine", "warmup": 0.1, "min_lr": 0.1, "decay": 0.4}
    return learning_rate_scale(progress, SimpleNamespace(**{**values, **changes}))


def test_schedules():
    assert scale(0.05) == pytest.approx(0.5)  # half of the warm-up
    assert scale(0.1) == pytest.approx(1.0)
    assert scale(0.55) == pytest.approx(0.1 + 0.9 * 0.5)
    assert scale(1.0) == pytest.approx(0.1)
    assert scale(0.55, schedule="linear") == pytest.approx(0.1 + 0.9 * 0.5)
    assert scale(0.325, schedule="linear") == pytest.approx(0.1 + 0.9 * 0.75)
    assert scale(0.6, schedule="wsd") == pytest.approx(1.0)
    assert scale(0.8, schedule="wsd", min_lr=0.0) == pytest.approx(0.5)
    assert scale(1.0, schedule="wsd", min_lr=0.0) == pytest.approx(0.0)
    assert scale(0.0, warmup=0.0) == 1.0


def test_groups_cover_every_parameter_once_and_decay_matrices_only():
    model = GPT(tiny_model(vocab_size=61, norm="layernorm", bias=True))
    for optimizer in ("adamw", "muon"):
        made = make_optimizers(model, Settings(optimizer=optimizer, weight_decay=0.3))
        groups = [group for o in made for group in o.param_groups]
        listed = [p for group in groups for p in group["params"]]
        assert len(listed) == len(set(listed)) == len(list(model.parameters()))
        for group in groups:
            assert all((p.dim() >= 2) == (group["weight_decay"] == 0.3) for p in group["params"])
    matrices = made[1].param_groups[0]["params"]
    assert len(matrices) == 4 * model.config.n_layer  # c_attn, c_proj, c_fc, c_proj
    assert model.lm_head.weight not in set(matrices)


def test_adamw_equals_pytorch_s():
    generator = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((5, 7), (7,))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    decays = (0.1, 0.0)
    one = AdamW([{"params": [p], "weight_decay": decay} for p, decay in zip(ours, decays, strict=True)], 0.1, 0.9, 0.95)
    other = torch.optim.AdamW([{"params": [p], "weight_decay": decay} for p, decay in zip(theirs, decays, strict=True)],
                              0.1, (0.9, 0.95))
    for lr in (0.1, 0.03, 0.2):
        for optimizer in (one, other):
            for group in optimizer.param_groups:
                group["lr"] = lr
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        one.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q)


def test_a_training_process_leaves_torch_compile_out():
    """Its import takes a second and 70 MB; a CPU's run has no use for it."""
    code = ("import sys, torch; from model import GPT; from optim import make_optimizers; from presets import *; "
            "s = Settings(optimizer='muon'); "
            "m = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, vocab_size=61, mlp='swiglu', bias=False)); "
            "o = make_optimizers(m, s); x = torch.ones(1, 8, dtype=torch.long); m(x, x).backward(); "
            "[one.step() for one in o]; m.zero_grad(); assert 'torch._dynamo' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2] / "pretrain", check=True)


@pytest.mark.parametrize("shape", [(16, 16), (16, 48), (48, 16)])
def test_orthogonalise_against_the_singular_value_decomposition(shape):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    y = orthogonalise(x, torch.float32)
    values = torch.linalg.svdvals(y)
    assert values.min() > 0.3
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(y.flatten(1), (u @ v).flatten(1)).min() > 0.95


def test_muon_treats_stacked_matrices_one_by_one():
    generator = torch.Generator().manual_seed(0)
    stacked = torch.nn.Parameter(torch.randn(24, 8, generator=generator))
    alone = [torch.nn.Parameter(part.clone()) for part in stacked.detach().split([16, 8])]
    together = Muon({stacked: [16, 8]}, 0.1, 0.9, 0.01, torch.float32)
    apart = Muon({p: [len(p)] for p in alone}, 0.1, 0.9, 0.01, torch.float32)
    momentum = torch.zeros(24, 8)
    expected = stacked.detach().clone()
    for _ in range(3):
        grad = torch.randn(24, 8, generator=generator)
        stacked.grad = grad.clone()
        for p, part in zip(alone, grad.split([16, 8]), strict=True):
            p.grad = part.clone()
        together.step()
        apart.step()
        momentum = 0.9 * momentum + 0.1 * grad
        update = 0.1 * grad + 0.9 * momentum
        expected *= 1 - 0.1 * 0.01
        for rows in (slice(0, 16), slice(16, 24)):
            factor = max(1, len(update[rows]) / 8) ** 0.5
            expected[rows] -= 0.1 * factor * orthogonalise(update[rows][None], torch.float32)[0]
    torch.testing.assert_close(stacked.data, torch.cat([p.data for p in alone]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(stacked.data, expected, atol=1e-5, rtol=1e-4)
