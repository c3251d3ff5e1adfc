"""Running means in 8 bits: codes, chances, AdamW and Muon beside their 32-bit selves, checkpoints of them."""

import dataclasses
import shutil

import eight_bits
import pytest
import safetensors.torch
import torch
from model import GPT
from optim import AdamW, Muon, make_optimizers
from presets import Settings
from pretrain_tiny import checkpoint_bytes, make_shards, metrics, run, start, tiny_model, tiny_settings


def codes(n, size):
    return torch.zeros(n, size, dtype=torch.int8), torch.zeros(n, size, dtype=torch.uint8), torch.zeros(n, 1)


def test_a_row_is_cut_into_equal_blocks():
    assert [eight_bits.block_size(c) for c in (768, 192, 1600, 3072, 64, 61, 257)] == [256, 192, 200, 256, 64, 61, 257]


def test_what_is_stored_is_right_on_average():
    generator = torch.Generator().manual_seed(0)
    m = torch.randn(4, 64, generator=generator) * torch.logspace(-3, 0, 64)
    v = m.square()
    mean, square, scale = codes(4, 64)
    sums, squares = torch.zeros(4, 64), torch.zeros(4, 64)
    for step in range(1, 2001):
        chances = eight_bits.hashed(m.shape, torch.tensor(float(step)))
        eight_bits.encode_mean_(m, chances & 0xFFFF, mean, scale)
        sums += eight_bits.decoded_mean(mean, scale)
        eight_bits.encode_square_(v, (chances >> 16) & 0xFFFF, square, scale)
        squares += eight_bits.decoded_square(square, scale)
    # a step near the greatest is 1.6% of it, far below more; the mean of 2,000 is 45 times as exact as one
    great = m.abs() > 0.01 * m.abs().amax(1, keepdim=True)
    assert ((sums / 2000 - m) / m).abs()[great].max() < 0.01
    assert ((squares / 2000 - v) / v).abs()[great].max() < 0.01
    assert (sums / 2000 - m).abs().max() < 1e-3


def test_codes_that_stand_are_not_rounded_again():
    mean = torch.randint(-127, 128, (3, 32), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    mean[:, 0] = 127
    again, _, scale = codes(3, 32)
    for factor in (1.0, 0.9, 1e-6):
        eight_bits.encode_mean_(eight_bits.decoded_mean(mean, torch.full((3, 1), factor)),
                                torch.full((3, 32), 0x8000), again, scale)
        assert torch.equal(again, mean)


def test_a_mean_square_is_zero_only_where_its_block_is():
    _, square, scale = codes(2, 8)
    v = torch.zeros(2, 8)
    v[0, 0], v[0, 1] = 1.0, 1e-20
    eight_bits.encode_square_(v, torch.full((2, 8), 0xFFFF), square, scale)
    assert square[0].min() == 1
    assert square[1].max() == 0
    assert torch.isfinite(eight_bits.decoded_square(square, scale)).all()


@pytest.mark.parametrize("shape", [(40, 768), (7, 192), (130, 61), (3, 600)])
def test_the_cpu_s_loop_equals_the_operators(shape):
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(*shape, generator=generator)
    theirs = ours.clone()
    state = {"step": torch.zeros(()), **eight_bits.slots(ours, exp_avg=torch.int8, exp_avg_sq=torch.uint8)}
    reference = {name: slot.clone() for name, slot in state.items()}
    for _ in range(5):
        gradient = torch.randn(*shape, generator=generator) * torch.rand(shape[1], generator=generator) ** 4
        gradient[0] = 0
        eight_bits.adamw(ours, gradient, state, 0.01, 0.9, 0.99, 1e-8, 0.1)
        reference["step"] += 1
        names = ("exp_avg", "exp_avg_scale", "exp_avg_sq", "exp_avg_sq_scale")
        tensors = eight_bits.blocks(theirs, theirs, gradient, *(reference[name] for name in names))
        eight_bits.adamw_(*tensors, reference["step"], torch.tensor(0.01), 0.9, 0.99, 1e-8, 0.1)
    assert torch.isfinite(ours).all()
    for name in ("exp_avg", "exp_avg_sq"):  # sums that round differently tip a chance now and then
        apart = (state[name].int() - reference[name].int()).abs()
        assert apart.max() <= 1
        assert (apart > 0).float().mean() < 1e-3
    assert (ours - theirs).abs().max() < 2e-3


def test_without_memory_a_step_has_the_gradient_s_sign_and_no_size():
    """beta1 = beta2 = 0: of a gradient ten million times as large nothing may be left."""
    p = torch.zeros(4, 64)
    state = {"step": torch.zeros(()), **eight_bits.slots(p, exp_avg=torch.int8, exp_avg_sq=torch.uint8)}
    for size in (1e4, -1e-3):
        before = p.clone()
        eight_bits.adamw(p, size * (1 + torch.rand(4, 64, generator=torch.Generator().manual_seed(0))), state, 0.01,
                         0.0, 0.0, 1e-8, 0.0)
        torch.testing.assert_close(p - before, torch.full((4, 64), -0.01 if size > 0 else 0.01), atol=1e-6, rtol=1e-4)


def test_adamw_follows_its_32_bit_self():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(64, 256, generator=generator)
    pair = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    optimizers = [AdamW([{"params": [p], "weight_decay": 0.1}], 0.01, 0.9, 0.95, bits=bits)
                  for p, bits in zip(pair, (8, 32), strict=True)]
    target = torch.randn(64, 256, generator=generator)
    for _ in range(100):
        noise = torch.randn(64, 256, generator=generator)
        for p, optimizer in zip(pair, optimizers, strict=True):
            p.grad = p.detach() - target + noise
            optimizer.step()
    moved = [p.detach() - start for p in pair]
    assert (moved[0] - moved[1]).norm() < 0.03 * moved[1].norm()


def test_muon_follows_its_32_bit_self():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(48, 32, generator=generator)
    pair = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    optimizers = [Muon({p: [16, 32]}, 0.02, 0.9, 0.1, torch.float32, bits)
                  for p, bits in zip(pair, (8, 32), strict=True)]
    for _ in range(50):
        gradient = torch.randn(48, 32, generator=generator) + torch.linspace(-1, 1, 32)
        for p, optimizer in zip(pair, optimizers, strict=True):
            p.grad = gradient.clone()
            optimizer.step()
    moved = [p.detach() - start for p in pair]
    assert (moved[0] - moved[1]).norm() < 0.05 * moved[1].norm()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_quarter_of_the_memory(optimizer):
    model = GPT(tiny_model(vocab_size=4096, n_embd=256))
    held = {bits: sum(slot.nbytes for one in make_optimizers(model, Settings(optimizer=optimizer, optimizer_bits=bits))
                      for state in one.state.values() for slot in state.values()) for bits in (32, 8)}
    assert held[8] < 0.27 * held[32]


@pytest.mark.parametrize(("optimizer", "processes"), [("adamw", 1), ("muon", 1), ("muon", 2)])
def test_a_run_that_lost_its_last_checkpoint_comes_to_the_same_bits(tmp_path, optimizer, processes):
    settings = tiny_settings(make_shards(tmp_path / "data"), tmp_path / "run", optimizer=optimizer, optimizer_bits=8,
                             fsdp=processes > 1)
    run(settings, processes)
    losses, tensors = metrics(settings.out), newest_tensors(settings.out)
    shutil.rmtree(settings.out / "checkpoints" / "step_00000010")
    run(settings, processes)
    assert metrics(settings.out) == losses
    assert newest_tensors(settings.out) == tensors


def newest_tensors(out):
    return {(file, name): tensor.numpy().tobytes() for file, content in checkpoint_bytes(out).items()
            for name, tensor in safetensors.torch.load(content).items()}


def test_a_run_under_fsdp_has_the_losses_of_one_process(tmp_path):
    data = make_shards(tmp_path / "data")
    alone, split = (tiny_settings(data, tmp_path / str(n), optimizer_bits=8, fsdp=n > 1) for n in (1, 2))
    run(alone)
    run(split, 2)
    assert metrics(split.out) == pytest.approx(metrics(alone.out), rel=1e-3)


def test_other_bits_at_resume_are_refused(tmp_path):
    settings = tiny_settings(make_shards(tmp_path / "data"), tmp_path / "run", max_steps=4)
    run(settings)
    process = start(dataclasses.replace(settings, max_steps=8, optimizer_bits=8))
    assert "optimizer_bits: 32 -> 8" in process.communicate(timeout=60)[1]
    assert process.returncode == 2
    state = settings.out / "checkpoints" / "step_00000004" / "state.json"
    state.write_text(state.read_text().replace('"optimizer_bits": 32, ', ""))  # as earlier code wrote it
    run(dataclasses.replace(settings, max_steps=8))
    assert max(metrics(settings.out)) == 8
