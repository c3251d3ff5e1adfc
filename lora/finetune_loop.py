"""The fine-tuning loop, from top to bottom: data, model, updates, evaluation, results.

    result = fine_tune(Settings(model_name_or_path="data/models/stories", ...))      # one process, or under torchrun

Each update takes train_batch_size x gradient_accumulation_steps x processes examples. Its loss is the mean over all
their labelled tokens: every pass adds (sum of its tokens' losses) / (labelled tokens of the whole update), which
every process knows beforehand from the data, so 1 x 32, 32 x 1 and any number of processes give the same gradient.
"""

import json
import math
import os
import signal
import time
from contextlib import ExitStack, closing
from dataclasses import asdict

import torch
import torch.distributed as dist
from atomic_file import write_atomically
from finetune_checkpoint import identity, load_checkpoint, lock_folder, save_checkpoint
from finetune_data import Data, data_hash, load_data
from finetune_model import choose_device, choose_dtype, load_tokenizer, prepare_model, with_loaded_rank
from finetune_output import check_places, save_results
from finetune_report import Journal, write_report
from finetune_settings import InputError, Settings, check_settings, run_folder, shareable
from fused_head import CastLoss
from packing import pack, pad, plan_epoch
from prompts import render
from tqdm import tqdm

from lora import expert_weights, lora_layers

# oneDNN keeps what it made for the last 1,024 shapes; every packed batch has a length of its own: 450 MB for nothing.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


class Diverged(RuntimeError):  # noqa: N818
    """The loss or the gradient is not finite; the weights are those before the bad update."""


class Stopped(RuntimeError):  # noqa: N818
    """Interrupted by a signal, after the update was finished and a checkpoint saved."""

    def __init__(self, number: int, name: str):
        super().__init__(f"stopped by signal {number}; the same command with --output_dir_name {name} continues")
        self.status = 128 + number


def learning_rate(s: Settings, progress: float) -> float:
    """The rate at a share 0..1 of the run: linear warm-up, then a cosine from lr to 0.1 lr.

    >>> [round(learning_rate(Settings(lr=1.0, lr_warmup_ratio=0.1), p), 3) for p in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.55, 0.1]
    """
    if progress < s.lr_warmup_ratio:
        return s.lr * progress / s.lr_warmup_ratio
    done = (progress - s.lr_warmup_ratio) / (1 - s.lr_warmup_ratio)
    return s.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1))))


def make_optimizer(s: Settings, model):
    """AdamW(0.9, 0.95), decay on matrices only; LoRA+: B at loraplus_ratio times the rate, its group's `factor`."""
    groups = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = s.loraplus_ratio if name.endswith("lora_left_weight") else 1.0
            decay = s.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": group, "factor": factor, "weight_decay": decay} for (factor, decay), group in groups.items()],
        lr=s.lr,
        betas=(0.9, 0.95),
        fused=True,
    )


class Trainer:
    """What one process needs for an update: the model, the data, its share of the examples."""

    def __init__(self, s: Settings, model, data: Data, device, dtype, rank: int = 0, world: int = 1, pad_id: int = 0):
        self.s, self.model, self.data, self.device, self.rank, self.world = s, model, data, device, rank, world
        self.pad_id = pad_id
        self.casts = dtype != torch.float32 and not s.use_lora  # full fine-tuning: weights fp32, arithmetic in dtype
        self.whole = CastLoss(model, dtype)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.per_update = s.train_batch_size * s.gradient_accumulation_steps * world
        self.updates_per_epoch = math.ceil(len(data.train) / self.per_update)
        self.total = s.max_steps or max(1, math.ceil(s.epochs * self.updates_per_epoch))
        self.epoch, self.plan = -1, []

    def loss(self, examples, chosen):
        """Sum of the losses over the labelled tokens of the chosen examples."""
        batch = (
            pack(examples, chosen, self.device) if self.s.packing else pad(examples, chosen, self.device, self.pad_id)
        )
        if self.casts and not self.s.gradient_checkpointing:
            return self.whole.cast(batch)
        with torch.autocast(self.device.type, self.whole.dtype, enabled=self.casts):
            return self.whole(batch)

    def chosen(self, step: int):
        """The examples of update `step`, all processes'."""
        epoch, index = divmod(step, self.updates_per_epoch)
        if epoch != self.epoch:
            self.plan = plan_epoch(
                self.data.train.lengths, self.per_update, self.s.seed, epoch, bucket=not self.s.packing
            )
            self.epoch = epoch
        return self.plan[index]

    def gradient(self, step: int, stop: int = 0):
        """Fills .grad with the update's gradient, summed over processes. Returns (mean loss, labelled tokens, tokens,
        stop).
        """
        chosen = self.chosen(step)
        labelled = int(self.data.train.labels[chosen].sum())
        torch.manual_seed(
            (self.s.seed * 1_000_003 + step) * self.world + self.rank
        )  # dropout depends on the update alone
        total = torch.zeros((), device=self.device)
        mine = chosen[self.rank :: self.world]
        for i in range(0, len(mine), self.s.train_batch_size):
            loss = self.loss(self.data.train, mine[i : i + self.s.train_batch_size]) / labelled
            loss.backward()
            total += loss.detach()
        if self.world > 1:
            total, stop = self.sum_over_processes(total, stop)
        return float(total), labelled, int(self.data.train.lengths[chosen].sum()), int(stop)

    def sum_over_processes(self, total, stop):
        """Adds up all gradients, the losses and the wish to stop in one exchange; a process without examples adds
        zeros.
        """
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        flat = torch.cat([*(grad.float().flatten() for grad in grads), total[None], total.new_tensor([stop])])
        dist.all_reduce(flat)
        offset = 0
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = flat[offset : offset + grad.numel()].view_as(grad).to(grad.dtype)
            offset += grad.numel()
        return flat[-2], float(flat[-1])

    def check_weights(self, step: int):
        """Raises Diverged where the update `step` itself made weights that are no numbers; all processes agree."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters):
            raise Diverged(f"the weights after update {step} are not finite; lower --lr (now {self.s.lr:g})")

    @torch.no_grad()
    def evaluate(self, caught=()) -> float | None:
        """Mean loss per labelled token over the whole evaluation set: each token counts once, whatever the batches.

        None where a process has `caught` a signal before the end.
        """
        examples, size = self.data.evaluation, self.s.eval_batch_size
        self.model.eval()
        order = examples.lengths.argsort(kind="stable")[::-1]
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        total = torch.zeros(2, dtype=torch.float64, device=self.device)  # losses, signals
        for batch in batches[self.rank :: self.world]:
            if caught:
                break
            total[0] += self.loss(examples, batch)
        total[1] = len(caught)
        if self.world > 1:
            dist.all_reduce(total)
        self.model.train()
        return None if total[1] else float(total[0]) / int(examples.labels.sum())


def fine_tune(s: Settings, data: Data | None = None, rank: int = 0, world: int = 1) -> dict:
    """Trains as the settings say and writes the run folder; returns its path, the updates, the losses, the seconds
    and the number of trained parameters.

    data: tokenised before, for many runs on the same files. Raises InputError for bad settings or files, Diverged,
    Stopped.
    """
    check_settings(s)
    check_places(s)
    s = with_loaded_rank(s)
    torch.set_float32_matmul_precision(s.matmul_precision)
    device = choose_device(s.device, int(os.environ.get("LOCAL_RANK", 0)))
    dtype = choose_dtype(s.dtype, device)
    if device.type == "cpu":
        import loop_cache

        loop_cache.prepare(dtype)
    tokenizer = load_tokenizer(s.model_name_or_path, s.trust_remote_code)
    model, base_hash = prepare_model(s, device, dtype, len(tokenizer))
    max_length = min(s.max_length, getattr(model.config, "max_position_embeddings", None) or s.max_length)
    render(s.template, "x", "", "x", tokenizer)  # a template that does not work is to fail now, not after training
    data = data or load_data(s, tokenizer, max_length)
    if s.patience and data.evaluation is None:
        raise InputError(f"--patience {s.patience} needs an evaluation set; give --eval_ratio or --eval_data_path")
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    trainer = Trainer(s, model, data, device, dtype, rank, world, pad_id)
    optimizer = make_optimizer(s, model)

    folder = run_folder(s, time.strftime("%Y%m%d-%H%M%S"))
    with ExitStack() as stack:
        if rank == 0:
            stack.enter_context(lock_folder(folder))
        who = identity(s, data_hash(data.train), data_hash(data.evaluation), base_hash, world)
        progress = load_checkpoint(folder, model, optimizer, who) if s.resume == "auto" else None
        progress = progress or {"step": 0, "elapsed": 0.0, "best": None, "bad": 0, "eval_loss": None, "done": False,
                                "evaluated": None}
        progress.setdefault("evaluated", progress["step"])  # a checkpoint of an earlier version lacks it
        journal = stack.enter_context(closing(Journal(folder, progress["step"], quiet=rank > 0)))
        if rank == 0:
            arguments = {key: shareable(value) if isinstance(value, str) else value for key, value in asdict(s).items()}
            arguments |= {"base_sha256": base_hash, "torch": torch.__version__, "processes": world}
            write_atomically(folder / "arguments.json", (json.dumps(arguments, indent=2) + "\n").encode())
        describe(journal, s, trainer, folder, max_length, dtype, progress)
        run_updates(s, trainer, optimizer, journal, folder, who, progress)
        if s.patience and progress["best"] is not None:
            load_checkpoint(folder, model, None, None, "best.pt")
            progress["eval_loss"] = progress["best"]
        if rank == 0:
            save_results(s, model, tokenizer, folder, base_hash, data.template)
            write_report(s, model, tokenizer, data, folder)
    return {
        "folder": str(folder),
        "step": progress["step"],
        "eval_loss": progress["eval_loss"],
        "base_loss": progress.get("base_loss"),
        "train_loss": progress.get("train_loss"),
        "seconds": progress["elapsed"],
        "trainable": sum(parameter.numel() for parameter in trainer.parameters),
    }


def kinds(names) -> list[str]:
    """The last parts of dotted names, once each, in their order."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))


def describe(journal, s, trainer, folder, max_length, dtype, progress):
    """Prints the derived quantities of the run."""
    train, held_out, world = trainer.data.train, trainer.data.evaluation, trainer.world
    trained = sum(p.numel() for p in trainer.parameters)
    whole = sum(p.numel() for p in trainer.model.parameters())
    kind = "LoRA" if s.use_lora else "full"
    journal.say(f"{kind} fine-tuning of {shareable(s.model_name_or_path)} in {shareable(str(folder))}")
    journal.say(
        f"{trained:,} of {whole:,} parameters trained ({trained / whole:.2%}), "
        f"{str(dtype).removeprefix('torch.')} on {world} x {trainer.device.type}"
    )
    if s.use_lora:
        journal.say(f"LoRA on {', '.join(kinds(lora_layers(trainer.model)))}")
        experts = expert_weights(trainer.model)
        if experts:
            journal.say(f"warning: LoRA reaches linear layers only; the experts' {', '.join(kinds(experts))}, "
                        f"{sum(weight.numel() for weight in experts.values()):,} parameters, stay as they are")
            shared = {"gate_proj", "up_proj", "down_proj"}.intersection(kinds(lora_layers(trainer.model)))
            if shared:  # peft 0.21, utils/transformers_weight_conversion.py
                journal.say(f"warning: in such models PEFT takes {', '.join(sorted(shared))} for the experts' and may "
                            "not load their adapters, generate.py does; --model_out saves them merged, "
                            "--lora_module_name leaves them out")
    for name, examples in (("training", train), ("evaluation", held_out)):
        if examples is not None:
            journal.say(
                f"{name}: {len(examples):,} examples, {len(examples.tokens):,} tokens, {int(examples.labels.sum()):,} "
                f"labelled; {examples.truncated:,} cut at {max_length} tokens, {examples.dropped:,} dropped"
            )
    if held_out is None:
        journal.say("no evaluation set: eval_ratio is 0, or there is one record only")
    journal.say(
        f"{trainer.total:,} updates, {trainer.updates_per_epoch:,} per epoch, of {trainer.per_update} examples "
        f"= {s.train_batch_size} x {s.gradient_accumulation_steps} x {world}"
    )
    if progress["step"]:
        journal.say(f"continuing after update {progress['step']:,}")


def run_updates(s, trainer, optimizer, journal, folder, who, progress):
    """Evaluates, saves and updates, each when it is due, until the end, the clock, a signal or a standstill; `progress`
    is kept up to date. What a signal cuts short, an evaluation, is made when the run goes on.
    """
    caught = []
    handlers = {
        number: signal.signal(number, lambda n, _: caught.append(n)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    start = time.monotonic() - progress["elapsed"]
    save_interval, saved, stop = s.save_interval or s.eval_interval, progress["step"], False
    bar = tqdm(
        total=trainer.total,
        initial=progress["step"],
        desc="fine-tuning",
        unit="update",
        dynamic_ncols=True,
        disable=trainer.rank > 0,
        mininterval=0.5 if journal.terminal else 10,
    )
    try:
        while not progress["done"]:
            step = progress["step"]
            share = share_of_run(s, trainer, step, start)
            if not stop and evaluation_due(s, trainer, progress, share):
                loss = trainer.evaluate(caught)
                stop = loss is None
                if not stop:
                    note_evaluation(s, trainer, journal, folder, who, progress, loss, start)
                    bar.set_postfix_str(f"loss {progress['train_loss']:.3f}, eval {loss:.3f}" if step else "")
            progress["done"] = progress["done"] or (share >= 1 and not evaluation_due(s, trainer, progress, share))
            if progress["done"] or (step > saved and (stop or step % save_interval == 0)):
                trainer.check_weights(step)
                journal.flush()
                if trainer.rank == 0:
                    save_checkpoint(folder, trainer.model, optimizer, progress, who)
                saved = step
            if progress["done"]:
                break
            if stop:
                raise Stopped(caught[0] if caught else signal.SIGTERM, s.output_dir_name or folder.name)

            begin = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            loss, labelled, tokens, stop = trainer.gradient(step, int(bool(caught)))
            norm = float(torch.nn.utils.clip_grad_norm_(trainer.parameters, s.max_grad_norm or math.inf))
            if not math.isfinite(loss) or not math.isfinite(norm):
                examples = trainer.chosen(step)[:8].tolist()
                raise Diverged(
                    f"loss {loss}, gradient norm {norm} at update {step + 1} (examples {examples}...); "
                    f"lower --lr (now {s.lr:g})"
                )
            rate = learning_rate(s, share_of_run(s, trainer, step + 1, start))
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            optimizer.step()
            progress |= {"step": step + 1, "elapsed": time.monotonic() - start, "train_loss": loss}
            seconds = time.perf_counter() - begin
            journal.write(
                step=step + 1,
                time=progress["elapsed"],
                epoch=(step + 1) / trainer.updates_per_epoch,
                loss=loss,
                lr=rate,
                grad_norm=norm,
                tokens=tokens,
                labelled_tokens=labelled,
                tokens_per_second=tokens / seconds,
            )
            bar.update()
            stop = stop or (trainer.world == 1 and caught)
    finally:
        bar.close()
        journal.flush()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def evaluation_due(s, trainer, progress, share: float) -> bool:
    """Whether this step, of which a share of the run is over, is to be evaluated and is not yet."""
    step = progress["step"]
    return (trainer.data.evaluation is not None and progress["evaluated"] != step
            and (step % s.eval_interval == 0 or share >= 1))


def note_evaluation(s, trainer, journal, folder, who, progress, loss, start):
    """Records an evaluation; with patience keeps the best weights and ends the run at a standstill."""
    progress |= {"eval_loss": loss, "evaluated": progress["step"]}
    if progress["step"] == 0:
        progress["base_loss"] = loss
    journal.write(step=progress["step"], time=time.monotonic() - start, eval_loss=loss)
    if not s.patience:
        return
    if progress["best"] is None or loss < progress["best"]:
        progress |= {"best": loss, "bad": 0}
        if trainer.rank == 0:
            save_checkpoint(folder, trainer.model, None, progress, who, "best.pt")
    else:
        progress["bad"] += 1
        progress["done"] = progress["bad"] >= s.patience


def share_of_run(s, trainer, step: int, start: float) -> float:
    """How much of the run is over, 0..1, by updates or by the first process's clock, whichever is further."""
    share = step / trainer.total
    if s.minutes:
        clock = torch.tensor([(time.monotonic() - start) / (60 * s.minutes)], device=trainer.device)
        if trainer.world > 1:
            dist.broadcast(clock, 0)
        share = max(share, float(clock))
    return share
