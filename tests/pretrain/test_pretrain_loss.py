"""Head and cross-entropy in one against PyTorch's own, value and gradients."""

import re

import loss as module
import pytest
import torch
import torch.nn.functional as F
from loss import cross_entropy_, fused_cross_entropy_, linear_cross_entropy


def reference(x, w, targets, vocabulary, z_loss):
    logits = (x.float() @ w.to(x.dtype).float().T)[:, :vocabulary]
    value = F.cross_entropy(logits, targets, ignore_index=-1)
    z = logits.logsumexp(1)[targets >= 0].square().mean()
    return value, value + z_loss * z


@pytest.mark.parametrize(("chunk", "rows"), [(2**27, 2**12), (2**13, 50)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_value_and_gradients(monkeypatch, dtype, chunk, rows, z_loss):
    monkeypatch.setitem(module.LOGITS, "cpu", chunk)
    monkeypatch.setitem(module.ROWS, "cpu", rows)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(57, 24, generator=generator).to(dtype).requires_grad_()
    w = torch.randn(128, 24, generator=generator).requires_grad_()
    targets = torch.randint(-1, 101, (57,), generator=generator)
    value = linear_cross_entropy(x, w, targets, 101, z_loss)
    (3 * value).backward()
    ours = x.grad, w.grad
    x.grad = w.grad = None
    expected, objective = reference(x, w, targets, 101, z_loss)
    (3 * objective).backward()
    tolerance = 1e-5 if dtype == torch.float32 else 0.015
    assert value.item() == pytest.approx(expected.item(), rel=1e-6 if dtype == torch.float32 else 2e-3)
    assert value.dtype == torch.float32
    for ours_, exact in zip(ours, (x.grad, w.grad), strict=True):
        assert ours_.dtype == exact.dtype
        assert (ours_.float() - exact.float()).norm() <= tolerance * exact.float().norm()
    assert (ours[1][101:] == 0).all()


def test_extreme_logits_and_no_target():
    x = torch.tensor([[300.0, 0.0], [-300.0, 0.0]]).requires_grad_()
    w = torch.eye(2).requires_grad_()
    value = linear_cross_entropy(x, w, torch.tensor([0, 0]), 2)
    value.backward()
    assert value.item() == pytest.approx(150.0)
    assert torch.isfinite(x.grad).all()
    nothing = linear_cross_entropy(x, w, torch.tensor([-1, -1]), 2)
    assert nothing.item() == 0


def test_a_value_that_is_not_a_number_stays_one():
    x = torch.tensor([[float("nan"), 0.0]])
    assert not torch.isfinite(linear_cross_entropy(x, torch.eye(2), torch.tensor([0]), 2))
    x = torch.tensor([[float("inf"), 0.0]]).bfloat16()
    assert not torch.isfinite(linear_cross_entropy(x, torch.eye(2), torch.tensor([1]), 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_greatest_of_a_row_is_found_among_numbers_of_any_sign(dtype):
    from cpu_kernels import array, greatest

    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(300, generator=generator).to(dtype) * 10.0**exponent for exponent in range(-30, 31, 3)]
    rows += [-row.abs() for row in rows] + [torch.tensor([float("-inf"), -3e-40, -1e38, -0.0]).to(dtype)]
    for row in rows:
        for count in (1, 2, 3, len(row)):
            assert greatest(array(row), count) == row[:count].max()


def test_validation_computes_no_gradient(monkeypatch):
    """Nor of a head of its own, which requires one everywhere."""
    asked = []

    def spy(logits, targets, shares, vocab_size, z_loss, gradient):
        asked.append(gradient)
        return cross_entropy_(logits, targets, shares, vocab_size, z_loss, gradient)

    monkeypatch.setattr(module, "chunk_function", lambda device: spy)
    x, w, targets = torch.randn(3, 4), torch.randn(8, 4).requires_grad_(), torch.tensor([0, 6, 2])
    values = [linear_cross_entropy(x, w, targets, 7)]
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            values.append(linear_cross_entropy(x, w, targets, 7))
    assert asked == [True, False, False]
    assert values[0] == values[1] == values[2]


def test_gradcheck_against_finite_differences():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    w, targets = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 6, 2, -1, 4])
    linear_cross_entropy(x, w, targets, 7).backward()
    for i, j in ((0, 0), (2, 1), (4, 2)):
        up, down = x.detach().clone(), x.detach().clone()
        up[i, j] += 0.01
        down[i, j] -= 0.01
        slope = (linear_cross_entropy(up, w, targets, 7) - linear_cross_entropy(down, w, targets, 7)) / 0.02
        assert x.grad[i, j].item() == pytest.approx(slope.item(), abs=2e-4)
    assert (x.grad[3] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_loop_equals_the_formula_in_pytorch(dtype):
    from cpu_kernels import cross_entropy_ as loop

    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(1040, 9, generator=generator)).to(dtype).T  # more than one part, the last not whole
    targets, shares = torch.randint(1037, (9,), generator=generator), torch.rand(9, generator=generator)
    a, b = logits.clone(), logits.clone()
    torch.testing.assert_close(loop(a, targets, shares, 1037, 0.01, True),
                               cross_entropy_(b, targets, shares, 1037, 0.01, True), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5 if dtype == torch.float32 else 2e-2)
    c = logits.clone()
    loop(c, targets, shares, 1037, 0.01, False)
    assert torch.equal(c, logits)


@pytest.mark.slow
def test_the_gpu_form_compiles_once_for_all_numbers_of_positions():
    from torch._dynamo.utils import counters

    counters.clear()
    for N in (9, 30, 7):
        logits, targets, shares = torch.randn(N, 40), torch.randint(37, (N,)), torch.rand(N)
        a, b = logits.clone(), logits.clone()
        torch.testing.assert_close(fused_cross_entropy_(a, targets, shares, 37, 0.01, True),
                                   cross_entropy_(b, targets, shares, 37, 0.01, True))
        torch.testing.assert_close(a, b)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_the_gpu_form_makes_no_second_chunk():
    """In the code that inductor writes, the chunk of logits is the only array of two dimensions."""
    from torch._inductor.utils import run_and_get_code

    logits, targets, shares = torch.randn(90, 400).bfloat16(), torch.randint(370, (90,)), torch.rand(90)
    _, code = run_and_get_code(torch.compile(cross_entropy_), logits, targets, shares, 370, 0.01, True)
    buffers = re.findall(r"= empty_strided\w*\(\(([^)]*)\)", "".join(code))
    assert buffers
    assert all("370" not in shape and "400" not in shape for shape in buffers), buffers
