"""The table and the figures of a sweep (sweep.py): one row per setting, its seeds as mean and spread."""

import json
from itertools import cycle

from curves import FULL_COLOURS, plot_by_rank, plot_runs, shades
from finetune_settings import InputError

SHORT = {"lora_scaling": "alpha", "train_batch_size": "batch", "lora_init": "init"}


def read_json(path):
    """An object that sweep.py wrote."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it, and the same command makes it again") from None


def load_groups(sweep, runs, scores):
    """Runs that differ in their seed only, as one group: {label: {"settings", "runs": [(name, result, score)]}}.

    runs: {name: settings}, as planned: result.json holds only some of them.
    """
    named = {use: varying([settings for settings in runs.values() if settings["use_lora"] == use])
             for use in (True, False)}
    groups = {}
    for name, settings in runs.items():
        result, use = read_json(sweep / name / "result.json"), settings["use_lora"]
        first = [f"r = {settings['lora_dim']}"] if use else ["full"]
        label = ", ".join(first + [f"{SHORT.get(key, key)} = {in_short(settings[key])}" for key in named[use]])
        score = scores.get(name, {}).get("macro_average")
        groups.setdefault(label, {"settings": settings, "runs": []})["runs"].append((name, result, score))
    return groups


def varying(settings):
    """The settings beside rank and seed whose values differ, except an alpha that only follows the rank."""
    factors = {round(s["lora_scaling"] / s["lora_dim"], 9) for s in settings}
    return [key for key in (settings[0] if settings else ()) if key not in ("seed", "use_lora", "lora_dim")
            and len({s[key] for s in settings}) > 1 and not (key == "lora_scaling" and len(factors) == 1)]


def in_short(value):
    """A setting as the table shows it: 0.30000000000000004 as 0.3."""
    return f"{value:g}" if isinstance(value, float) else value


def spread(values, form):
    """Mean, and the range where there are several: "1.234 (1.230-1.240)"."""
    values = [v for v in values if v is not None]
    if not values:
        return ""
    mean = format(sum(values) / len(values), form)
    return mean if len(values) == 1 else f"{mean} ({format(min(values), form)}-{format(max(values), form)})"


def markdown(groups, scores):
    """One row per group, the base model first."""
    any_run = next(iter(groups.values()))["runs"][0][1]
    # All runs share a process, whose memory keeps what earlier ones left: no number to compare ranks by.
    rows = [["", "trainable", "steps", "seconds", "peak GB (with what earlier runs left)", "train loss", "eval loss",
             "instructions followed"],
            ["---", *["---:"] * 7],
            ["base model", "0", "", "", "", "", spread([any_run["base_eval_loss"]], ".3f"),
             spread([scores.get("base", {}).get("macro_average")], ".1%")]]
    for label, group in groups.items():
        results = [result for _, result, _ in group["runs"]]
        lost = sum(r["status"] == "diverged" for r in results)
        trainable = next((f"{r['trainable']:,}" for r in results if r["trainable"]), "")
        rows.append([label + (f": **{lost} of {len(results)} diverged**" if lost else ""), trainable,
                     f"{max(r['steps'] for r in results)}", spread([r["seconds"] for r in results], ".0f"),
                     f"{max(r['peak_bytes'] for r in results) / 1e9:.2f}",
                     *(spread([r[key] for r in results], ".3f") for key in ("train_loss", "eval_loss")),
                     spread([score for _, _, score in group["runs"]], ".1%")])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def report(sweep, runs, scores, figures=None):
    """Writes sweep.md and the figures into the sweep's folder (and into `figures`); returns the table. runs: {name:
    settings}.
    """
    groups = load_groups(sweep, runs, scores)
    table = markdown(groups, scores)
    (sweep / "sweep.md").write_text(table, encoding="utf-8")
    lora = {label: g for label, g in groups.items() if g["settings"]["use_lora"]}
    full = {label: g for label, g in groups.items() if not g["settings"]["use_lora"]}
    styles = dict(zip(lora, ({"color": colour} for colour in shades(len(lora))), strict=True))
    styles |= {label: {"color": colour} for label, colour in zip(full, cycle(FULL_COLOURS), strict=False)}
    base = next((r["base_eval_loss"] for g in groups.values() for _, r, _ in g["runs"]), None)
    curves = [(label, sweep / g["runs"][0][0], styles[label]) for label, g in groups.items()]
    lost = {label for label, g in groups.items() if g["runs"][0][1]["status"] == "diverged"}
    for folder in filter(None, (sweep, figures)):
        plot_runs(curves, folder / "lora_ranks.png", base, lost)
        ranks = {g["settings"]["lora_dim"] for g in lora.values()}
        if len(ranks) == len(lora) > 1:
            def values(groups, of):
                found = {key: [v for v in map(of, g["runs"]) if v is not None] for key, g in groups}
                return {key: values for key, values in found.items() if values}  # not where all diverged

            by_rank = [(g["settings"]["lora_dim"], g) for g in lora.values()]
            scored = any(score is not None for g in lora.values() for _, _, score in g["runs"])
            score_lines = {"base model": [scores["base"]["macro_average"]]} if scored else {}
            plot_by_rank(values(by_rank, lambda run: run[1]["eval_loss"]),
                         values(full.items(), lambda run: run[1]["eval_loss"]),
                         folder / "lora_eval_by_rank.png",
                         values(by_rank, lambda run: run[2]) if scored else None,
                         score_lines | values(full.items(), lambda run: run[2]) if scored else None)
    return table
