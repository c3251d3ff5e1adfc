"""gpu_check.py without a GPU: what happens when time runs out, or when a part's log has no numbers."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import gpu_check
import numpy as np
import pytest
from gpu_check import Check, Settings, finish, main


@pytest.fixture
def settings(tmp_path):
    """A clone of nanoGPT whose training says nothing, and a split of a few tokens."""
    for name in ("train.py", "model.py", "configurator.py"):
        (tmp_path / name).write_text("print('step 0: nothing to report')")
    for split in ("train", "val"):
        np.save(tmp_path / f"{split}_000000.npy", np.arange(9))
    (tmp_path / "manifest.json").write_text("{}")
    return Settings(nanogpt=tmp_path, data=tmp_path, cpu_dry_run=True, out=tmp_path / "gpu.json")


def test_a_part_without_time_is_left_out_with_the_reason(settings):
    settings.budget, settings.only = 10, ("memory", "generation")
    main(settings)
    results = json.loads(settings.out.read_text())
    assert results["memory_left_out"].startswith("it needs some 20 s, ")
    assert results["generation_left_out"].startswith("it needs some 40 s, ")


def test_a_part_is_stopped_at_the_end_of_the_budget(settings, monkeypatch, tmp_path):
    monkeypatch.setitem(gpu_check.NEEDED, "memory", 0)
    monkeypatch.setattr(Check, "memory", lambda self: finish(["sh", "-c", f"sleep 30; touch {tmp_path}/late & wait"]))
    settings.budget, settings.only = 0.3, ("memory", "generation")
    began = time.monotonic()
    with pytest.raises(SystemExit):
        main(settings)
    assert time.monotonic() - began < 20
    results = json.loads(settings.out.read_text())
    assert results["memory_failed"] == "stopped, because the --budget of 0 s is over"
    assert "generation_left_out" in results


def test_the_race_is_left_out_if_nobody_could_reach_the_goal(settings):
    settings.budget, settings.only = 110, ("race",)
    main(settings)
    assert json.loads(settings.out.read_text())["race_left_out"].startswith("it needs some 125 s, ")


def test_a_log_without_numbers_is_shown(settings):
    settings.only = ("race",)
    with pytest.raises(SystemExit):
        main(settings)
    failure = json.loads(settings.out.read_text())["race_failed"]
    assert failure.startswith("no time of a step in the log, which ends with:")
    assert "nothing to report" in failure


def test_a_peer_that_fails_costs_its_own_part_alone(settings, monkeypatch):
    (settings.nanogpt / "train.py").write_text("raise SystemExit('out of memory')")
    spec = importlib.util.spec_from_file_location("bench", Path(gpu_check.__file__).with_name("bench.py"))
    monkeypatch.setitem(sys.modules, "bench", importlib.util.module_from_spec(spec))  # lora/ has one as well
    spec.loader.exec_module(sys.modules["bench"])
    monkeypatch.setitem(gpu_check.NEEDED, "speed", 0)
    monkeypatch.setattr(Check, "memory", lambda self: self.note("memory", "measured"))
    settings.micro_batches, settings.only, settings.budget = (), ("speed", "memory"), 60
    main(settings)
    results = json.loads(settings.out.read_text())
    assert results["memory"] == "measured"
    assert "out of memory" in results["speed"]["peer 2"]["failed"]


def test_kernels_are_listed_by_their_time(settings):
    settings.only = ("kernels",)
    main(settings)
    total, *times = json.loads(settings.out.read_text())["kernels"].values()
    assert times == sorted(times, reverse=True) and len(times) == 30
    assert 0.5 * total < sum(times) <= 1.01 * total
