"""Tensors that FSDP2 has split over the processes: PyTorch's DTensor, known by what it has.

Its module, and that of checkpoints in parts, take seconds to import: only runs that need them do.
"""

import torch


def is_split(x: torch.Tensor) -> bool:
    """Whether each process holds a part of x only."""
    return hasattr(x, "placements")


def whole(x: torch.Tensor) -> torch.Tensor:
    """All of x, in every process."""
    return x.full_tensor() if is_split(x) else x


def split_like(p: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A whole tensor, split over the processes where p, of its shape, is."""
    if is_split(p) and not is_split(value) and value.shape == p.shape:
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value.to(p.device), p.device_mesh, p.placements, src_data_rank=None)
    return value


def local(x: torch.Tensor) -> torch.Tensor:
    """What this process holds of x."""
    return x.to_local() if is_split(x) else x


def zeros_like_rows(p: torch.Tensor, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Zeros of p's rows but so many columns, split over the processes as p is."""
    if is_split(p):
        from torch.distributed.tensor import zeros

        return zeros(len(p), columns, dtype=dtype, device_mesh=p.device_mesh, placements=p.placements)
    return torch.zeros(len(p), columns, dtype=dtype, device=p.device)
