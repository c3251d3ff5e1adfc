"""plot.py as a user starts it, on made-up metrics: values drawn, several runs, a running job, refusals."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "pretrain" / "plot.py"


@pytest.fixture(scope="module")
def plot():
    """The script as a module under a name of its own, because other folders have a plot.py too."""
    specification = importlib.util.spec_from_file_location("pretrain_plot", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["pretrain_plot"] = module
    specification.loader.exec_module(module)
    return module


def make_run(folder: Path, steps: int = 40, choices: str | None = None) -> Path:
    folder.mkdir(parents=True)
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            line = {"step": step, "time": step * 3.0, "loss": 8 / step**0.5, "lr": 1e-3, "norm": 1.0, "mfu": 0.4}
            file.write(json.dumps(line) + "\n")
            if step % 10 == 0:
                file.write(json.dumps({"step": step, "time": step * 3.0, "val_loss": 8.5 / step**0.5}) + "\n")
            if step % 20 == 0 and choices:
                file.write(json.dumps({"step": step, "time": step * 3.0, "choices_acc": 0.25 + step / 1000,
                                       "choices_acc_token_mean": 0.26, "choices_n": 100}) + "\n")
    (folder / "args.json").write_text(json.dumps({"total_batch": 512, "choices": choices}))
    return folder


def lines_of(figure, axis=0):
    return {line.get_label(): line for line in figure.axes[axis].lines}


def test_draws_the_values(plot, tmp_path):
    run = plot.read_run(make_run(tmp_path / "a", choices="data/choices/hellaswag.jsonl"))
    figures = plot.draw([run], plot.Settings((tmp_path,), x="tokens"))
    assert set(figures) == {"loss.png", "choices.png", "schedule.png"}
    loss = lines_of(figures["loss.png"])
    validation = loss["validation (1.344)"]
    assert list(validation.get_xdata()) == [5120, 10240, 15360, 20480]
    assert validation.get_ydata()[0] == pytest.approx(8.5 / 10**0.5)
    assert "training" in loss  # both losses in one figure
    choices = lines_of(figures["choices.png"])
    assert list(choices["acc"].get_ydata()) == pytest.approx([0.27, 0.29])
    assert choices["GPT-2 124M, acc_token_mean 0.2955"].get_ydata()[0] == 0.2955
    assert lines_of(figures["schedule.png"])["a"].get_ydata()[0] == 1e-3


def test_no_loss_axis_goes_below_zero(plot, tmp_path):
    folder = make_run(tmp_path / "a", steps=1000)
    for line, loss in (("lowest", 0.02), ("highest", 9.0)):
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 1001 + (line == "highest"), "time": 1e4, "loss": loss}) + "\n")
    figure = plot.draw([plot.read_run(folder)], plot.Settings((folder,), smooth=1))["loss.png"]
    assert figure.axes[0].get_ylim()[0] == 0


def test_smooth(plot):
    assert plot.smooth([1, 2, 3], [1, 2, 6], 3) == [1.5, 3.0, 4.0]
    assert plot.smooth([50, 100, 150], [1, 2, 6], 50) == [1, 2, 6]  # steps, not lines of the log
    assert plot.smooth([1, 2], [3.0, 1.0], 1) == [3.0, 1.0]


def test_no_curve_leaves_the_picture(plot, tmp_path):
    """A validation loss that rises again, and a run whose losses are all higher than those of a longer one."""
    assert plot.highest([9.0, 4.0, *[1.0] * 98], [9.0, 5.0, 6.5]) == 6.5
    assert plot.highest([5.0, 5.5, 5.2], []) == 5.5
    runs = [plot.read_run(make_run(tmp_path / name / "run", steps)) for name, steps in (("a", 400), ("b", 3))]
    figure = plot.draw(runs, plot.Settings((tmp_path,)))["loss.png"]
    assert figure.axes[0].get_ylim()[1] > 4.6  # 8 / 3**0.5, where the short run ends
    assert sum("validation" in label for label in lines_of(figure)) == 1


def test_running_and_resumed_job(plot, tmp_path):
    folder = make_run(tmp_path / "a")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 40, "time": 1.0, "loss": 5.0, "lr": 1e-3, "norm": 1.0, "mfu": 0.4}) + "\n")
        file.write('{"step": 41, "lo')
    run = plot.read_run(folder)
    assert run.series("loss", "step")[1][-1] == 5.0  # the later line of a step counts
    assert len(run.series("loss", "step")[0]) == 40


@pytest.mark.parametrize("line", [
    b'\xff\xfe', b'{"step": 41, "loss": 1.0}', b'{"step": 41, "time": 2.0, "loss": "low"}', b"[41]",
    b'{"step": null, "time": 2.0}', b'{"step": 41, "time": null}', b'{"step": "41", "time": 2.0}', b"[" * 100_000,
    b'{"step": 41, "time": 2.0, "loss": 1e308}'])
def test_damaged_metrics_are_refused(plot, tmp_path, line):
    folder = make_run(tmp_path / "a")
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(plot.InputError, match="line 45 is not a metrics line"):
        plot.read_run(folder)


def test_norms_of_zero_and_no_smoothing_at_all(plot, tmp_path):
    folder = make_run(tmp_path / "a")
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text().replace('"norm": 1.0', '"norm": 0.0'))
    figures = plot.draw([plot.read_run(folder)], plot.Settings((tmp_path,)))
    assert figures["schedule.png"].axes[1].get_yscale() == "linear"
    with pytest.raises(plot.InputError, match="--smooth 0: give 1"):
        plot.main(plot.Settings((folder,), smooth=0))


def test_damaged_settings_are_refused(plot, tmp_path):
    folder = make_run(tmp_path / "a")
    for text, message in [("{", "args.json is not JSON"), ("[1]", "not the settings of a run")]:
        (folder / "args.json").write_text(text)
        with pytest.raises(plot.InputError, match=message):
            plot.read_run(folder)
    for text in ("{}", '{"total_batch": "512"}'):
        (folder / "args.json").write_text(text)
        run = plot.read_run(folder)
        assert run.series("loss", "time")[0][1] == 0.1
        with pytest.raises(plot.InputError, match="no total_batch, which --x tokens needs"):
            run.series("loss", "tokens")


def test_command_line(tmp_path):
    runs = [make_run(tmp_path / "run one"), make_run(tmp_path / "two", choices="data/choices/stories.jsonl")]
    done = subprocess.run([sys.executable, SCRIPT, *runs, "--out", tmp_path / "figures"], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    for name in ("loss.png", "choices.png", "schedule.png"):
        assert (tmp_path / "figures" / name).read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "figures").iterdir())) == 3
    with (runs[0] / "metrics.jsonl").open("a") as file:
        file.write("nonsense\n")
    for folder, message in [(runs[0], "line 45 is not a metrics line"), (tmp_path / "no", "does not exist")]:
        failed = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True)
        assert failed.returncode == 2
        assert message in failed.stderr
        assert "Traceback" not in failed.stderr
