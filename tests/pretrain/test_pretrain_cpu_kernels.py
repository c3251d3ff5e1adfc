"""The product of a matrix and a vector against float64."""

import pytest
import torch
from cpu_kernels import matrix_vector


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrix_vector(dtype):
    weight, x = torch.randn(70, 45).to(dtype), torch.randn(45).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(matrix_vector(weight, x).double(), weight.double() @ x.double(), atol=tolerance,
                               rtol=tolerance)
