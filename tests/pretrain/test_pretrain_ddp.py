"""Several processes over Gloo: the same losses as one, exact resume, no orphans, FSDP."""

import dataclasses
import os
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import show_threads
from convert import load_run
from presets import InputError
from pretrain_tiny import MODEL, checkpoint_bytes, make_shards, metrics, run, start, tiny_settings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """Losses of one process."""
    settings = tiny_settings(data, tmp_path_factory.mktemp("alone"))
    run(settings)
    return metrics(settings.out), metrics(settings.out, "val_loss"), metrics(settings.out, "norm")


@pytest.mark.parametrize("processes", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_the_same_losses_for_any_number_of_processes(data, alone, tmp_path, processes):
    settings = tiny_settings(data, tmp_path / "run")
    run(settings, processes)
    for name, expected in zip(("loss", "val_loss", "norm"), alone, strict=True):
        assert metrics(settings.out, name) == pytest.approx(expected, rel=1e-4)


def test_fsdp_gives_the_same_losses_and_resumes(data, alone, tmp_path):
    settings = tiny_settings(data, tmp_path / "run", fsdp=True, save_every=5)
    run(settings, 2)
    assert metrics(settings.out) == pytest.approx(alone[0], rel=1e-4)
    expected = metrics(settings.out)
    names = {path.name for path in (settings.out / "checkpoints" / "step_00000010").iterdir()}
    assert names == {"state.json", *(f"shard-0000{i}-model-00001-of-00001.safetensors" for i in (1, 2))}
    for path in (settings.out / "checkpoints" / "step_00000010").iterdir():
        path.unlink()
    (settings.out / "checkpoints" / "step_00000010").rmdir()
    run(settings, 2)
    assert metrics(settings.out) == expected


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_kill_and_resume_is_exact(data, tmp_path, processes):
    uninterrupted = tiny_settings(data, tmp_path / "a", max_steps=40)
    interrupted = tiny_settings(data, tmp_path / "b", max_steps=40)
    run(uninterrupted, processes)
    process = start(interrupted, processes, start_new_session=True)
    while not (interrupted.out / "checkpoints" / "step_00000012").exists():
        assert process.poll() is None
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    kill_workers(interrupted.out)
    process.communicate()
    run(interrupted, processes)
    assert metrics(interrupted.out) == metrics(uninterrupted.out)
    assert checkpoint_bytes(interrupted.out) == checkpoint_bytes(uninterrupted.out)


def workers(out) -> list[int]:
    """Processes of the run that writes to this folder."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                state = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if str(out).encode() in words and b"torch.distributed.run" not in words and state != "Z":
                found.append(int(entry))
    return found


def kill_workers(out):
    """Workers that torchrun has put into sessions of their own."""
    for pid in workers(out):
        os.kill(pid, signal.SIGKILL)
    while workers(out):
        time.sleep(0.01)


def endless_run(data, tmp_path):
    """Settings and process of a run of two, some steps after its start."""
    settings = tiny_settings(data, tmp_path / "run", max_steps=100_000, save_every=0, eval_every=0)
    process = start(settings, 2)
    while not (settings.out / "metrics.jsonl").exists() or len(metrics(settings.out)) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    return settings, process


def test_one_process_dies(data, tmp_path):
    settings, process = endless_run(data, tmp_path)
    os.kill(max(workers(settings.out)), signal.SIGKILL)
    began = time.time()
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert time.time() - began < 60
    assert workers(settings.out) == []


def test_one_process_cannot_write(data, tmp_path):
    settings, process = endless_run(data, tmp_path)
    for pid in workers(settings.out):
        if b"RANK=0" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):  # the one that writes the files
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, 1))
    _, errors = process.communicate(timeout=60)
    assert "\nerror: [Errno 27] File too large\n" in errors  # not behind the progress bar
    assert "\nerror: process 1 lost another one, whose own message tells why\n" in errors
    assert "]: Traceback" not in errors  # torchrun's own has no rank before it
    assert re.search(r"Root Cause.*rank +: 0 ", errors, re.DOTALL)
    assert workers(settings.out) == []


def test_a_signal_to_all_processes(data, tmp_path):
    settings, process = endless_run(data, tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    last = max(metrics(settings.out))
    assert [path.name for path in (settings.out / "checkpoints").iterdir()] == [f"step_{last:08d}"]
    assert workers(settings.out) == []


def test_a_signal_in_an_evaluation_of_all_processes(tmp_path):
    settings = tiny_settings(make_shards(tmp_path / "data", val=(60_000,)), tmp_path / "run", max_steps=4, eval_every=2,
                             save_every=0)
    process = start(settings, 2)
    while not (settings.out / "metrics.jsonl").exists() or 2 not in metrics(settings.out):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert metrics(settings.out, "val_loss").keys() == {0}
    assert [path.name for path in (settings.out / "checkpoints").iterdir()] == ["step_00000002"]
    assert workers(settings.out) == []
    run(settings, 2)
    assert metrics(settings.out, "val_loss").keys() == {0, 2, 4}


def test_a_mistake_that_one_process_sees_stops_all(data, tmp_path):
    folder = make_shards(tmp_path / "data")  # the second process verifies the second shard
    shard = folder / "train_000001.npy"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    process = start(tiny_settings(folder, tmp_path / "run"), 2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count("train_000001.npy has another sha256") >= 1
    assert "exitcode  : 2" in errors


def test_a_time_budget_ends_all_processes_at_the_same_step(data, tmp_path):
    settings = tiny_settings(data, tmp_path / "run", max_steps=0, minutes=0.02, save_every=0, eval_every=0, timeout=20)
    run(settings, 2)
    *before, last = metrics(settings.out, "time").values()  # rounded to milliseconds
    assert all(time <= 1.2 for time in before)
    assert last >= 1.2


@pytest.mark.slow
def test_fsdp_in_bfloat16_trains_as_one_process_does(data, tmp_path):
    runs = [tiny_settings(data, tmp_path / str(processes), dtype="bfloat16", fsdp=processes > 1)
            for processes in (1, 2)]
    for processes, settings in enumerate(runs, 1):
        run(settings, processes)
    assert metrics(runs[1].out) == pytest.approx(metrics(runs[0].out), abs=0.02)


@pytest.mark.parametrize("lost", [pytest.param("shard-00001*", marks=pytest.mark.slow), "shard-00002*"])
def test_a_missing_shard_is_refused(data, tmp_path, lost):
    settings = tiny_settings(data, tmp_path / "run", max_steps=2, fsdp=True)
    run(settings, 2)
    shard, = settings.out.glob(f"checkpoints/*/{lost}")
    shard.unlink()
    with pytest.raises(InputError, match=r"is damaged \(.* is not whole: a shard is missing\)"):
        load_run(settings.out)


@pytest.mark.slow
def test_a_run_continues_under_fsdp(data, alone, tmp_path):
    settings = tiny_settings(data, tmp_path / "run", max_steps=10, save_every=5)
    run(settings, 2)
    shutil.rmtree(settings.out / "checkpoints" / "step_00000010")
    run(dataclasses.replace(settings, fsdp=True), 2)
    assert metrics(settings.out) == pytest.approx(alone[0], rel=1e-4)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are read from Linux's /proc")
@pytest.mark.parametrize(("status", "changes"), [("0", {}), ("2", {"choices": Path("/no/such/file")})])
def test_no_thread_of_gloo_outlives_the_run(data, tmp_path, status, changes):
    """One that still does something when Python ends aborts the process: 18 of 40 runs on one machine."""
    script = (Path(show_threads.__file__), tmp_path, MODEL)
    run(tiny_settings(data, tmp_path / "run", max_steps=2, **changes), 2, script)
    for rank in "01":
        left, *threads = (tmp_path / rank).read_text().split("\n")
        assert left == status
        assert [name for name in threads if "gloo" in name] == []
