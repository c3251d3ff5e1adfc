"""bench.py on tiny models, with a stand-in for nanoGPT that prints what its train.py prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "pretrain" / "bench.py"
STAND_IN = """
import sys, time
ctx = nullcontext() if device_type == 'cpu' else torch.amp.autocast(device_type=device_type) if False else None
assert "--device=cpu" in sys.argv and "--block_size=256" in sys.argv
for i in range(1000):
    print(f"iter {i}: loss 4.0000, time {100 + i}.50ms, mfu -100.00%")
    time.sleep(0.02)
"""


def run(*flags):
    return subprocess.run([sys.executable, SCRIPT, *map(str, flags)], capture_output=True, text=True)


@pytest.fixture
def nanogpt(tmp_path):
    folder = tmp_path / "nano gpt"
    folder.mkdir()
    for name in ("train.py", "model.py", "configurator.py"):
        (folder / name).write_text("")
    (folder / "train.py").write_text("class nullcontext: pass\ndevice_type = 'cpu'\n" + STAND_IN)
    return folder


def test_reads_the_peers_steps_and_merges(nanogpt, tmp_path):
    out = tmp_path / "bench.json"
    done = run("--tiny", "--only", "d384_peer", "--nanogpt", nanogpt, "--steps", 3, "--out", out)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())["d384_peer"]
    assert result["steps"] >= 3
    assert 105.5 <= result["ms"] <= 140  # iterations 0 to 4 are not timed
    assert result["tokens_per_s"] == round(2 * 256 / result["ms"] * 1e3)
    ours = {"ms": 50.0, "tokens_per_s": 10_240, "rss_mb": 10}
    out.write_text(json.dumps({"d384_ours": ours, "loss_ours": {"val_bpb": 0.9}, "loss_gpt2_0.001": {"val_bpb": 1.2}}))
    merged = run("--tiny", "--only", "d384_peer", "--nanogpt", nanogpt, "--steps", 3, "--out", out)
    assert json.loads(out.read_text())["d384_ours"] == ours
    assert "d384 peer: 10240 against" in merged.stdout
    assert "0.9 (goal 0.95), GPT-2 + AdamW at its best of 1 rates 1.2: 0.750x" in merged.stdout


@pytest.mark.slow
def test_cases_take_turns(nanogpt, tmp_path):
    out = tmp_path / "bench.json"
    done = run("--tiny", "--only", "d384_peer", "d384_ours", "--nanogpt", nanogpt, "--steps", 2, "--rounds", 2,
               "--out", out)
    assert done.returncode == 0, done.stderr
    order = [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("d384_")]
    assert order == ["d384_peer", "d384_ours"] * 2
    results = json.loads(out.read_text())
    for case in ("d384_peer", "d384_ours"):
        assert len(results[case]["turns"]) == 2
        assert results[case]["ms"] == min(results[case]["turns"])  # of two, the lower median
    assert ", by turn " in done.stdout


def test_our_training_and_generation(tmp_path):
    out = tmp_path / "bench.json"
    done = run("--tiny", "--only", "d384_ours", "--steps", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())["d384_ours"]
    assert result["ms"] > 0
    assert result["rss_mb"] > 50


@pytest.mark.slow
def test_generation_has_the_same_tokens(tmp_path):
    pytest.importorskip("transformers")
    out = tmp_path / "bench.json"
    done = run("--tiny", "--only", "generation", "--out", out)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["generation"]
    assert len(rows) == 8
    assert all(row["same_tokens"] for name, row in rows.items() if "float32" in name)


def test_refusals(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.txt").touch()  # of which no tokenizer can be trained
    for flags, message in [(["--only", "speed"], "there are d384_peer"), (["--rounds", 0], "--rounds is 0"),
                           (["--new_tokens", 0], "--new_tokens is 0"),
                           (["--only", "loss_ours", "--text", tmp_path / "text"], "text-4096 ended with status 2"),
                           (["--only", "d384_peer", "--nanogpt", tmp_path], "has no train.py")]:
        failed = run(*flags, "--out", tmp_path / "x.json")
        assert failed.returncode == 2
        assert message in failed.stderr
        assert "Traceback" not in failed.stderr
    (tmp_path / "x.json").write_text("{ half")
    failed = run("--only", "generation", "--out", tmp_path / "x.json")
    assert (failed.returncode, failed.stderr) == (
        2, f"error: --out {tmp_path}/x.json holds no results of this script; name another file\n")
    assert "loss_gpt2_0.002" in run("--list").stdout.split()
