"""The compiled loops of cpu_layers.py against PyTorch's own operators: results and gradients."""

import pytest
import torch
import torch.nn.functional as F
from cpu_layers import ActivatedLinear, Heads, Norm
from model import rotary_table, rotate

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def compare(function, reference, inputs, dtype):
    """Results and gradients of function(*inputs), whose first input is of dtype, against the reference's in fp32."""
    inputs[0] = inputs[0].to(dtype)
    ours, exact = ([x.detach().clone().requires_grad_() for x in inputs] for _ in range(2))
    results, expected = function(*ours), reference(exact[0].float(), *exact[1:])
    grads = [torch.randn(x.shape) for x in expected]
    torch.autograd.backward(results, [grad.to(dtype) for grad in grads])
    torch.autograd.backward(expected, [grad.to(dtype).float() for grad in grads])
    tolerance = 5e-6 if dtype == torch.float32 else 5e-3
    pairs = [*zip(results, expected, strict=True), *((a.grad, b.grad) for a, b in zip(ours, exact, strict=True))]
    for a, b in pairs:
        assert (a.float() - b.float()).norm() <= tolerance * b.float().norm()


@DTYPES
def test_rms_norm(dtype):
    compare(lambda x, gain: [Norm.apply(x, gain, None, 1e-5, False)],
            lambda x, gain: [F.rms_norm(x, (24,), gain, 1e-5)], [torch.randn(3, 50, 24), torch.rand(24) + 0.5], dtype)


@DTYPES
@pytest.mark.parametrize("biased", [True, False])
def test_layer_norm(dtype, biased):
    parameters = [torch.rand(24) + 0.5, torch.randn(24)][: 1 + biased]
    compare(lambda x, gain, bias=None: [Norm.apply(x, gain, bias, 1e-5, True)],
            lambda x, gain, bias=None: [F.layer_norm(x, (24,), gain, bias, 1e-5)],
            [3 + torch.randn(3, 50, 24), *parameters], dtype)


def swiglu(x):
    gate, up = x.chunk(2, -1)
    return F.silu(gate) * up


ACTIVATIONS = {"gelu": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "swiglu": swiglu,
               "relu2": lambda x: F.relu(x).square()}


@DTYPES
@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("biased", [True, False])
def test_activation_and_matrix(dtype, kind, biased):
    width = 24 if kind == "swiglu" else 48
    parameters = [torch.randn(10, width).to(dtype).float(), torch.randn(10)][: 1 + biased]

    def reference(x, weight, bias=None):
        y = ACTIVATIONS[kind](x)
        return [F.linear(y + (y.to(dtype) - y).detach(), weight, bias)]  # rounded on the way, as ours is

    compare(lambda x, weight, bias=None: [ActivatedLinear.apply(x, weight, bias, kind)], reference,
            [5 * torch.randn(3, 50, 48), *parameters], dtype)


@DTYPES
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_a_value_that_is_not_a_number_passes_the_activation(dtype, kind):
    x = torch.tensor([[1.0, 1.0], [float("nan"), 1.0]], dtype=dtype)
    y = ActivatedLinear.apply(x, torch.ones(1, 1 if kind == "swiglu" else 2), None, kind)
    assert y.isnan().tolist() == [[False], [True]]


@DTYPES
@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize("normalised", [True, False])
def test_heads_with_qk_norm_and_rotation(dtype, normalised, rotated):
    B, T, H, K, D = 3, 70, 4, 2, 6
    tables = rotary_table(T, D, 100.0) if rotated else (None, None)
    gains = [torch.rand(D) + 0.5, torch.rand(D) + 0.5] if normalised else []

    def ours(x, q_gain=None, k_gain=None):
        return Heads.apply(x, q_gain, k_gain, 1e-5, *tables, (H, K), D)

    def reference(x, q_gain=None, k_gain=None):
        q, k, v = (part.view(B, T, -1, D) for part in x.split([H * D, K * D, K * D], -1))
        if normalised:
            q, k = F.rms_norm(q, (D,), q_gain, 1e-5), F.rms_norm(k, (D,), k_gain, 1e-5)
        if rotated:
            q, k = rotate(q, *tables), rotate(k, *tables)
        return [part.transpose(1, 2) for part in (q, k, v)]

    compare(ours, reference, [torch.randn(B, T, (H + 2 * K) * D), *gains], dtype)


def test_sums_do_not_depend_on_the_number_of_threads():
    x, gain = torch.randn(3, 300, 24), torch.rand(24, requires_grad=True)
    grads, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        grads += torch.autograd.grad(Norm.apply(x, gain, None, 1e-5, False).square().sum(), gain)
    torch.set_num_threads(before)
    assert torch.equal(*grads)


def test_gains_and_tables_in_bfloat16():
    """As FSDP hands them to the layers."""
    x, gain = torch.randn(2, 70, 48).bfloat16(), (torch.rand(6) + 0.5).bfloat16()
    tables = [table.bfloat16() for table in rotary_table(70, 6, 100.0)]
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        own = gain.to(dtype, copy=True).requires_grad_()
        y = Norm.apply(x.unflatten(-1, (8, 6)), own, None, 1e-5, False).flatten(-2)
        q, k, _ = Heads.apply(y, own, own, 1e-5, *(table.to(dtype) for table in tables), (4, 2), 6)
        (q.float().square().sum() + k.float().sum()).backward()
        assert own.grad.dtype == dtype
        results.append((q, k, own.grad.float()))
    for a, b in zip(*results, strict=True):
        assert (a - b).float().norm() <= 1e-2 * b.float().norm()
