"""What a run leaves to read: metrics.jsonl, TensorBoard events, samples.txt, args.json, and the progress bar."""

import dataclasses
import json
import math
import os
import re
import sys
import threading
import time
from pathlib import Path

from convert import read_json
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from whole_file import write_text

ROOT = Path(__file__).resolve().parents[1]


class RunLog:
    """Log of the main process; the others get one that writes nothing."""

    def __init__(self, folder: Path, first_step: int, last_step: int | None, active: bool):
        self.active = active
        if not active:
            return
        self.folder = folder
        self.metrics = folder / "metrics.jsonl"
        if self.metrics.exists():  # a resumed run repeats the steps after its checkpoint
            lines = self.metrics.read_text("utf-8").splitlines()
            kept = [line for line in lines if first_step and step_of(line) <= first_step]
            write_text(self.metrics, "".join(f"{line}\n" for line in kept))
        samples = folder / "samples.txt"
        if samples.exists():
            text = samples.read_text("utf-8")
            later = (m.start() for m in re.finditer(r"^--- step (\d+)$", text, re.MULTILINE) if int(m[1]) > first_step)
            write_text(samples, text[:next(later, None)])
        self.file, self.unwritten = self.metrics.open("a", encoding="utf-8"), None
        threading.excepthook = told_later
        self.board = SummaryWriter(str(folder), purge_step=first_step + 1, flush_secs=10)
        self.bar = tqdm(total=last_step, initial=first_step, unit="step", dynamic_ncols=True, smoothing=0.05,
                        mininterval=0.2 if sys.stderr.isatty() else 10.0)

    def write(self, step: int, seconds: float, **values: float):
        """One line of metrics.jsonl and one point per value in TensorBoard."""
        if not self.active:
            return
        self.file.write(json.dumps({"step": step, "time": round(seconds, 3), **values}) + "\n")
        self.file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self.board.add_scalar(name, value, step)

    def step(self, progress, every: int, **values: float):
        """Values of a step: the bar always, the files every so many steps (0 = only at the end)."""
        if not self.active:
            return
        self.bar.set_postfix_str(f"loss {values['loss']:.3f}, lr {values['lr']:.2e}, norm {values['norm']:.2f}, "
                                 f"{values['tokens_per_s']:,} tokens/s, MFU {values['mfu']:.1%}", refresh=False)
        self.bar.update(progress.step - self.bar.n)
        self.unwritten = progress.step, progress.seconds, values
        if every and progress.step % every == 0:
            self.write_step()

    def evaluating(self, what: str, batch: int, of: int):
        """How far an evaluation is, before the bar, for one that takes longer than the bar's interval."""
        if not self.active:
            return
        if batch == 0:
            self.shown = time.monotonic()
        if batch == of - 1:  # the last one
            self.bar.set_description_str("", refresh=False)
        elif time.monotonic() - self.shown > self.bar.mininterval:
            self.bar.set_description_str(f"{what} {batch:,}/{of:,}")
            self.shown = time.monotonic()

    def write_step(self):
        """The values of the last step, unless they are written."""
        if self.unwritten:
            step, seconds, values = self.unwritten
            self.write(step, seconds, **values)
            self.unwritten = None

    def has(self, step: int) -> tuple[bool, bool]:
        """Whether the files hold a score of choices, and samples, of this step."""
        if not self.active:
            return False, False
        lines = self.metrics.read_text("utf-8").splitlines()
        samples = self.folder / "samples.txt"
        return (any("choices_" in line and step_of(line) == step for line in lines),
                samples.exists() and f"--- step {step}\n" in samples.read_text("utf-8"))

    def say(self, text: str):
        """A line for the reader, above the bar."""
        if self.active:
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()

    def samples(self, step: int, texts: list[str]):
        """Append samples to samples.txt and show the first."""
        if self.active:
            with (self.folder / "samples.txt").open("a", encoding="utf-8") as file:
                file.writelines(f"--- step {step}\n{text}\n" for text in texts)
            self.say(f"step {step} sample: {texts[0]}")

    def close(self):
        """Flush and close."""
        if self.active:
            self.bar.close()
            self.write_step()
            self.board.close()
            self.file.close()


def told_later(failure):
    """Say nothing of an OSError in TensorBoard's thread, as of a full disk: its next call here raises it again."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def step_of(line: str) -> float:
    """The step of a line of metrics.jsonl; infinity for one that a crash tore."""
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return math.inf


def record(folder: Path, step: int, made_of: dict) -> dict:
    """Write args.json: how the run is made; what changes when it is continued goes to `resumed` and is returned.

    {name: [before, now]}, of settings and of the machine.
    """
    path, changed = folder / "args.json", {}
    if step and path.exists():
        before = read_json(path)
        resumed = before.pop("resumed", [])
        changed = {name: [before.get(name), now] for name, now in made_of.items() if before.get(name) != now}
        made_of = {**made_of, "resumed": [*resumed, {"step": step, **changed}] if changed else resumed}
    write_text(path, json.dumps(made_of, indent=1))
    return changed


def plain(value):
    """Settings as JSON: paths relative to the repository or the home folder (`~`), wherever the command was given."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        value = os.path.abspath(value)
    if isinstance(value, str):  # a path, or a word of the command line: PATH, --flag=PATH
        value = re.sub(rf"(^|=){re.escape(str(ROOT))}/", r"\1", value)
        home = str(Path.home())
        return value if home == "/" else re.sub(rf"(^|=){re.escape(home)}(?=/|$)", r"\1~", value)
    return value
