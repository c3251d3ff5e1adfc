"""Figures of one or several runs from their metrics.jsonl, also while they are running.

    python pretrain/plot.py data/runs/pretrain/stories                                # loss.png, ... into that folder
    python pretrain/plot.py data/runs/pretrain/gpt2 data/runs/pretrain/llama-124m --out imgs/pretrain --hellaswag

Writes loss.png (training and validation loss in one figure), choices.png (accuracy on multiple choice, if the run has
it), and schedule.png (learning rate and gradient norm).
"""

import json
import math
import os
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from presets import InputError, read_settings, run_command


@dataclass
class Settings:
    """What to draw."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]  # run folders, each with metrics.jsonl
    out: Path | None = None  # folder for the figures; default: the first run's
    x: Literal["step", "tokens", "time"] = "step"  # horizontal axis: optimizer steps, tokens seen, training minutes
    smooth: int = 50  # training loss: mean over this many steps around each point; 1 = as logged
    hellaswag: bool = False  # draw GPT-2 124M's HellaSwag accuracy as a line; default: by --choices' name
    debug: bool = False  # show tracebacks of input errors


GPT2_HELLASWAG = {  # GPT-2 124M: build-nanogpt's evaluation by token mean; lm-evaluation-harness
    "acc_token_mean": 0.2955, "acc": 0.2892, "acc_norm": 0.3114}
LARGEST = 1e30  # beyond it no axis can be drawn
INK, GRID = "#222222", "#dddddd"


@dataclass
class Run:
    """A run's name, settings (args.json) and lines of metrics.jsonl."""

    name: str
    args: dict
    lines: list[dict]

    def series(self, value: str, x: str) -> tuple[list[float], list[float]]:
        """(x, values) of every line that has the value; null stands for NaN."""
        points = [(self.place(line, x), line[value]) for line in self.lines if value in line]
        return [a for a, _ in points], [math.nan if b is None else float(b) for _, b in points]

    def place(self, line: dict, x: str) -> float:
        """Where a line lies on the horizontal axis."""
        if x == "time":
            return line["time"] / 60
        if x == "step":
            return line["step"]
        if not isinstance(self.args.get("total_batch"), int):
            raise InputError(f"{self.name}: args.json has no total_batch, which --x tokens needs; use --x step or time")
        return line["step"] * self.args["total_batch"]


def read_run(folder: Path) -> Run:
    """A run from its folder; the last, half-written line of a running job is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        raise InputError(f"{path} does not exist: is {folder} the folder of a pretraining run?")
    lines, by_kind = path.read_bytes().split(b"\n"), {}
    for number, line in enumerate(lines, 1):
        if number == len(lines):  # what follows the last newline: nothing, or a line that is being written
            break
        try:
            record = json.loads(line)
            by_kind[tuple(sorted(record)), record["step"]] = record  # a resumed run may log a step twice
            right = all(isinstance(value, int | float | None) for value in record.values())
            right = right and None not in (record["step"], record["time"])
            right = right and not any(LARGEST < abs(value) < math.inf for value in record.values() if value)
        except (ValueError, KeyError, TypeError, RecursionError):
            right = False
        if not right:
            text = line[:60].decode(errors="replace")
            raise InputError(f"{path}, line {number} is not a metrics line, numbers with step and time: {text!r}")
    if not by_kind:
        raise InputError(f"{path} has no line yet")
    return Run(folder.resolve().name, read_args(folder / "args.json"),
               sorted(by_kind.values(), key=lambda record: record["step"]))


def read_args(path: Path) -> dict:
    """The settings of a run; none where there is no such file."""
    try:
        args = json.loads(path.read_bytes()) if path.exists() else {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(args, dict):
        raise InputError(f"{path} holds {str(args)[:40]}, not the settings of a run")
    return args


def smooth(steps: list[int], values: list[float], width: int) -> list[float]:
    """Mean over the values of the `width` steps around each, fewer at the ends; steps ascend.

    ([1, 2, 3], [1, 2, 6], 3) -> [1.5, 3.0, 4.0].
    """
    result = []
    for step, value in zip(steps, values, strict=True):
        window = values[bisect_right(steps, step - width / 2): bisect_left(steps, step + width / 2)] or [value]
        result.append(sum(window) / len(window))
    return result


def highest(training: list[float], validation: list[float]) -> float:
    """Where a run's losses end upwards: its first steps are far above the rest, which they would flatten."""
    seen = sorted(filter(math.isfinite, training))
    later = list(filter(math.isfinite, validation[1:]))
    usual = [min(seen[-1], seen[0] + 1.6 * (seen[int(0.95 * (len(seen) - 1))] - seen[0]) + 0.2)] if seen else []
    return max([*usual, *later], default=math.nan)


def pyplot():
    """Matplotlib's pyplot, without a display, in the style of all figures here; a second's import."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.edgecolor": INK, "axes.grid": True, "grid.color": GRID,
                         "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
                         "legend.frameon": False})
    return plt


def save(figure, path: Path):
    """A figure's file, whole or not at all."""
    part = path.with_name(f".{path.name}.tmp")
    figure.savefig(part, format="png", dpi=130)
    os.replace(part, path)


def draw(runs: list[Run], settings: Settings) -> dict:
    """{file name: figure}."""
    plt = pyplot()
    colours = [plt.cm.tab10(i % 10) for i in range(len(runs))]
    label = {"step": "optimizer step", "tokens": "tokens", "time": "training time, minutes"}[settings.x]
    figures = {}

    def figure(name, rows=1):
        shape, axes = plt.subplots(rows, 1, figsize=(7.5, 4.5 if rows == 1 else 6), layout="constrained", sharex=True)
        (axes if rows == 1 else axes[-1]).set_xlabel(label)
        figures[name] = shape
        return axes

    def prefix(run):
        return f"{run.name}, " if len(runs) > 1 else ""

    axis, tops = figure("loss.png"), []
    for run, colour in zip(runs, colours, strict=True):
        x, y = run.series("loss", settings.x)
        steps, _ = run.series("loss", "step")
        width = min(settings.smooth, max(1, (steps[-1] - steps[0]) // 20)) if steps else 1
        if width > 1:
            axis.plot(x, y, color=colour, alpha=0.2, linewidth=0.7)
        axis.plot(x, smooth(steps, y, width), color=colour, linewidth=1.2, alpha=0.8,
                  label=f"{prefix(run)}training")
        x, validation = run.series("val_loss", settings.x)
        if validation:
            axis.plot(x, validation, "o--", color=colour if len(runs) > 1 else "#d62728", markersize=3,
                      label=f"{prefix(run)}validation ({validation[-1]:.3f})")
        tops.append(highest(y, validation))
    if any(map(math.isfinite, tops)):
        axis.set_ylim(max(0, axis.get_ylim()[0]), max(filter(math.isfinite, tops)) * 1.02)
    axis.set_ylabel("loss, nats per token")
    axis.legend()

    names = sorted({name for run in runs for line in run.lines for name in line if name.startswith("choices_acc")})
    if names:
        axis = figure("choices.png")
        for run, colour in zip(runs, colours, strict=True):
            for name, style in zip(names, ("-", "--", ":"), strict=False):
                x, y = run.series(name, settings.x)
                axis.plot(x, y, style, color=colour, marker="o", markersize=3,
                          label=f"{prefix(run)}{name.removeprefix('choices_')}")
        if settings.hellaswag or any("hellaswag" in str(run.args.get("choices")).lower() for run in runs):
            value = GPT2_HELLASWAG["acc_token_mean"]
            axis.axhline(value, color=INK, linewidth=1, linestyle="-.", label=f"GPT-2 124M, acc_token_mean {value}")
        axis.set_ylabel("accuracy")
        axis.legend()

    upper, lower = figure("schedule.png", rows=2)
    for run, colour in zip(runs, colours, strict=True):
        upper.plot(*run.series("lr", settings.x), color=colour, label=run.name)
        lower.plot(*run.series("norm", settings.x), color=colour, linewidth=0.7)
    upper.set_ylabel("learning rate")
    lower.set_ylabel("gradient norm")
    if any(value > 0 for run in runs for value in run.series("norm", settings.x)[1]):
        lower.set_yscale("log")
    upper.legend()
    return figures


def main(settings: Settings):
    """Read, draw, write each figure whole."""
    if not settings.runs:
        raise InputError("name at least one run folder, e.g. data/runs/pretrain/stories")
    if settings.smooth < 1:
        raise InputError(f"--smooth {settings.smooth}: give 1 (as logged) or more steps")
    runs = [read_run(folder) for folder in settings.runs]
    names = [run.name for run in runs]
    for run, folder in zip(runs, settings.runs, strict=True):
        if names.count(run.name) > 1:
            run.name = str(folder)
    out = settings.out or settings.runs[0]
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in draw(runs, settings).items():
        save(figure, out / name)
        print(out / name)


if __name__ == "__main__":
    run_command(main, lambda: read_settings(Settings, __doc__))
