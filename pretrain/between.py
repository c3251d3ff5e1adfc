"""What happens between the steps, at intervals and at the end: validation, choices, samples, checkpoints, export.

None of it draws from the training's random state.
"""

import dataclasses
import math
from pathlib import Path

import checkpoint
import torch
from evaluate import validation_loss
from model import GPT
from presets import InputError, NotFiniteError
from shards import tokenizer_folder
from world import Stopped


class Between:
    """Holds what these things need; every process calls every method at the same step.

    Mistakes that would show only there are refused when it is made, before the first step.
    """

    def __init__(self, settings, world, model, optimizers, val_split, T, folder, identity, log):
        self.settings, self.world, self.model, self.optimizers = settings, world, model, optimizers
        self.val_split, self.T, self.folder, self.identity, self.log = val_split, T, folder, identity, log
        self.saved = 0  # step of the checkpoint written last
        if settings.export:
            from convert import check_target
            from hf_format import architecture

            architecture(model.config)
            check_target(settings.export)
            self.generation = kept_generation(settings.init_from, model.config.end_of_text)
        self.tokenizer = None
        if settings.choices or settings.prompt:
            self.tokenizer = val_split.tokenizer
            if self.tokenizer is None:
                path = tokenizer_folder(val_split.manifest) / "tokenizer.json"
                how = "python bpe/run.py export gpt2 --out data/tokenizer/gpt2 writes it" \
                    if val_split.manifest["tokenizer"] == "gpt2" else "bring it back"
                raise InputError(f"{path}, the tokenizer of {settings.data}, is missing; {how}, or train without "
                                 "--choices and with --prompt ''")
            self.prompt, block_size = self.tokenizer.encode(settings.prompt).ids, model.config.block_size
            if settings.prompt and (not self.prompt or max(self.prompt) >= model.config.vocab_size):
                what = "a token that the model lacks" if self.prompt else "no token"
                raise InputError(f"--prompt {settings.prompt!r} is {what}, by the data's tokenizer; give another, or "
                                 "'' for no samples")
            if len(self.prompt) >= block_size:
                raise InputError(f"--prompt has {len(self.prompt)} tokens, which leaves no room in --block_size "
                                 f"{block_size}; give a shorter one")
        if settings.choices:
            from hellaswag import read_items

            self.items = read_items(settings.choices, settings.choices_limit or None)

    def before_steps(self, progress):
        """The loss of the untrained model; or what a signal kept back in the last step of the run that goes on."""
        settings, step = self.settings, progress.step
        if step == 0:
            self.evaluate(progress)
        elif progress.evaluated != step and (due(step, settings.eval_every) or due(step, settings.save_every)):
            self.evaluate(progress)
            self.save(progress)  # it may be the best
        if step:
            self.make_up(progress, due(step, settings.choices_every), due(step, settings.sample_every))

    def make_up(self, progress, choices: bool, samples: bool):
        """The scores and the samples of this step, where they are wanted and not there yet."""
        scored, sampled = self.world.sum(*self.log.has(progress.step))  # by what the main process finds in its files
        if choices and not scored:
            self.choices(progress)
        if samples and not sampled:
            self.samples(progress)

    def after_step(self, progress, stopped_by: int) -> int:
        """Whatever is due after this step; returns the signal that stops the run, maybe in the midst of it, or 0.

        Then the checkpoint is all that is made for certain; what else was due is made up for when the run goes on.
        """
        settings, step = self.settings, progress.step
        save = due(step, settings.save_every)
        try:
            if stopped_by:
                raise Stopped(stopped_by)
            if due(step, settings.eval_every) or save:  # every regular checkpoint has a validation loss
                self.evaluate(progress)
            if save:  # before what may fail
                self.save(progress)
            if due(step, settings.choices_every):
                self.choices(progress)
            if due(step, settings.sample_every):
                self.samples(progress)
        except Stopped as stopped:
            return self.stop(progress, stopped.number)
        return 0

    def stop(self, progress, number: int) -> int:
        """The checkpoint of a run that signal `number` stops; returns the number."""
        if self.saved != progress.step:
            self.save(progress)
        self.log.say(f"stopped by signal {number} after step {progress.step}; the same command continues")
        return number

    def finish(self, progress, trained: bool) -> int:
        """At the end of the run: what this step does not have yet, and the export; returns a signal as after_step does.

        Not `trained`: the command of a finished run is repeated, or that of one which a signal stopped in its last
        step; this one has the checkpoint alone, without a validation loss.
        """
        settings, step = self.settings, progress.step
        save = progress.evaluated != step or (trained and not due(step, settings.save_every))
        try:
            self.evaluate(progress)
            if save:
                self.save(progress)
            self.make_up(progress, True, True)
        except Stopped as stopped:
            return self.stop(progress, stopped.number)
        if progress.best_loss is not None and progress.best_loss < progress.val_loss:
            self.log.say(f"the best was {self.folder / progress.best}, validation loss {progress.best_loss:.4f}; "
                         "sample.py and convert.py take that folder too")
        if settings.export:
            from convert import export

            card = (f"Trained on `{settings.data.name}` with preset `{settings.preset}`: {step:,} steps, "
                    f"{step * settings.total_batch:,} tokens, validation loss {progress.val_loss:.4f} nats per token.")
            if settings.init_from:
                card += f" It began with the weights of `{Path(settings.init_from).name}`."
            tokenizer = tokenizer_folder(self.val_split.manifest)
            arguments = self.whole_model(), tokenizer, settings.export, card, self.generation
            self.world.agree(export if self.world.main else checkpoint.nothing, *arguments)
            self.log.say(f"exported to {settings.export}")
        return 0

    def before_batch(self, what: str):
        """What an evaluation does before each of its batches: stops if a signal asks for it, or says how far it is."""
        def show(number, of):
            self.world.stop_if_asked()
            self.log.evaluating(what, number, of)

        return show

    def evaluate(self, progress):
        """Validation loss, unless this step has it."""
        if progress.evaluated == progress.step:
            return
        settings = self.settings
        try:
            result = validation_loss(self.model, self.val_split, self.T, settings.micro_batch, settings.eval_tokens,
                                     self.world, self.before_batch("validation"))
        finally:
            if settings.fsdp:  # gathered for a forward pass that no backward pass follows; back to the parts
                self.model.reshard()
        if not math.isfinite(result["val_loss"]):
            raise NotFiniteError(f"step {progress.step}: validation loss {result['val_loss']}; this step is not "
                                 "saved. Lower the learning rate")
        progress.evaluated, progress.val_loss = progress.step, result["val_loss"]
        self.log.write(progress.step, progress.seconds, **result)
        self.log.say(f"step {progress.step}: validation loss {result['val_loss']:.4f} nats, "
                     f"{result['val_bpb']:.4f} bits per byte")

    def choices(self, progress):
        """Score of the multiple-choice questions, on the uncompiled model: its lengths vary."""
        if not self.settings.choices:
            return
        from hellaswag import evaluate

        model, world = self.whole_model(), self.world
        with model.uncompiled():
            result = evaluate(model, self.tokenizer, self.items, world.device, world.rank, world.size,
                              self.before_batch("choices"))
        self.log.write(progress.step, progress.seconds, **{f"choices_{name}": value for name, value in result.items()})
        scores = ", ".join(f"{name} {value:.3f}" for name, value in result.items() if name != "n")
        self.log.say(f"step {progress.step}: {result['n']:,} choices, {scores}")

    def samples(self, progress):
        """Continuations of the prompt, from a random generator of their own."""
        if not self.settings.prompt:
            return
        from sample import generate

        model = self.whole_model()
        if not self.world.main:
            return
        generator = torch.Generator(self.world.device).manual_seed(self.settings.seed)
        replies = generate(model, [self.prompt] * 2, max_new_tokens=100, temperature=0.8, top_p=0.95,
                           stop_ids={model.config.end_of_text}, generator=generator)
        model.laid_out = None  # the next update changes the weights anyway
        self.log.samples(progress.step, [self.settings.prompt + self.tokenizer.decode(reply) for reply in replies])

    def save(self, progress):
        """Write a checkpoint, note whether it is the best, delete the superseded."""
        name = f"step_{progress.step:08d}"
        evaluated = progress.evaluated == progress.step
        if evaluated and (progress.best_loss is None or progress.val_loss < progress.best_loss):
            progress.best, progress.best_loss = name, progress.val_loss
        state = {"step": progress.step, "progress": dataclasses.asdict(progress), "identity": self.identity}
        checkpoint.save(self.folder, self.model, self.optimizers, state, self.world)
        self.saved = progress.step
        if self.world.main:
            checkpoint.prune(self.folder, self.settings.keep, progress.best)

    @torch.no_grad()
    def whole_model(self) -> GPT:
        """The model itself; under FSDP a copy with all its parameters in every process."""
        if not checkpoint.is_sharded(self.model):
            return self.model
        with torch.random.fork_rng(devices=[]):  # the copy's initialisation draws numbers
            copy = GPT(self.model.config, self.model.dtype).to(self.world.device)
        for ours, theirs in zip(copy.parameters(), self.model.parameters(), strict=True):
            ours.copy_(theirs.full_tensor())
        return copy


def kept_generation(source: str | None, end_of_text: int | None) -> dict:
    """How the model `source` that is trained further generates, with the data's end beside its own."""
    from convert import generation_settings, locate

    try:
        generation = generation_settings(locate(source)) if source else {}
    except InputError:  # a run that goes on without the model that it began with
        generation = {}
    ends = generation.get("eos_token_id")
    if ends is not None and end_of_text is not None:
        ends = ends if isinstance(ends, list) else [ends]
        generation["eos_token_id"] = [*ends, *([] if end_of_text in ends else [end_of_text])]
    return generation


def due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0 = never) happens now."""
    return bool(every) and step % every == 0
