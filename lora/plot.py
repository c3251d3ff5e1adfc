"""Draws the learning curves of fine-tuning runs.

python lora/plot.py data/runs/lora/stories-lora                                 # learning_curve.png in that folder
python lora/plot.py data/runs/lora/stories-lora data/runs/lora/stories-full --out imgs/lora_full.png   # one figure
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from curves import plot_run, plot_runs, read_metrics, shades
from finetune_settings import InputError, run_command


@dataclass
class Settings:
    """What to draw."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """run folders: one alone, or several in one figure"""
    out: str = ""
    """picture to write; empty: learning_curve.png in the (first) run folder"""


def main(settings):
    """Draws the picture and says where it is."""
    if not settings.runs:
        raise InputError("name at least one run folder, e.g. data/runs/lora/stories-lora")
    out = Path(settings.out) if settings.out else Path(settings.runs[0]) / "learning_curve.png"
    if out.is_dir():
        raise InputError(f"--out {settings.out} is a folder; name the picture, e.g. {out / 'curves.png'}")
    for run in settings.runs:
        if not any(steps for steps, _ in read_metrics(run).values()):
            raise InputError(f"{run}/metrics.jsonl holds no step yet")
    if len(settings.runs) == 1:
        plot_run(settings.runs[0], out)
    else:
        plot_runs([(label, run, {"color": colour}) for label, run, colour
                   in zip(labels(settings.runs), settings.runs, shades(len(settings.runs)), strict=True)], out)
    print(out)


def labels(runs):
    """A name for every run folder: its last part, or as many more as tell it from the others.

    >>> labels(["a/r8", "b/r8", "b/r16"])
    ['a/r8', 'b/r8', 'r16']
    """
    paths = [Path(run).resolve().parts for run in runs]
    found = []
    for path in paths:
        others = [other for other in paths if other != path]
        length = next((n for n in range(1, len(path)) if all(other[-n:] != path[-n:] for other in others)), len(path))
        found.append("/".join(path[-length:]))
    return found


if __name__ == "__main__":
    run_command(main, lambda: tyro.cli(Settings, description=__doc__, use_underscores=True))
