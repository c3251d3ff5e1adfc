"""Learning curves of fine-tuning runs: read, smooth, draw.

A run folder holds `metrics.jsonl`, one JSON object per line: `step` (optimizer steps done) with `loss` (training),
`eval_loss` or both (nats per labelled token). Used by train.py (one run's picture), plot.py and sweep.py (several).
"""

import itertools
import json
import math
from pathlib import Path

from atomic_file import write_atomically
from finetune_settings import InputError

INK, FAINT = "#222222", "#dddddd"
FULL_COLOURS = ("#cc3311", "#ee7733", "#aa3377")  # of full fine-tuning, beside the ranks' shades
DIVERGED = 2.0  # a run has diverged when its last evaluation is NaN or this many nats above its best


def smooth(values, width):
    """Moving average over the `width` values around each; at the ends over those that there are.

    Returns a new list and leaves `values` alone. NaN and infinite values stay what they are and do not enter the means.
    `smooth([1, 2, 6], 3) == [1.5, 3.0, 4.0]`
    """
    half = max(int(width), 1) // 2
    result = []
    for i, value in enumerate(values):
        near = [v for v in values[max(i - half, 0) : i + half + 1] if math.isfinite(v)]
        result.append(sum(near) / len(near) if math.isfinite(value) else float(value))
    return result


def read_metrics(run_folder):
    """The curves of one run: {"loss": (steps, values), "eval_loss": (steps, values)}.

    A run that was resumed may have logged a step twice; the later line counts. `null` stands for NaN.
    A last line that is being written is left out. Raises InputError where there is no metrics.jsonl, or another line
    of it is not JSON of a step.
    """
    path = Path(run_folder) / "metrics.jsonl"
    if not path.exists():
        raise InputError(f"{path} does not exist: is {run_folder} the folder of a fine-tuning run?")
    curves = {"loss": {}, "eval_loss": {}}
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            step = int(record["step"])
            for name in curves.keys() & record.keys():
                curves[name][step] = math.nan if record[name] is None else float(record[name])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            if number < len(lines):
                raise InputError(f"{path}, line {number} is not JSON of a step: {error}") from None
    return {name: (sorted(points), [points[s] for s in sorted(points)]) for name, points in curves.items()}


def diverged(eval_losses):
    """Whether a run's evaluations (nats, in order) ended in NaN or far above their best."""
    finite = [v for v in eval_losses if math.isfinite(v)]
    return bool(eval_losses) and (not finite or not eval_losses[-1] <= min(finite) + DIVERGED)


def new_figure(panels, width=6.0, height=4.2):
    """A matplotlib figure and its `panels` axes side by side, in one plain style; no window, no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * panels, height), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color=FAINT, linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def save_figure(figure, out_png):
    """Writes `out_png` whole or not at all; .pdf and .svg are other formats."""
    out_png = Path(out_png)
    out_png.parent.mkdir(parents=True, exist_ok=True)
    kind = out_png.suffix[1:].lower() or "png"
    if kind not in figure.canvas.get_supported_filetypes():
        raise InputError(f"{out_png}: pictures are {', '.join(figure.canvas.get_supported_filetypes())}, not .{kind}")
    write_atomically(out_png, lambda file: figure.savefig(file, format=kind, dpi=130))


def window(values):
    """How many values to smooth over: a fifteenth of a curve, at least 5."""
    return max(len(values) // 15, 5)


def draw_curve(ax, steps, values, width, **style):
    """One curve: the smoothed line over its faint raw values."""
    if width > 1 and len(values) > width:
        ax.plot(steps, values, alpha=0.22, linewidth=0.8, color=style.get("color"))
        values = smooth(values, width)
    ax.plot(steps, values, linewidth=style.pop("linewidth", 1.6), **style)


def whole_steps(*axes):
    """No step 2.5 under a short run."""
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)


def clip_height(ax, curves):
    """Limits the loss axis to what matters: a diverging or a first value does not flatten all the others."""
    finite = sorted(v for values in curves for v in values if math.isfinite(v))
    if finite:
        low, high = finite[0], finite[int(0.99 * (len(finite) - 1))]
        ax.set_ylim(low - 0.06 * (high - low) - 1e-3, high + 0.10 * (high - low) + 1e-3)


def plot_run(run_folder, out_png):
    """Draws one run's train loss (raw faint, smoothed) and evaluation loss over the steps into `out_png`."""
    curves = read_metrics(run_folder)
    (train_steps, train), (eval_steps, evals) = curves["loss"], curves["eval_loss"]
    figure, (ax,) = new_figure(1, width=7.5)
    draw_curve(ax, train_steps, train, window(train), color="#4477aa", label="train")
    if evals:
        best = min((v for v in evals if math.isfinite(v)), default=math.nan)
        ax.plot(eval_steps, evals, color="#cc3311", marker="o" if len(evals) < 40 else None, markersize=3.5,
                linewidth=1.6, label=f"evaluation (best {best:.3f})")
    clip_height(ax, [train, evals])
    ax.set(xlabel="step", ylabel="loss (nats per labelled token)", title=Path(run_folder).resolve().name)
    whole_steps(ax)
    if diverged(evals):
        ax.set_title(f"{Path(run_folder).resolve().name}: diverged", color="#cc3311")
    ax.legend(frameon=False)
    save_figure(figure, out_png)


def shades(count):
    """`count` colours from light to dark, for ranks in order."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 - 0.9 * i / max(count - 1, 1)) for i in range(count)]


def plot_runs(runs, out_png, base_loss=None, lost=()):
    """Draws several runs in one figure: training loss on the left, evaluation on the right, the scale shared.

    runs: (label, run folder, style) in the order of the legend; style is a dict for matplotlib's plot, e.g. its colour.
    A run that diverged is dotted and says so: one whose evaluations show it, or whose label is in `lost`, for training
    may have ended before the next evaluation. base_loss: evaluation loss before any training, as a line.
    """
    figure, (left, right) = new_figure(2)
    seen = []
    for label, folder, style in runs:
        curves = read_metrics(folder)
        (train_steps, train), (eval_steps, evals) = curves["loss"], curves["eval_loss"]
        style = {**style}
        if label in lost or diverged(evals):
            label, style["linestyle"] = f"{label}: diverged", ":"
        else:
            seen += [evals, smooth(train, window(train))]
        draw_curve(left, train_steps, train, window(train), **style)
        right.plot(eval_steps, evals, linewidth=1.6, label=label, **style)
        if evals and math.isfinite(evals[-1]) and "linestyle" not in style:
            right.plot(eval_steps[-1:], evals[-1:], "o", markersize=4, **style)
    clip_height(left, seen)
    right.sharey(left)
    if base_loss is not None:
        right.axhline(base_loss, color=INK, linewidth=0.9, linestyle="--", label="base model")
    left.set(title="training", xlabel="step", ylabel="loss (nats per labelled token)")
    right.set(title="evaluation", xlabel="step")
    whole_steps(left, right)
    right.legend(frameon=False, fontsize=8, ncols=2 if len(runs) > 8 else 1)
    save_figure(figure, out_png)


def plot_by_rank(points, lines, out_png, scores=None, score_lines=None):
    """Draws evaluation loss against rank, and the score of the replies where there is one.

    points and scores: {rank: values, one per seed}; lines and score_lines: {label: values} that have no rank (base,
    full). The mean is a line, each seed a dot, the spread from least to greatest a band. Without an evaluation set
    there are no points and no such panel; without scores as well, no figure.
    """
    panels = [(points, lines, "evaluation loss (nats per labelled token)"),
              (scores, score_lines or {}, "instructions followed (mean over families)")]
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return
    figure, axes = new_figure(len(panels), width=5.2)
    for ax, (values, others, name) in zip(axes, panels, strict=True):
        ranks = sorted(values)
        means = [sum(values[r]) / len(values[r]) for r in ranks]
        ax.fill_between(ranks, [min(values[r]) for r in ranks], [max(values[r]) for r in ranks], color="#4477aa",
                        alpha=0.15, linewidth=0)
        ax.plot(ranks, means, color="#4477aa", label="LoRA, mean over seeds")
        for rank in ranks:
            ax.plot([rank] * len(values[rank]), values[rank], "o", color="#4477aa", markersize=4)
        colours = itertools.cycle(FULL_COLOURS)
        for label, found in others.items():
            colour = INK if label == "base model" else next(colours)
            ax.axhline(sum(found) / len(found), color=colour, linestyle="--", linewidth=1.2, label=label)
            ax.axhspan(min(found), max(found), color=colour, alpha=0.08, linewidth=0)
        ax.set_xscale("log", base=2)
        ax.set_xticks(ranks, [str(r) for r in ranks])
        ax.minorticks_off()
        ax.set(xlabel="rank", ylabel=name)
        ax.legend(frameon=False, fontsize=8)
    if scores:
        axes[-1].yaxis.set_major_formatter("{x:.0%}")
    save_figure(figure, out_png)
