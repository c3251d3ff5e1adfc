"""Fine-tunes a Hugging Face causal language model, in full or with LoRA written by hand.

    python lora/train.py --model_name_or_path data/models/stories --data_path data/instructions/stories_train.json
    torchrun --standalone --nproc_per_node=2 lora/train.py ...                                   # several processes
    python lora/train.py --model_name_or_path gpt2 --data_path alpaca_data.json --use_lora True  # the seed's command

A tiny run on the CPU (seconds, once `bash train.sh pretrain` has made the base model):

    python lora/train.py --model_name_or_path data/models/stories --lora_dim 4 --max_steps 5 --eval_ratio 0.001
"""

import os
import sys
from pathlib import Path

import tyro

if "WORLD_SIZE" in os.environ:  # numba's threads, too, leave the other processes their cores: 75 -> 8 s for 80 updates
    os.environ.setdefault("NUMBA_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from finetune_settings import Settings, run_command


def main(s: Settings) -> int:
    """Exit status: 0, 3 the run diverged, 130 or 143 interrupted after the state was saved."""
    import torch.distributed as dist
    from finetune_loop import Diverged, Stopped, fine_tune

    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    try:
        if world > 1:
            start_processes(s)
        result = fine_tune(s, rank=rank, world=world)
    except Diverged as error:
        print(f"error: diverged: {error}", file=sys.stderr)
        return 3
    except Stopped as error:
        print(error, file=sys.stderr)
        return error.status
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    if rank == 0:
        held_out = "" if result["eval_loss"] is None else f", evaluation loss {result['eval_loss']:.4f}"
        print(f"{result['step']:,} updates in {result['seconds']:.0f} s{held_out}; results in {result['folder']}")
        before = result["base_loss"]
        if before is not None and not result["eval_loss"] <= before:
            alpha = f" or --lora_scaling (alpha, now {s.lora_scaling:g} at rank {s.lora_dim})" if s.use_lora else ""
            print(f"warning: before training that loss was {before:.4f}; lower --lr (now {s.lr:g}){alpha}",
                  file=sys.stderr)
    return 0


def start_processes(s: Settings):
    """Joins torchrun's group, with NCCL on GPUs and Gloo on CPUs."""
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    on_gpu = torch.cuda.is_available() and s.device != "cpu"
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(minutes=10))


if __name__ == "__main__":
    options = {"description": __doc__, "config": (tyro.conf.FlagConversionOff,), "use_underscores": True}
    run_command(main, lambda: tyro.cli(Settings, **options))
