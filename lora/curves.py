"""Learning curves of fine-tuning runs: read, smooth, draw.

A run folder holds `metrics.jsonl`, one JSON object per line: `step` (optimizer steps done) with `loss` (training),
`eval_loss` or both (nats per labelled token). Used by train.py (one run's picture), plot.py and sweep.py (several).
"""

import json
import math
import os
from pathlib import Path

from finetune_settings import InputError

INK, FAINT = "#222222", "#dddddd"
DIVERGED = 2.0  # a run has diverged when its last evaluation is NaN or this many nats above its best


def smooth(values, width):
    """Moving average over the `width` values around each; at the ends over those that there are.

    Returns a new list and leaves `values` alone. NaN and infinite values stay what they are and do not enter the means.
    `smooth([1, 2, 6], 3) == [1.5, 3.0, 4.0]`
    """
    half = max(int(width), 1) // 2
    result = []
    for i, value in enumerate(values):
        window = [v for v in values[max(i - half, 0) : i + half + 1] if math.isfinite(v)]
        result.append(sum(window) / len(window) if math.isfinite(value) else float(value))
    return result


def read_metrics(run_folder):
    """The curves of one run: {"loss": (steps, values), "eval_loss": (steps, values)}.

    A run that was resumed may have logged a step twice; the later line counts. `null` stands for NaN.
    Raises InputError where there is no metrics.jsonl or a line of it is not JSON.
    """
    path = Path(run_folder) / "metrics.jsonl"
    if not path.exists():
        raise InputError(f"{path} does not exist: is {run_folder} the folder of a fine-tuning run?")
    curves = {"loss": {}, "eval_loss": {}}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is not JSON: {error.msg}") from None
        for name, points in curves.items():
            if name in record:
                points[record["step"]] = math.nan if record[name] is None else float(record[name])
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
    """Writes `out_png` whole or not at all."""
    out_png = Path(out_png)
    out_png.parent.mkdir(parents=True, exist_ok=True)
    temporary = out_png.with_name(out_png.name + ".tmp")
    figure.savefig(temporary, format="png", dpi=130)
    os.replace(temporary, out_png)


def draw_curve(ax, steps, values, width, **style):
    """One curve: the smoothed line over its faint raw values."""
    if width > 1 and len(values) > width:
        ax.plot(steps, values, alpha=0.22, linewidth=0.8, color=style.get("color"))
        values = smooth(values, width)
    ax.plot(steps, values, linewidth=style.pop("linewidth", 1.6), **style)


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
    draw_curve(ax, train_steps, train, max(len(train) // 25, 1), color="#4477aa", label="train")
    if evals:
        best = min((v for v in evals if math.isfinite(v)), default=math.nan)
        ax.plot(eval_steps, evals, color="#cc3311", marker="o" if len(evals) < 40 else None, markersize=3.5,
                linewidth=1.6, label=f"evaluation (best {best:.3f})")
    clip_height(ax, [train, evals])
    ax.set(xlabel="step", ylabel="loss (nats per labelled token)", title=Path(run_folder).resolve().name)
    if diverged(evals):
        ax.set_title(f"{Path(run_folder).resolve().name}: diverged", color="#cc3311")
    ax.legend(frameon=False)
    save_figure(figure, out_png)
