"""The table and the figure of ablate.py: one row, and one curve, for each variant."""

import math
import statistics
from dataclasses import dataclass

from plot import INK, pyplot


@dataclass
class Result:
    """What came of a run. Losses are in nats per token; None: diverged."""

    parameters: int
    steps: int
    tokens_per_s: float
    curve: list  # [step, validation loss] at each evaluation
    val_loss: float | None
    val_bpb: float | None


def mean(results: list[Result], name: str) -> float:
    """Of the runs of one variant; infinite if any of them diverged."""
    values = [getattr(result, name) for result in results]
    return math.inf if None in values else statistics.fmean(values)


def reference(groups: dict[str, list[Result]]) -> str:
    """What the others are compared with: the base, or where there is none, or it diverged, the best."""
    best = min(groups, key=lambda name: mean(groups[name], "val_loss"))
    return "base" if "base" in groups and math.isfinite(mean(groups["base"], "val_loss")) else best


def table(groups: dict[str, list[Result]], flags: dict[str, list[str]]) -> str:
    """Markdown, the least loss first."""
    other = reference(groups)
    compared = "base" if other == "base" else "best"
    lines = [f"| | flags | parameters | validation loss, nats | to the {compared} | bits per byte | tokens/s |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for name in sorted(groups, key=lambda name: mean(groups[name], "val_loss")):
        results = groups[name]
        losses = [result.val_loss for result in results]
        if None in losses:
            steps = ", ".join(str(result.steps) for result in results if result.val_loss is None)
            outcome = f"diverged after step {steps} | | "
        else:
            spread = f" ({min(losses):.3f}-{max(losses):.3f})" if len(losses) > 1 else ""
            difference = mean(results, "val_loss") - mean(groups[other], "val_loss")
            outcome = (f"{statistics.fmean(losses):.3f}{spread} | {'' if name == other else f'{difference:+.3f}'} | "
                       f"{mean(results, 'val_bpb'):.3f}")
        words = " ".join(flags[name])
        lines.append(f"| {name.replace('_', ' ')} | {f'`{words}`' if words else ''} | {results[0].parameters:,} | "
                     f"{outcome} | {statistics.fmean(result.tokens_per_s for result in results):,.0f} |")
    return "\n".join(lines)


def draw(groups: dict[str, list[Result]], vary: tuple[str, ...]):
    """The figure: final losses on the left, validation loss over the steps on the right."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, max(4.5, 0.26 * len(groups))), layout="constrained")
    order = sorted(groups, key=lambda name: mean(groups[name], "val_loss"))
    if vary:
        final_losses_by_value(left, groups, vary)
        colours = {name: plt.cm.viridis(i / len(groups)) for i, name in enumerate(groups)}
    else:
        differences(left, groups, order)
        colours = {name: plt.cm.tab10(i) for i, name in enumerate(order[:-5:-1])} | {"base": INK}
    for name in order:
        for number, result in enumerate(groups[name]):
            lost = result.val_loss is None
            label = name.replace("_", " ") + (" (diverged)" if lost else "")
            right.plot(*zip(*result.curve[1:], strict=True) if result.curve[1:] else ([], []),
                       color=colours.get(name, "#bbbbbb"), linewidth=1.5 if name in colours else 0.7,
                       linestyle=":" if lost else "-", marker="o" if len(result.curve) == 2 else "",
                       zorder=2 + (name in colours),
                       label=label if number == 0 and name in colours else None)
    firsts = sorted(result.curve[1][1] for results in groups.values() for result in results if result.curve[1:])
    if firsts:  # what exploded, and the loss before training, would flatten the rest
        right.set_ylim(top=1.02 * min(firsts[int(0.9 * (len(firsts) - 1))], groups[order[0]][0].curve[0][1]))
    right.set_xlabel("optimizer step")
    right.set_ylabel("validation loss, nats per token")
    right.legend()
    return figure


def differences(axis, groups: dict[str, list[Result]], order: list[str]):
    """A bar for each variant, to the base (or best); the band is as wide as its seeds lie apart."""
    other = reference(groups)
    compared, losses = mean(groups[other], "val_loss"), [result.val_loss for result in groups[other]]
    names = [name for name in reversed(order) if name != other]  # the greatest loss at the bottom
    gaps = [mean(groups[name], "val_loss") - compared for name in names]
    finite = [gap for gap in gaps if math.isfinite(gap)]
    limit = 1.3 * max(map(abs, finite), default=0.0) or 1.0
    if None not in losses:
        axis.axvspan(min(losses) - compared, max(losses) - compared, color="#d0d0d0", label=f"seeds of {other}")
        axis.legend(loc="center right")
    for place, difference in enumerate(gaps):
        lost = not math.isfinite(difference)
        axis.barh(place, limit if lost else difference, height=0.7,
                  color="#d62728" if lost or difference > 0 else "#2ca02c", alpha=0.3 if lost else 0.8)
        axis.text(0.02 * limit if lost else max(difference, 0) + 0.02 * limit, place,
                  "diverged" if lost else f"{difference:+.3f}", va="center", fontsize=8)
    axis.set_xlim(min([0, *finite]) - 0.05 * limit, limit)
    axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axis.set_xlabel(f"validation loss minus that of {other}, nats per token")
    axis.grid(axis="y", visible=False)


def final_losses_by_value(axis, groups: dict[str, list[Result]], vary: tuple[str, ...]):
    """Final loss over the values of one setting; crosses at the top: diverged, or above the loss before training."""
    try:
        places = [float(value) for value in vary[1:]]
    except ValueError:
        places = list(range(len(vary) - 1))
        axis.set_xticks(places, vary[1:])
    reached = []
    for place, results in sorted(zip(places, groups.values(), strict=True), key=lambda pair: pair[0]):
        loss, before = mean(results, "val_loss"), results[0].curve[0][1]
        if loss < before:
            reached.append((place, loss))
        else:
            axis.plot(place, 0.97, "x", color="#d62728", transform=axis.get_xaxis_transform())
    axis.plot([place for place, _ in reached], [loss for _, loss in reached], "o-", color="#1f77b4")
    if min(places) > 0 and max(places) >= 8 * min(places):
        axis.set_xscale("log")
    axis.set_xlabel(vary[0])
    axis.set_ylabel("final validation loss, nats per token")
