"""The products of the CPU's decoder against float64; the rest of it is tested in test_pretrain_sample.py."""

import pytest
import torch
from cpu_decoder import CPUDecoder, tensor
from cpu_kernels import array


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("made_for", "rows"), [(1, 1), (1, 6), (3, 3), (3, 7)])
def test_products(made_for, rows, biased, dtype):
    weight, x = torch.randn(70, 45).to(dtype), torch.randn(rows, 45).to(dtype)
    bias = torch.randn(70).to(dtype) if biased else None
    expected = x.double() @ weight.double().T + (bias.double() if biased else 0)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    ours = tensor(CPUDecoder.product(weight, bias, made_for)(array(x)))
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.double(), expected, atol=tolerance, rtol=tolerance)
