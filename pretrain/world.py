"""The processes of a run, as torchrun starts them, and the machine under them."""

import datetime
import fcntl
import gc
import inspect
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group: its functions' defaults would keep the group for ever
from malloc import keep_freed_memory
from presets import InputError
from torch.nn.parallel import DistributedDataParallel

# Peak dense bf16 matmul rates of the makers' data sheets, TFLOP/s (V100: fp16).
PEAK_TFLOPS = {"H200": 989, "GH200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "A100": 312, "L40S": 362,
               "L4": 121, "A10": 125, "RTX 4090": 165, "RTX 3090": 71, "V100": 125}


STOPPING = signal.SIGTERM, signal.SIGINT  # if the processes receive both, the first counts


class Stopped(Exception):  # noqa: N818 (no error)
    """A signal, `number`, stops the run."""

    def __init__(self, number: int):
        super().__init__(f"stopped by signal {number}")
        self.number = number


class World:
    """One process among the others: rank, number, device, dtype. Without torchrun it is a world of size 1."""

    def __init__(self, device: str, dtype: str, threads: int, timeout: float):
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        local_rank, local_size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise InputError(f"--device {device} is none of auto, cpu, cuda and cuda:NUMBER")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(f"--device {device}: PyTorch sees no CUDA device here; use --device cpu")
        if device == "cuda":
            if local_rank >= torch.cuda.device_count():
                raise InputError(f"{local_size} processes per node are more than its {torch.cuda.device_count()} GPUs")
            device = f"cuda:{local_rank}"
        self.device, self.received = torch.device(device), set()
        self.dtype = choose_dtype(dtype, self.device)
        if self.device.type == "cuda":
            gpus = torch.cuda.device_count()
            if self.device.index >= gpus:
                raise InputError(f"--device {device}: PyTorch sees {gpus} GPUs, the first is cuda:0")
            if self.device.index != local_rank and self.size > 1:
                raise InputError(f"--device {device}: one for {self.size} processes; --device cuda gives each its own")
            torch.cuda.set_device(self.device)
            torch.set_float32_matmul_precision("high")
        else:
            torch.set_num_threads(threads or max(1, available_cores() // local_size))
            if self.size > 1:  # numba's threads, too, leave the other processes their cores; read when it is imported
                os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))
            prepare_loops(self.device, self.dtype)  # before the others are waited for: it may take a while
            keep_freed_memory()
        if self.size > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo",
                                    timeout=datetime.timedelta(seconds=timeout))

    @property
    def main(self) -> bool:
        """Whether this process logs and writes the files."""
        return self.rank == 0

    def sum(self, *numbers: float) -> list[float]:
        """Each number summed over the processes, in float64."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def listen(self):
        """From now on a signal to stop waits until the run asks for it (`signals`, `stop_if_asked`)."""
        def note(number, _):
            if self.main and not self.received:  # not through a stream of Python's, which may be in use just now
                os.write(2, b"\nstopping; a checkpoint is written first\n")
            self.received.add(number)

        for number in STOPPING:
            signal.signal(number, note)

    @property
    def signals(self) -> list[bool]:
        """Whether this process has received each of STOPPING."""
        return [number in self.received for number in STOPPING]

    def stop_if_asked(self):
        """Raise Stopped in all processes if one has received a signal; all call it at the same moment."""
        if number := first_of(self.sum(*self.signals)):
            raise Stopped(number)

    def agree(self, check, *args):
        """Run check(*args) here; if it fails in any process, it fails in all, so that none waits for another."""
        try:
            result, error = check(*args), None
        except (InputError, OSError) as caught:
            result, error = None, caught
        if self.size > 1:
            errors = [None] * self.size
            dist.all_gather_object(errors, None if error is None else str(error))
            messages = [message for message in errors if message is not None]
            if messages and error is None:
                raise InputError(messages[0])
        if error is not None:
            raise error
        return result

    def distribute(self, model, fsdp: bool):
        """The model as the processes share it: whole in each (DDP), or in parts (FSDP2). One process: itself."""
        if fsdp:
            if self.size == 1:
                raise InputError("--fsdp splits a model over processes; start with torchrun --nproc_per_node 2 or more")
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

            # the model casts its activations itself; the rotary tables among the blocks' inputs stay fp32
            policy = MixedPrecisionPolicy(param_dtype=model.dtype, reduce_dtype=torch.float32,
                                          cast_forward_inputs=False)
            mesh = init_device_mesh(self.device.type, (self.size,))  # the default is GPUs, where there are some
            for block in model.transformer["h"]:
                fully_shard(block, mesh=mesh, mp_policy=policy)
            return fully_shard(model, mesh=mesh, mp_policy=policy)
        if self.size > 1:
            known = inspect.signature(DistributedDataParallel).parameters
            buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # torch < 2.13
            return DistributedDataParallel(model, gradient_as_bucket_view=True, **{buffers: False})
        return model

    def close(self):
        """Leave the process group, and end Gloo's threads with it: they abort a process that ends before them."""
        if dist.is_initialized():
            gc.unfreeze()
            gc.collect()  # DDP holds the group
            dist.destroy_process_group()
            time.sleep(0.1)  # FSDP's caches hold it still: time for the threads to let go of the last tensors


def first_of(signals: list[float]) -> int:
    """The first of STOPPING that some process has received, by World.signals summed over the processes; 0 if none."""
    return next((number for number, processes in zip(STOPPING, signals, strict=True) if processes), 0)


def failed_exchange(error: RuntimeError) -> str | None:
    """What to say where an exchange between the processes failed (Gloo, NCCL); None for any other error."""
    if "Timed out waiting" in str(error):
        return "waited for another one in vain; it hangs, or --timeout is less than it needs"
    if isinstance(error, dist.DistBackendError):  # also for what is the matter here: the network, a driver
        return f"lost another one, whose own message tells why; NCCL's is: {error}"
    return "lost another one, whose own message tells why" if "by peer" in str(error) else None


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS: all


def prepare_loops(device: torch.device | str, dtype: torch.dtype):
    """On a CPU: see to it that its compiled loops lie ready."""
    if torch.device(device).type == "cpu":
        import kernel_cache

        kernel_cache.prepare(dtype)


def exchange_gradients(network, on: bool):
    """Whether the next backward pass exchanges gradients between the processes; to be set before its forward pass.

    FSDP2 always does: until it has, each process holds the gradients of the whole model.
    """
    if hasattr(network, "require_backward_grad_sync"):  # DDP
        network.require_backward_grad_sync = on


def claim(folder: Path):
    """Take the folder of the run for this process, as long as it lives; returns the lock to keep."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"--out {folder} is a file; name a folder for the run") from None
    lock = (folder / ".lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"another run is writing to {folder}; wait for it or choose another --out") from None
    return lock


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Dtype of the forward pass; auto is bfloat16 where the hardware multiplies it natively."""
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return torch.float32
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else torch.float32


def peak_flops(device: torch.device, dtype: torch.dtype, tflops: float = 0.0) -> float:
    """Matmul FLOP/s that MFU is measured against: given, from the table, or (CPU, unknown GPU) measured in 0.3 s."""
    if tflops:
        return tflops * 1e12
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for known, peak in PEAK_TFLOPS.items():
            if re.search(rf"\b{known}\b", name):  # whole words: an L40 is no L4
                return peak * 1e12
    n = 1024 if device.type == "cpu" else 8192
    generator = torch.Generator().manual_seed(0)  # of its own: a resumed run has set the state of PyTorch's
    a, b = (torch.randn(n, n, generator=generator).to(device, dtype) for _ in "ab")
    times, end = [], time.perf_counter() + 0.3
    while len(times) < 5 or time.perf_counter() < end:  # the first makes the kernel, on a cold machine for a second
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * n**3 / min(times)


def provenance() -> dict:
    """Versions, machine and commit, for args.json."""
    root = Path(__file__).resolve().parents[1]
    try:
        git = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
                             capture_output=True, text=True, check=False)
        commit = git.stdout.strip() or None
    except OSError:  # no git here
        commit = None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"python": platform.python_version(), "torch": torch.__version__, "commit": commit,
            "gpu": gpu, "cpu_threads": torch.get_num_threads(), "platform": platform.platform(), "argv": sys.argv[1:]}
