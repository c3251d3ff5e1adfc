"""ablate.py as a user starts it: runs, an interruption, a run that diverges; the plan, the table and the figure."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import ablate
import pytest
from ablation_report import Result, draw, table
from presets import InputError
from pretrain_tiny import make_shards

SCRIPT = Path(__file__).parents[2] / "pretrain" / "ablate.py"
TINY = ["--n_layer=1", "--n_head=2", "--n_embd=32", "--block_size=16", "--total_batch=128", "--micro_batch=2",
        "--curriculum=0", "--max_steps=4", "--eval_every=2", "--device=cpu", "--dtype=float32", "--threads=1",
        "--peak_tflops=0.1"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shards"))


def command(shards, out, *words):
    return [sys.executable, SCRIPT, "--data", shards, "--out", out, *TINY, *words]


def settings(*words):
    return ablate.read_arguments(list(words))


def result(*curve, diverged=False, tokens_per_s=1000.0):
    return Result(100, 10 * (len(curve) - 1), tokens_per_s, [[10 * n, loss] for n, loss in enumerate(curve)],
                  None if diverged else curve[-1], None if diverged else curve[-1] / 2)


def test_runs_an_interruption_and_a_run_that_diverges(shards, tmp_path):
    words = command(shards, tmp_path / "out", "--add", "wild=--lr 1e30 --clip 0", "--only", "wild", "--base_seeds", "1",
                    "--figures", tmp_path / "imgs")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started = time.monotonic()
    while not list((tmp_path / "out").glob("base-*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() - started < 120, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    again = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    base, = (tmp_path / "out").glob("base-seed1-*")
    wild, = (tmp_path / "out").glob("wild-seed1-*")
    lines = [json.loads(line) for line in (base / "metrics.jsonl").read_text().splitlines()]
    losses = [[line["step"], line["val_loss"]] for line in lines if "val_loss" in line]
    kept = json.loads((base / "result.json").read_text())
    assert kept["curve"] == losses
    assert [step for step, _ in losses] == [0, 2, 4]
    assert kept["val_loss"] == losses[-1][1]
    assert json.loads((wild / "result.json").read_text())["val_loss"] is None
    rows = (tmp_path / "out" / "out.md").read_text().splitlines()
    assert f"| base |  | {kept['parameters']:,} | {kept['val_loss']:.3f} |  |" in rows[2]
    assert "| wild | `--lr 1e30 --clip 0` |" in rows[3]
    assert "diverged after step" in rows[3]
    for folder in ("out", "imgs"):
        assert (tmp_path / folder / "out.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "out").glob("*/checkpoints"))
    stamp = (base / "metrics.jsonl").stat().st_mtime_ns
    third = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert "2 of them finished before" in third.stdout
    assert (base / "metrics.jsonl").stat().st_mtime_ns == stamp


def test_a_variant_that_the_preset_has_is_left_out():
    s, flags = settings()
    llama = ablate.variants(s, [*ablate.COMMON, "--preset=stories", *flags])
    assert {"base", "no_norm", "layernorm", "learned_positions", "gelu", "adamw", "gpt2"} <= llama.keys()
    assert not {"rmsnorm", "rope", "swiglu", "muon", "qk_norm", "no_document_mask"} & llama.keys()
    gpt2 = ablate.variants(s, [*ablate.COMMON, "--preset=gpt2"])
    assert {"rmsnorm", "rope", "swiglu", "muon", "qk_norm"} <= gpt2.keys()
    assert not {"layernorm", "learned_positions", "gelu", "adamw", "gpt2"} & gpt2.keys()


def test_every_variant_is_a_setting_of_model_py(shards):
    s, flags = settings("--data", str(shards), "--preset", "text")
    common = [*ablate.COMMON, *flags]
    chosen = ablate.variants(s, common)
    runs = ablate.planned(s, common, chosen)
    assert [seed for name, seed in runs if name == "base"] == [1, 2, 3]
    names = {ablate.run_name(*key, settings) for key, (_, settings) in runs.items()}
    assert len(names) == len(runs)
    shorter = ablate.planned(s, [*common, "--max_steps=7"], chosen)
    assert names.isdisjoint(ablate.run_name(*key, settings) for key, (_, settings) in shorter.items())


@pytest.mark.parametrize(("words", "says"), [
    (["--only", "no_nrom"], "--only no_nrom: there are no_norm"),
    (["--only", "muon"], "--only muon: the base has --optimizer muon already"),
    (["--add", "wide"], "--add wide=: give a new NAME"),
    (["--add", "gelu=--n_embd 64"], "--add gelu=--n_embd 64: give a new NAME"),
    (["--add", "../up=--n_embd 64"], "give a new NAME of letters"),
    (["--seed", "3"], "--seed: a run takes its seed from --seeds"),
    (["--seeds"], "--seeds and --base_seeds: give each at least one number"),
    (["--vary", "lr", "1"], "--vary lr 1: give a setting and two values"),
    (["--vary", "lr", "1e-3", "2e-3", "1e-3"], "--vary lr 1e-3 2e-3 1e-3: give a setting and two values or more, each"),
    (["--vary", "warmup", "0.1", "2"], "--warmup 2.0: a share from 0 to below 1"),
])
def test_mistakes_are_found_before_the_first_run(words, says):
    s, flags = settings(*words)
    with pytest.raises(InputError, match=says.replace("(", r"\(")):
        ablate.planned(s, [*ablate.COMMON, *flags], ablate.variants(s, [*ablate.COMMON, *flags]))


def test_data_that_is_not_there(tmp_path):
    done = subprocess.run(command(tmp_path / "none", tmp_path / "out"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "manifest.json does not exist; name a folder of shards with --data" in done.stderr


def test_the_table_compares_means_with_the_base():
    groups = {"base": [result(8, 3.0), result(8, 3.2)], "no_norm": [result(8, 3.5), result(8, 3.7)],
              "good": [result(8, 2.9)], "bad": [result(8, 9, diverged=True)]}
    rows = table(groups, {"base": [], "no_norm": ["--norm", "none"], "good": ["--x"], "bad": ["--y"]}).splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["good", "base", "no norm", "bad"]
    assert "| 2.900 | -0.200 | 1.450 |" in rows[2]
    assert "| 3.100 (3.000-3.200) |  | 1.550 |" in rows[3]
    assert "| `--norm none` | 100 | 3.600 (3.500-3.700) | +0.500 | 1.800 |" in rows[4]
    assert "diverged after step 10 |" in rows[5]
    assert len({row.count("|") for row in rows}) == 1


def test_the_figure_shows_each_difference():
    groups = {"base": [result(8, 4, 3.0), result(8, 4, 3.2)], "no_norm": [result(8, 4.5, 3.5)],
              "bad": [result(8, diverged=True)]}
    left, right = draw(groups, ()).axes
    assert {text.get_text() for text in left.texts} == {"+0.400", "diverged"}
    assert [label.get_text() for label in left.get_yticklabels()] == ["bad", "no norm"]
    base = [line for line in right.lines if list(line.get_ydata()) == [4, 3.0]]
    assert base and list(base[0].get_xdata()) == [10, 20]


def test_a_base_that_diverges_leaves_the_best_to_compare_with():
    groups = {"base": [result(8, 9, diverged=True)], "good": [result(8, 4, 2.9)], "less": [result(8, 4, 3.0)]}
    rows = table(groups, {"base": [], "good": ["--x"], "less": ["--y"]}).splitlines()
    assert "| to the best |" in rows[0]
    assert "| 3.000 | +0.100 |" in rows[3]
    left, _ = draw(groups, ()).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["base", "less"]
    assert {text.get_text() for text in left.texts} == {"+0.100", "diverged"}


def test_the_figure_of_one_setting():
    groups = {"lr_1e-3": [result(8, 4.0)], "lr_1e-2": [result(8, 3.0)], "lr_1": [result(8, 9.0)],
              "lr_1e9": [result(8, diverged=True)]}
    left, _ = draw(groups, ("lr", "1e-3", "1e-2", "1", "1e9")).axes
    assert left.get_xscale() == "log"
    line = left.lines[-1]
    assert list(line.get_xdata()) == [1e-3, 1e-2]
    assert list(line.get_ydata()) == [4.0, 3.0]
    assert len(left.lines) == 3  # and two crosses
