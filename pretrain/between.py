"""What happens between the steps, at intervals and at the end: validation, choices, samples, checkpoints, export.

None of it draws from the training's random state.
"""

import dataclasses

import checkpoint
import torch
from evaluate import validation_loss
from shards import tokenizer_folder


class Between:
    """Holds what these things need; every process calls every method at the same step."""

    def __init__(self, settings, world, model, optimizers, val_split, T, folder, identity, log):
        self.settings, self.world, self.model, self.optimizers = settings, world, model, optimizers
        self.val_split, self.T, self.folder, self.identity, self.log = val_split, T, folder, identity, log
        self.tokenizer = None
        if settings.choices or settings.prompt:
            from tokenizers import Tokenizer

            self.tokenizer = Tokenizer.from_file(str(tokenizer_folder(val_split.manifest) / "tokenizer.json"))

    def after_step(self, progress, stopped_by: int):
        """Whatever is due after this step; when a signal stops the run, the checkpoint alone."""
        settings, step = self.settings, progress.step
        if stopped_by:
            self.save(progress)
            self.log.say(f"stopped by signal {stopped_by} after step {step}; the same command continues")
            return
        save = due(step, settings.save_every)
        if due(step, settings.eval_every) or save:  # every regular checkpoint has a validation loss
            self.evaluate(progress)
        if due(step, settings.choices_every):
            self.choices(progress)
        if due(step, settings.sample_every):
            self.samples(progress)
        if save:
            self.save(progress)

    def finish(self, progress):
        """At the end of the run: what the intervals have not just done, and the export."""
        settings, step = self.settings, progress.step
        self.evaluate(progress)
        if not due(step, settings.choices_every):
            self.choices(progress)
        if not due(step, settings.sample_every):
            self.samples(progress)
        if not due(step, settings.save_every):
            self.save(progress)
        if settings.export and self.world.main:
            from convert import export

            card = {"preset": settings.preset, "steps": step, "tokens": step * settings.total_batch,
                    "val_loss": progress.val_loss, "data": settings.data.name}
            export(self.model, tokenizer_folder(self.val_split.manifest), settings.export, card)
            self.log.say(f"exported to {settings.export}")

    def evaluate(self, progress):
        """Validation loss, unless this step has it."""
        if progress.evaluated == progress.step:
            return
        settings = self.settings
        result = validation_loss(self.model, self.val_split, self.T, settings.micro_batch, settings.eval_tokens,
                                 self.world)
        progress.evaluated, progress.val_loss = progress.step, result["val_loss"]
        self.log.write(progress.step, progress.seconds, **result)
        self.log.say(f"step {progress.step}: validation loss {result['val_loss']:.4f} nats, "
                     f"{result['val_bpb']:.4f} bits per byte")

    def choices(self, progress):
        """Score of the multiple-choice questions, on the uncompiled model: its lengths vary."""
        if not self.settings.choices:
            return
        from hellaswag import evaluate

        with torch.compiler.set_stance("force_eager"):
            result = evaluate(self.model, self.tokenizer, self.settings.choices, self.world.device, self.world.rank,
                              self.world.size, limit=self.settings.choices_limit or None)
        self.log.write(progress.step, progress.seconds, **{f"choices_{name}": value for name, value in result.items()})
        scores = ", ".join(f"{name} {value:.3f}" for name, value in result.items())
        self.log.say(f"step {progress.step}: choices {scores}")

    def samples(self, progress):
        """Continuations of the prompt, from a random generator of their own."""
        if not self.settings.prompt or not self.world.main:
            return
        from sample import generate

        generator = torch.Generator(self.world.device).manual_seed(self.settings.seed)
        prompt = self.tokenizer.encode(self.settings.prompt).ids
        room = self.model.config.block_size - len(prompt)
        with torch.compiler.set_stance("force_eager"):
            replies = generate(self.model, [prompt] * 2, max_new_tokens=min(100, room), generator=generator)
        self.log.samples(progress.step, [self.settings.prompt + self.tokenizer.decode(reply) for reply in replies])

    def save(self, progress):
        """Write a checkpoint, note whether it is the best, delete the superseded."""
        name = f"step_{progress.step:08d}"
        evaluated = progress.evaluated == progress.step
        if evaluated and (progress.best_loss is None or progress.val_loss < progress.best_loss):
            progress.best, progress.best_loss = name, progress.val_loss
        self.world.agree(self._write if self.world.main else str, progress)

    def _write(self, progress):
        state = {"step": progress.step, "progress": dataclasses.asdict(progress), "identity": self.identity}
        checkpoint.save(self.folder, self.model, self.optimizers, state)
        checkpoint.prune(self.folder, self.settings.keep, progress.best)


def due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0 = never) happens now."""
    return bool(every) and step % every == 0
