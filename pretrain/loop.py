"""The training loop, from top to bottom: processes, data, model, optimizers, steps, and what happens between them.

Started by model.py. Shapes: B micro_batch, T tokens of a sequence.
"""

import contextlib
import dataclasses
import errno
import gc
import math
import statistics
import sys
import time
from dataclasses import dataclass, field

import checkpoint
import numpy as np
import torch
from between import Between
from convert import read_config
from init_from import fill
from malloc import return_freed_memory
from model import GPT
from optim import learning_rate_scale, make_optimizers
from presets import GPTConfig, InputError, NotFiniteError, Settings, check, out_of_memory
from runlog import RunLog, plain, record
from sharded import whole
from shards import Reader, Split, accumulation_steps, check_length, fingerprint, fitting_micro_batch
from world import World, claim, exchange_gradients, failed_exchange, first_of, peak_flops, provenance

SPIKE = 6.0  # a loss this many standard deviations above the last 100 is reported


@dataclass
class Progress:
    """How far the run is; saved in every checkpoint."""

    step: int = 0  # updates made
    sequences: int = 0  # sequences read, the state of the reader
    seconds: float = 0.0  # time in steps, without evaluation and checkpoints: the mean of the processes
    losses: list = field(default_factory=list)  # of the last 100 steps, nats
    evaluated: int = -1  # step of the last validation
    val_loss: float | None = None  # at that step, nats
    best: str | None = None  # name of the checkpoint with the least validation loss
    best_loss: float | None = None  # that loss, nats


def main(settings: Settings) -> int:
    """Train; returns the exit status: 0, 2 for a mistake of the user, 3 for a loss that is not finite, 128 + signal."""
    world = None
    try:
        check(settings)
        world = World(settings.device, settings.dtype, settings.threads, settings.timeout)
        lock = world.agree(claim, settings.out) if world.main else world.agree(contextlib.nullcontext)
        with lock, contextlib.ExitStack() as at_end:
            stopped_by = train(settings, world, at_end)
        status = 128 + stopped_by if stopped_by else 0
    except (InputError, OSError, NotFiniteError) as error:
        if settings.debug:
            raise
        full = getattr(error, "errno", None) == errno.ENOSPC
        advice = f"; make room for {settings.out}, then the same command goes on from the newest checkpoint"
        sys.stderr.write(f"error: {error}{advice if full else ''}\n")  # at once: another process may have one too
        status = 3 if isinstance(error, NotFiniteError) else 2
    except RuntimeError as error:
        exchange = failed_exchange(error)
        if world is not None and exchange and not settings.debug:
            time.sleep(10)  # it is the other that failed first: torchrun shall see that, and end this one
            print(f"error: process {world.rank} {exchange}", file=sys.stderr)
            return 2
        if settings.debug or not out_of_memory(error):
            raise
        print(f"error: out of memory: {str(error).splitlines()[0]} Lower --micro_batch (--total_batch stays, in more "
              "passes), or the model; account.py tells what fits", file=sys.stderr)
        return 2  # without the farewell below: the other processes may be waiting for this one
    if world is not None:
        world.close()
    return status


def train(settings: Settings, world: World, at_end: contextlib.ExitStack) -> int:
    """The run; returns the number of the signal that ended it early, or 0."""
    train_split, val_split = (world.agree(Split, settings.data, name) for name in ("train", "val"))
    for split in (train_split, val_split):
        world.agree(split.verify, world.rank, world.size)
    config = with_data(settings.model, train_split)
    if settings.init_from and not settings.model.vocab_size:  # no token of the model that is trained further is lost
        size = world.agree(read_config, settings.init_from).vocab_size
        config = dataclasses.replace(config, vocab_size=max(config.vocab_size, size))
    T = settings.sequence or config.block_size
    micro_batch = fitting_micro_batch(settings.total_batch, settings.micro_batch, T, world.size)
    settings = dataclasses.replace(settings, micro_batch=micro_batch)
    accumulation = accumulation_steps(settings.total_batch, settings.micro_batch, T, world.size)
    check_length(train_split, settings.total_batch, T)

    torch.manual_seed(settings.seed)
    model = GPT(config, world.dtype, settings.dropout).to(world.device)
    folder = settings.out / "checkpoints"
    world.agree(checkpoint.recover if world.main else checkpoint.nothing, folder)
    if settings.init_from and not checkpoint.listing(folder):
        world.agree(fill, model, settings.init_from, train_split)
    if settings.compile and world.device.type == "cuda":  # on a CPU cpu_layers.py is faster
        model.compile_blocks(settings.keep_activations)
    elif settings.keep_activations < 1:
        raise InputError(f"--keep_activations {settings.keep_activations} needs blocks that are compiled, on a GPU and "
                         "not with --no_compile; to use less memory lower --micro_batch")
    network = world.distribute(model, settings.fsdp)
    optimizers = make_optimizers(model, settings)

    identity = identify(settings, config, train_split, val_split)
    progress = world.agree(restore, folder, settings, identity, model, optimizers)
    first_step = progress.step
    world.agree(same_step, first_step, world.sum(first_step)[0] / world.size)
    flops = model.flops_per_token(train_split.document_length(T) if config.document_mask else T)
    peak = peak_flops(world.device, world.dtype, settings.peak_tflops) * world.size
    log = world.agree(RunLog, settings.out, first_step, settings.max_steps or None, world.main)
    at_end.callback(log.close)  # whatever ends the run
    log.say(description(settings, world, model, train_split, accumulation, T, flops, peak, first_step))
    between = world.agree(Between, settings, world, model, optimizers, val_split, T, folder, identity, log)
    made_of = {**plain(settings), "model": dataclasses.asdict(config), **plain(provenance())}
    if first_step and finished(settings, progress):
        log.say(f"step {first_step:,} was the last of this run: nothing is left to train")
    else:
        changed = world.agree(record if world.main else checkpoint.nothing, settings.out, first_step, made_of)
        if first_step:
            log.say(f"continues after step {first_step:,}" + "".join(
                f"\n  {name}: {values[0]} -> {values[1]}" for name, values in (changed or {}).items()
                if name in vars(settings) and name != "model"))
    reader = Reader(train_split, T, settings.micro_batch, world.rank, world.size, settings.seed, progress.sequences,
                    settings.curriculum)

    def batch() -> list[torch.Tensor]:
        """The next inputs and targets (B, T), on the device."""
        parts = reader.next()
        if world.device.type == "cuda":
            return [part.pin_memory().to(world.device, non_blocking=True) for part in parts]
        return list(parts)

    # A pass without an update: the time of compiling and of loading kernels is not that of the first step (--minutes).
    # And DDP orders its buckets, and with them the order of summation, after the first backward pass: a resumed run
    # comes into the same state as an uninterrupted one.
    network(*batch(), z_loss=settings.z_loss).backward()
    model.zero_grad(set_to_none=True)
    reader.position = progress.sequences

    network.eval()
    between.before_steps(progress)
    world.listen()
    gc.collect()
    gc.freeze()  # nothing made so far will ever be garbage
    return_freed_memory()

    stopped_by, sequences = 0, settings.total_batch // T
    spent = progress.seconds  # by this process alone
    x, y = batch()
    while not finished(settings, progress) and not stopped_by:
        began = time.perf_counter()
        loss = torch.zeros((), device=world.device)
        network.train()
        if settings.dropout:  # a function of these three, so that a resumed run drops the same
            seeds = np.random.SeedSequence([settings.seed, progress.step, world.rank])
            torch.manual_seed(int(seeds.generate_state(1)[0]))
        for micro_step in range(accumulation):
            exchange_gradients(network, micro_step == accumulation - 1)
            micro_loss = network(x, y, z_loss=settings.z_loss) / accumulation
            micro_loss.backward()
            loss += micro_loss.detach()
            x, y = batch()  # the next one, while a GPU still computes
        network.eval()  # what happens between the steps sees all of the model
        norm = float(whole(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip or math.inf)))
        # the same numbers in every process, so that all decide alike
        loss, seconds, *signals = world.sum(
            float(loss) / world.size, (spent + time.perf_counter() - began) / world.size, *world.signals)
        stopped_by = first_of(signals)
        if not math.isfinite(loss + norm):
            raise NotFiniteError(f"step {progress.step + 1}: loss {loss}, gradient norm {norm}; no update was made. "
                                 f"Sequences {progress.sequences} to {progress.sequences + sequences - 1}. "
                                 "Lower the learning rate")

        share = learning_rate_scale(fraction(settings, progress, seconds), settings)
        if 0 <= settings.curriculum / T - progress.sequences < sequences:  # other text begins, with losses of its own
            progress.losses = []
        skip = spike(loss, progress.losses, settings.skip_spikes or SPIKE)
        if skip:
            log.say(f"step {progress.step + 1}: loss {loss:.3f} is a spike, sequences {progress.sequences} to "
                    f"{progress.sequences + sequences - 1}" + (", update skipped" if settings.skip_spikes else ""))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * share
            if not (skip and settings.skip_spikes):
                optimizer.step()
        model.zero_grad(set_to_none=True)

        elapsed = time.perf_counter() - began
        progress.step += 1
        progress.sequences += sequences
        progress.seconds = seconds
        spent += elapsed
        progress.losses = [*progress.losses[-99:], loss]
        speed = settings.total_batch / elapsed
        log.step(progress, settings.log_every, loss=loss, lr=settings.lr * share, norm=norm, tokens_per_s=round(speed),
                 mfu=round(flops * speed / peak, 4), epoch=round(progress.sequences * T / train_split.tokens, 4))
        stopped_by = between.after_step(progress, stopped_by)

    return stopped_by or between.finish(progress, progress.step > first_step)


def with_data(config: GPTConfig, split: Split) -> GPTConfig:
    """The architecture with the vocabulary and the end-of-text id of the data."""
    vocabulary, end_of_text = split.manifest["vocab_size"], split.manifest["end_of_text"]
    if config.document_mask and end_of_text is None:
        raise InputError(f"--document_mask: {split.folder}/manifest.json names no end_of_text that ends a document; "
                         "--no_document_mask does without")
    if config.vocab_size and config.vocab_size < vocabulary:
        raise InputError(f"--vocab_size {config.vocab_size} is below the data's {vocabulary}; 0 takes it from there")
    return dataclasses.replace(config, vocab_size=config.vocab_size or vocabulary,
                               end_of_text=end_of_text)


def identify(settings: Settings, config: GPTConfig, train: Split, validation: Split) -> dict:
    """What must be the same when a run is continued."""
    names = ("total_batch", "curriculum", "optimizer", "optimizer_bits", "seed")
    return {**{f"model.{name}": value for name, value in dataclasses.asdict(config).items()},
            "sequence": settings.sequence or config.block_size, **{name: getattr(settings, name) for name in names},
            "data": fingerprint(train.manifest, "train"), "validation": fingerprint(validation.manifest, "val")}


def restore(folder, settings: Settings, identity: dict, model: GPT, optimizers) -> Progress:
    """Load the newest checkpoint into model and optimizers; a fresh Progress where there is none."""
    saved = checkpoint.listing(folder)
    if not saved:
        return Progress()
    if settings.resume == "never":
        raise InputError(f"{settings.out} holds a run; --resume auto continues it, or choose another --out")
    state = checkpoint.read_state(saved[-1])
    saved_as = state["identity"]
    saved_as["sequence"] = saved_as["sequence"] or saved_as["model.block_size"]  # 0 in checkpoints of earlier code
    for switch in dataclasses.fields(GPTConfig):  # which lack the newest
        saved_as.setdefault(f"model.{switch.name}", switch.default)
    saved_as.setdefault("optimizer_bits", 32)
    changed = checkpoint.differences(saved_as, identity)
    if changed:
        raise InputError(f"cannot continue {saved[-1]} with other settings; choose another --out. Saved -> now:\n  "
                         + "\n  ".join(changed))
    checkpoint.load(saved[-1], model, optimizers)
    return Progress(**state["progress"])


def same_step(step: int, mean: float):
    """Refuse a start from different steps: nodes with a disk each find, or lack, checkpoints of their own."""
    if step != mean:
        raise InputError("the processes found different checkpoints; --out must be one folder that every node sees")


def fraction(settings: Settings, progress: Progress, seconds: float) -> float:
    """Share of the run that is over once the step at hand is made: by steps, by the clock, or whichever is further."""
    by_steps = (progress.step + 1) / settings.max_steps if settings.max_steps else 0.0
    by_clock = seconds / (60 * settings.minutes) if settings.minutes else 0.0
    return min(1.0, max(by_steps, by_clock))


def finished(settings: Settings, progress: Progress) -> bool:
    """Whether steps or time are used up."""
    return bool((settings.max_steps and progress.step >= settings.max_steps)
                or (settings.minutes and progress.seconds >= 60 * settings.minutes))


def spike(loss: float, losses: list[float], deviations: float) -> bool:
    """Whether a loss stands out from the last ones (20 at least)."""
    return len(losses) >= 20 and loss > statistics.fmean(losses) + deviations * statistics.pstdev(losses) + 1e-6


def description(settings, world, model, split, accumulation, T, flops, peak, made) -> str:
    """What is going to be computed, in a few lines; `made` steps of it are."""
    config, steps = model.config, settings.max_steps
    lines = [f"{model.parameter_count():,} parameters, {config.n_layer} layers of {config.n_embd} channels, vocabulary "
             f"{config.vocab_size:,} (padded to {config.padded_vocab:,}), {str(model.dtype).removeprefix('torch.')}",
             f"{settings.total_batch:,} tokens per step = {settings.micro_batch} sequences x {T} tokens x "
             f"{accumulation} micro-steps x {world.size} processes ({world.device}, {torch.get_num_threads()} threads)",
             f"{flops / 1e6:,.1f} MFLOP per token, peak {peak / 1e12:.2f} TFLOP/s"]
    known = split.manifest["vocab_size"]
    if config.vocab_size > 1.1 * known and not settings.init_from:
        lines.append(f"note: the data's tokenizer has {known:,} tokens only; --vocab_size 0 leaves out the others")
    if steps:
        tokens = steps * settings.total_batch
        minutes = max(0, steps - made) * settings.total_batch * flops / peak / 0.4 / 60
        lines.append(f"{steps:,} steps = {tokens:,} tokens = {tokens / split.tokens:.2f} epochs of {split.tokens:,}; "
                     f"about {minutes:.1f} minutes{' for the rest' if made else ''} at 40% of the peak")
    return "\n".join(lines)
