"""Learning curves: reading, smoothing, what counts as diverged, and that the pictures are drawn whole."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import curves
import numpy as np
import pytest
from curves import diverged, plot_by_rank, plot_run, plot_runs, read_metrics, smooth
from finetune_settings import InputError
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image

ROOT = Path(__file__).resolve().parents[2]


def write_run(folder, lines):
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def example_run(folder, speed=20.0):
    lines = [{"step": 0, "time": 0.0, "eval_loss": 4.0}]
    for step in range(1, 61):
        lines.append({"step": step, "loss": 2 + 2 * math.exp(-step / speed) + 0.1 * (-1) ** step})
        if step % 20 == 0:
            lines.append({"step": step, "eval_loss": 2.1 + 2 * math.exp(-step / speed)})
    return write_run(folder, lines)


def test_smooth_is_a_moving_average_and_leaves_its_input_alone():
    values = [1, 2, 6]
    assert smooth(values, 3) == [1.5, 3.0, 4.0]
    assert values == [1, 2, 6]
    assert smooth([], 5) == [] and smooth([3], 9) == [3.0]
    noisy = np.random.default_rng(0).normal(size=200)
    middle = np.convolve(noisy, np.ones(7) / 7, mode="valid")
    assert np.allclose(smooth(list(noisy), 7)[3:-3], middle)


def test_smooth_passes_over_what_is_not_finite():
    out = smooth([1.0, math.nan, 3.0, math.inf], 3)
    assert out[0] == 1.0 and math.isnan(out[1]) and out[2] == 3.0 and out[3] == math.inf


@given(st.lists(st.floats(-1e6, 1e6), max_size=40), st.integers(1, 60))
def test_smoothed_values_lie_between_the_extremes(values, width):
    out = smooth(values, width)
    assert len(out) == len(values)
    assert all(min(values) - 1e-6 <= v <= max(values) + 1e-6 for v in out)


def test_read_metrics_takes_the_later_line_of_a_repeated_step(tmp_path):
    run = write_run(tmp_path / "run", [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "loss": 1.5},
                                       {"step": 2, "eval_loss": None}])
    found = read_metrics(run)
    assert found["loss"] == ([1, 2], [3.0, 1.5])
    assert found["eval_loss"][0] == [2] and math.isnan(found["eval_loss"][1][0])


def test_bad_runs_are_named(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.jsonl does not exist"):
        read_metrics(tmp_path)
    run = write_run(tmp_path / "run", [])
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"step"\n')
    with pytest.raises(InputError, match="line 2 is not JSON"):
        read_metrics(run)
    for line in (b"3", b"[]", b"\xff", b'{"loss": 1.0}', b'{"step": 1, "loss": "x"}', b"[" * 100_000):
        (run / "metrics.jsonl").write_bytes(line + b"\n")
        with pytest.raises(InputError, match="line 1 is not JSON"):
            read_metrics(run)


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    run = write_run(tmp_path / "run", [{"step": 1, "loss": 3.0}])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_metrics(run)["loss"] == ([1], [3.0])


def test_what_counts_as_diverged():
    assert not diverged([]) and not diverged([4.0, 2.0, 2.5])
    assert diverged([4.0, 2.0, math.nan]) and diverged([math.nan]) and diverged([3.0, 2.0, 4.1])
    assert diverged([3.0, 2.0, math.inf])


def test_pictures_are_drawn(tmp_path):
    runs = [("r = 1", example_run(tmp_path / "a"), {"color": "red"}),
            ("r = 2", example_run(tmp_path / "b", 9.0), {"color": "blue"}),
            ("bad", write_run(tmp_path / "c", [{"step": 0, "eval_loss": 3.0}, {"step": 1, "loss": 9.0},
                                               {"step": 1, "eval_loss": None}]), {"color": "green"})]
    plot_run(runs[0][1], tmp_path / "one.png")
    plot_runs(runs, tmp_path / "new folder" / "all.png", base_loss=4.0)
    plot_by_rank({1: [2.5, 2.6], 8: [2.2, 2.3]}, {"full": [2.1]}, tmp_path / "rank.png", {1: [0.2], 8: [0.5]},
                 {"base model": [0.0]})
    for name in ("one.png", "new folder/all.png", "rank.png"):
        pixels = image.imread(tmp_path / name)
        assert pixels.shape[0] > 300 and pixels.shape[1] > 600
        assert pixels[..., :3].std() > 0.05
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_run_known_to_have_diverged_is_dotted(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: drawn.append(figure))
    runs = [(name, example_run(tmp_path / name), {"color": "red"}) for name in ("good", "bad")]
    plot_runs(runs, tmp_path / "all.png", base_loss=4.0, lost={"bad"})
    right = drawn[0].axes[1]
    assert [(line.get_label(), line.get_linestyle()) for line in right.lines if not line.get_label().startswith("_")] \
        == [("good", "-"), ("bad: diverged", ":"), ("base model", "--")]


def test_a_short_run_has_whole_steps_below_it(tmp_path, monkeypatch):
    drawn, lines = [], [{"step": step, "loss": 2.0, "eval_loss": 2.0} for step in range(5)]
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: drawn.append(figure))
    plot_run(write_run(tmp_path / "short", lines), tmp_path / "a.png")
    plot_runs([("short", tmp_path / "short", {})], tmp_path / "b.png")
    ticks = [tick for figure in drawn for axis in figure.axes for tick in axis.get_xticks()]
    assert len(drawn) == 2 and all(tick == int(tick) for tick in ticks)


def test_a_panel_without_values_is_left_out(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: drawn.append(figure))
    plot_by_rank({}, {}, tmp_path / "rank.png")
    assert not drawn
    plot_by_rank({}, {}, tmp_path / "rank.png", {1: [0.2], 8: [0.5]}, {"base model": [0.0]})
    (axis,) = drawn[0].axes
    assert list(axis.lines[0].get_ydata()) == [0.2, 0.5]
    assert axis.yaxis.get_major_formatter()(0.5, 0) == "50%"


def test_plot_command(tmp_path):
    example_run(tmp_path / "a run")
    command = [sys.executable, str(ROOT / "lora" / "plot.py")]
    done = subprocess.run([*command, "a run"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a run" / "learning_curve.png").exists()
    for name, start in (("b.pdf", b"%PDF"), ("b.svg", b"<?xml"), ("b", b"\x89PNG")):
        subprocess.run([*command, "a run", "--out", name], cwd=tmp_path, capture_output=True, check=True)
        assert (tmp_path / name).read_bytes().startswith(start)
    words = [*command, "a run", "--out", "b.doc"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "b.doc: pictures are" in done.stderr
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "metrics.jsonl").touch()
    done = subprocess.run([*command, "empty"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: empty/metrics.jsonl holds no step yet\n")
    done = subprocess.run([*command, "nothing"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: nothing/metrics.jsonl does not exist")
    done = subprocess.run([*command, "a run", "--out", "."], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: --out . is a folder")


def test_runs_of_the_same_name_have_labels_of_their_own(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("lora_plot", ROOT / "lora" / "plot.py")  # pretrain/ has one as well
    plot = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lora_plot", plot)
    spec.loader.exec_module(plot)
    assert plot.labels(["a/r8", "b/r8/", "b/r16"]) == ["a/r8", "b/r8", "r16"]
    assert plot.labels(["x/a/run", "x/b/run", "y/a/run"]) == ["x/a/run", "b/run", "y/a/run"]
    drawn = []
    monkeypatch.setattr(plot, "plot_runs", lambda runs, out: drawn.extend(label for label, *_ in runs))
    for name in ("a", "b"):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    plot.main(plot.Settings((str(tmp_path / "a/run"), str(tmp_path / "b/run"))))
    assert drawn == ["a/run", "b/run"]
