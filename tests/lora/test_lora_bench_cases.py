"""The benchmark measures what it says: equal losses and gradients, right FLOP counts; its tables and picture."""

import importlib.util
import json
import sys
from pathlib import Path

import bench_case
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("lora_bench", ROOT / "lora" / "bench.py")
bench = importlib.util.module_from_spec(spec)
sys.modules["lora_bench"] = bench
spec.loader.exec_module(bench)

CASE = {"what": "step", "precision": "fp32", "shape": "tiny", "rank": 4, "batches": "fixed", "batch_size": 3,
        "length": 20, "labelled": 0.6, "repeats": 1, "device": "cpu", "threads": 1}
REAL = {"examples": [[3, 20], [5, 9], [2, 30], [4, 12]], "random": [[0, 1], [2, 3]], "bucketed": [[2, 0], [3, 1]]}


def test_every_variant_has_the_base_models_first_loss():
    losses = {variant: bench_case.measure_steps({**CASE, "variant": variant})["loss"]
              for variant in ("peft", "layer", "ours", "full", "full-hf")}
    assert max(losses.values()) - min(losses.values()) < 2e-6
    assert abs(losses["peft"] - 6.9) < 0.1  # ln 1000


@pytest.mark.parametrize("batches", ["random", "bucketed", "packed"])
def test_real_lengths_count_text_and_padding(batches):
    variant = "ours" if batches == "packed" else "peft"
    row = bench_case.measure_steps({**CASE, **REAL, "variant": variant, "batches": batches})
    assert row["tokens"] == 71 and row["labels"] == 71 - 14
    assert row["positions"] == {"random": 100, "bucketed": 84, "packed": 100}[batches]
    assert row["step_ms"] > 0 and row["peak_bytes"] > 1e8
    assert row["trainable"] == 2 * 4 * ((64 + 192) + (64 + 64) + (64 + 256) + (256 + 64))


def test_cases_take_turns_and_the_median_process_counts(monkeypatch):
    times, asked = iter([5, 50, 9, 20, 7, 30]), []

    def measure(settings, what, variant):
        asked.append(variant)
        return {"step_ms": next(times)}

    monkeypatch.setattr(bench, "measure", measure)
    cases = {name: {"variant": name} for name in ("ours", "theirs")}
    rows = bench.measure_in_turn(cases, bench.Settings(rounds=3))
    assert rows == {"ours": {"step_ms": 7}, "theirs": {"step_ms": 30}}
    assert asked == ["ours", "theirs"] * 3


def test_gradients_are_pefts():
    row = bench_case.compare_gradients({**CASE, **REAL, "batches": "random"})
    assert abs(row["loss_peft"] - row["loss_ours"]) < 1e-5
    assert row["largest_difference"] < 1e-6 and row["largest_relative"] < 1e-4 and row["largest_gradient"] > 1e-4


def test_both_forms_give_autograds_gradients():
    generator = torch.Generator().manual_seed(0)
    x, w, a, b = (torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
                  for shape in ((7, 5), (6, 5), (5, 3), (3, 6)))
    g = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    plain = x @ (w.detach() + 2 * (a @ b).t()).t()
    expected = torch.autograd.grad(plain, (x, a, b), g)
    merged = bench_case.MergedLinear.apply(x, w.detach(), a, b, 2.0)
    assert torch.allclose(merged, plain)
    for ours, theirs in zip(torch.autograd.grad(merged, (x, a, b), g), expected, strict=True):
        assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("form", bench.FORMS)
def test_flop_model_is_what_torch_counts(form):
    n, r, i, o = 24, 4, 32, 48
    x, a, b = (torch.randn(*shape, requires_grad=True) for shape in ((n, i), (i, r), (r, o)))
    w = torch.randn(o, i)
    with FlopCounterMode(display=False) as counter:
        bench_case.layer_forms(w)[form](x, a, b).backward(torch.randn(n, o))
    in_place = 4 * n * i * o if form == "Wx + B(Ax)" else 0  # its two addmm_, which torch does not count
    assert counter.get_total_flops() + in_place == 4 * n * i * o + bench.extra_flops(form, n, r, i, o)


def test_tables_and_picture_from_saved_results(tmp_path, capsys):
    def row(ms, tokens=1000):
        return {"forward_ms": ms / 3, "backward_ms": ms / 2, "step_ms": ms, "tokens": tokens, "positions": 2 * tokens,
                "peak_bytes": ms * 1e6, "loss": 10.0, "trainable": 1234}

    forms = [{"rank": r, "tokens": n, "base": 1.0, **dict.fromkeys(bench.FORMS, 1.25)}
             for r in (8, 32) for n in (64, 1024)]
    saved = {
        "settings": {name: getattr(bench.Settings(device="cpu", threads=2), name) for name in bench.COMPARED},
        "gradients": {"fp32": {"loss_peft": 10.1, "loss_ours": 10.1, "largest_difference": 1e-7,
                               "largest_relative": 2e-6, "largest_gradient": 0.5}},
        "step": {"bf16 peft": row(4000), "bf16 layer": row(3500), "bf16 ours": row(2000),
                 "bf16-weights peft": row(3900)},
        "stream": {"bf16 peft random": row(4000), "bf16 peft bucketed": row(3000), "bf16 ours packed": row(1000)},
        "ranks": {"full": row(9000), "r = 8": row(3000)},
        "forms": {"fp32": {"in": 768, "out": 3072, "rows": forms}},
    }
    (tmp_path / "bench.json").write_text(json.dumps(saved))
    bench.main(bench.Settings(only="none", device="cpu", threads=2, out=str(tmp_path)))
    shown = capsys.readouterr().out
    assert "| bf16, everything | 667 | 1000 | 2000 | **0.50** | 2.00 | 0.50 | 10.0000 |" in shown
    assert "| bf16, ours, packed | 100% | 1000 | 4.00 | 3.00 |" in shown
    assert "= 614 tokens" in shown and "full, our loss and packing | 1,234" in shown
    assert (tmp_path / "bench.png").stat().st_size > 10_000


def test_results_of_other_settings_and_unknown_parts_are_refused(tmp_path):
    def refused(message, **settings):
        with pytest.raises(bench.InputError, match=message):
            bench.main(bench.Settings(only="none", device="cpu", out=str(tmp_path), **settings))

    earlier = {name: getattr(bench.Settings(device="cpu", threads=2), name) for name in bench.COMPARED}
    (tmp_path / "bench.json").write_text(json.dumps({"settings": earlier}))
    refused("holds results of --threads 2, not 8; --rank 8, not 4; choose another --out", threads=8, rank=4)
    for text in ("[1]", '{"settings"'):
        (tmp_path / "bench.json").write_text(text)
        refused("holds no results of this script; choose another --out")
    with pytest.raises(bench.InputError, match="unknown 'speed'"):
        bench.main(bench.Settings(only="speed", device="cpu", out=str(tmp_path)))


def test_parts_measured_in_more_rounds_or_other_batches_stand_beside_each_other(tmp_path, capsys, monkeypatch):
    row = {"forward_ms": 1, "backward_ms": 1, "step_ms": 2, "tokens": 9, "positions": 9, "peak_bytes": 1, "loss": 1}
    monkeypatch.setattr(bench, "measure", lambda settings, **case: row)
    monkeypatch.setattr(bench, "real_records", lambda settings: {})

    def call(**settings):
        bench.main(bench.Settings(device="cpu", threads=2, out=str(tmp_path), **settings))
        return capsys.readouterr().out

    with pytest.raises(bench.InputError, match="holds no results yet"):
        call(only="none")
    call(only="stream", precisions="fp32,bf16", stream_batches=2, rounds=2)  # README's commands, one after another
    call(only="step", precisions="fp32-fast")
    shown = call(only="step", precisions="bf16", rounds=3)
    assert "### stream, median of 2 processes in turn\n" in shown
    assert "### step, median of 1 or 3 processes in turn\n" in shown and shown == call(only="none")
    with pytest.raises(bench.InputError, match="holds results of --stream_batches 2, not 3; choose another --out"):
        call(only="stream")


def test_a_measurement_runs_in_a_process_of_its_own():
    settings = bench.Settings(shape="tiny", device="cpu", threads=1, repeats=1)
    row = bench.measure(settings, what="step", variant="ours", batches="fixed", batch_size=2, length=10, labelled=0.5)
    assert row["tokens"] == 20 and row["step_ms"] > 0
