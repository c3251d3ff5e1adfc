"""The command in one process: losses that must not change, refusals, what it writes, side effects it must not have."""

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import between
import evaluate
import hellaswag
import loop
import pytest
import tokenizers
import torch
import torch.nn.functional as F
from convert import load_run
from model import GPT
from presets import GPTConfig, InputError, Settings, check, parse
from pretrain_tiny import MODEL, Alone, checkpoint_bytes, flags, make_shards, metrics, tiny_model, tiny_settings
from runlog import RunLog, plain
from shards import Split


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data with a space"))


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Data with a tokenizer, whose words are "0" to "60"."""
    folder = tmp_path_factory.mktemp("words")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(i): i for i in range(61)}, unk_token="0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    path = make_shards(folder / "data") / "manifest.json"
    sha256 = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer": str(folder), "tokenizer_sha256": sha256}))
    (folder / "choices.jsonl").write_text('{"ctx": "1 2", "endings": ["3 4", "9 1"], "label": 0}\n')
    return folder


def main(settings, capsys):
    """Exit status and standard error of the command, run in this process."""
    status = loop.main(settings)
    return status, capsys.readouterr().err


# First, fifth and tenth loss in fp32; a refactoring must not change them.
GOLDEN = {"llama muon": [4.14542, 3.83009, 3.65650], "gpt2 adamw": [4.13262, 3.87054, 3.71068]}


@pytest.mark.parametrize("name", ["llama muon", "gpt2 adamw"])
def test_golden_losses(name, data, tmp_path, capsys):
    model = tiny_model() if "llama" in name else tiny_model(mlp="gelu", norm="layernorm", position="learned",
                                                            qk_norm=False, bias=True, zero_init=False)
    settings = tiny_settings(data, tmp_path / "run", model, optimizer=name.split()[1])
    status, _ = main(settings, capsys)
    assert status == 0
    losses = metrics(tmp_path / "run")
    assert [losses[step] for step in (1, 5, 10)] == pytest.approx(GOLDEN[name], abs=2e-3)
    assert losses[1] == pytest.approx(4.11, abs=0.05)  # ln(61)
    validation = metrics(tmp_path / "run", "val_loss")
    assert list(validation) == [0, 4, 5, 8, 10]
    assert validation[10] < validation[0] - 0.1


def test_what_a_run_leaves(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", max_steps=9)
    status, text = main(settings, capsys)
    assert status == 0
    assert "128 tokens per step = 2 sequences x 16 tokens x 4 micro-steps x 1 processes" in text
    arguments = json.loads((settings.out / "args.json").read_text())
    assert arguments["model"]["vocab_size"] == 61
    assert arguments["torch"] == torch.__version__
    assert {"commit", "seed", "total_batch"} <= arguments.keys()
    names = {path.name for path in (settings.out / "checkpoints").iterdir()}
    assert names == {"step_00000008", "step_00000009"}
    line = json.loads((settings.out / "metrics.jsonl").read_text().splitlines()[1])
    assert {"step", "time", "loss", "lr", "norm", "tokens_per_s", "mfu", "epoch"} <= line.keys()
    assert list(settings.out.glob("events.out.tfevents*"))
    again = main(settings, capsys)  # nothing left to do
    assert again[0] == 0
    assert list(metrics(settings.out)) == list(range(1, 10))


def test_settings_are_saved_without_home_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved = plain({"out": tmp_path / "runs", "data": MODEL.parents[1] / "data" / "tokens"})
    assert saved == {"out": "~/runs", "data": "data/tokens"}
    monkeypatch.chdir(tmp_path)
    assert plain(Path("runs")) == "~/runs"  # wherever it is read
    assert plain(["--out=" + str(tmp_path / "x"), f"{tmp_path}by/x"]) == ["--out=~/x", f"{tmp_path}by/x"]
    monkeypatch.setenv("HOME", "/")
    assert plain(Path("/var/x")) == "/var/x"


def test_validation_is_complete_and_exact(data):
    torch.manual_seed(0)
    model = GPT(tiny_model(vocab_size=61))
    split = Split(data, "val")
    tokens = torch.from_numpy(split.read(0, split.tokens))
    for limit in (0, 77, 16):
        targets = (limit or split.tokens - 1)
        nats = 0.0
        for start in range(0, targets, 16):
            x, y = tokens[start:start + 16], tokens[start + 1:min(start + 17, targets + 1)]
            nats += F.cross_entropy(model(x[None, :len(y)])[0], y, reduction="sum").item()
        for micro_batch in (1, 3):
            state = torch.get_rng_state()
            result = evaluate.validation_loss(model, split, 16, micro_batch, limit, Alone())
            assert torch.equal(state, torch.get_rng_state())
            assert result["val_tokens"] == targets
            assert result["val_loss"] == pytest.approx(nats / targets, rel=1e-5)
            assert result["val_bpb"] == pytest.approx(nats / targets / 0.6931472 / 3, rel=1e-5)


REFUSALS = [
    ({"total_batch": 100}, "nearest that are: 96 or 128"),
    ({"total_batch": 2048}, r"split 'train' holds 1,600 tokens, one step takes 2,048"),
    ({"model": tiny_model(vocab_size=60)}, "--vocab_size 60 is below the data's 61"),
    ({"max_steps": 0}, "--max_steps 0 needs --minutes"),
    ({"dropout": 1.0}, "a share from 0 to below 1"),
    ({"keep_activations": 1.5}, "a share from 0 to 1"),
    ({"keep_activations": 0.5, "compile": True}, "blocks that are compiled, on a GPU"),
    ({"device": "cuda"}, "PyTorch sees no CUDA device"),
    ({"fsdp": True}, "torchrun"),
    ({"prompt": "Once"}, r"tokenizer.json, the tokenizer of .* is missing"),
    ({"schedule": "wsd", "warmup": 0.8}, r"--warmup 0.8 \+ --decay 0.4 are more than the run"),
    ({"seed": 2**63}, r"--seed 9223372036854775808: a whole number from 0 to 2\^63 - 1"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSALS, ids=[next(iter(c)) for c, _ in REFUSALS])
def test_mistakes_are_refused(data, tmp_path, capsys, changes, message):
    if "device" in changes and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    status, text = main(tiny_settings(data, tmp_path / "run", **changes), capsys)
    assert status == 2
    assert re.search(message, text), text
    assert "Traceback" not in text
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_does_not_take_the_tokenizer_of_data_encoded_anew(words, tmp_path, capsys):
    folder = shutil.copytree(words / "data", tmp_path / "data")
    settings = tiny_settings(folder, tmp_path / "run", max_steps=2)
    assert main(settings, capsys)[0] == 0
    assert load_run(settings.out)[1] == words
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"]["train"][0]["sha256"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert load_run(settings.out)[1] is None
    assert "has been encoded anew" in capsys.readouterr().err


def test_a_damaged_shard_is_refused_before_the_first_step(tmp_path, capsys):
    folder = make_shards(tmp_path / "data")
    shard = folder / "val_000000.npy"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    status, text = main(tiny_settings(folder, tmp_path / "run"), capsys)
    assert status == 2
    assert "val_000000.npy has another sha256" in text
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_resume_with_other_settings_lists_the_differences(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", max_steps=2)
    assert main(settings, capsys)[0] == 0
    other = tiny_settings(data, tmp_path / "run", tiny_model(n_layer=3), total_batch=64)
    status, text = main(other, capsys)
    assert status == 2
    assert "model.n_layer: 2 -> 3" in text
    assert "total_batch: 128 -> 64" in text
    elsewhere = make_shards(tmp_path / "other data", seed=9)
    status, text = main(dataclasses.replace(settings, data=elsewhere), capsys)
    assert status == 2
    assert "data: [" in text
    status, text = main(dataclasses.replace(settings, resume="never"), capsys)
    assert status == 2
    assert "--resume auto" in text


def test_two_runs_in_one_folder(data, tmp_path, capsys):
    from world import claim

    lock = claim(tmp_path / "run")
    status, text = main(tiny_settings(data, tmp_path / "run"), capsys)
    assert status == 2
    assert "another run is writing to" in text
    lock.close()
    assert main(tiny_settings(data, tmp_path / "run", max_steps=1), capsys)[0] == 0


def test_a_last_update_that_destroys_the_weights_is_not_saved(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", max_steps=1, optimizer="adamw", lr=1e300, warmup=0.0,
                             export=tmp_path / "model")
    status, text = main(settings, capsys)
    assert status == 3
    assert "step 1: validation loss nan; this step is not saved" in text
    assert not (tmp_path / "model").exists()
    assert not list((tmp_path / "run" / "checkpoints").glob("step_*"))


def test_a_loss_that_is_not_finite_stops_before_the_update(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", eval_every=0, save_every=0, lr=1e38, optimizer="adamw", clip=0.0,
                             warmup=0.0)
    status, text = main(settings, capsys)
    assert status == 3
    assert "no update was made. Sequences 8 to 15" in text
    assert not list((settings.out / "checkpoints").glob("step_*"))
    assert "--seed" not in text  # which no run can change at resume


def test_memory_that_cannot_be_had_is_a_mistake_in_one_line(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", tiny_model(block_size=10**15), sequence=16)
    status, text = main(settings, capsys)
    assert status == 2
    assert text.splitlines()[-1].startswith("error: out of memory: ")
    assert "--micro_batch" in text


def test_spikes_are_reported_and_skipped_on_demand(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop, "spike", lambda loss, losses, deviations: len(losses) == 3)
    for name, skip in (("reported", 0.0), ("skipped", 5.0)):
        settings = tiny_settings(data, tmp_path / name, max_steps=6, skip_spikes=skip)
        status, text = main(settings, capsys)
        assert status == 0
        assert "step 4: loss" in text
        assert "is a spike, sequences 24 to 31" in text
        assert ("update skipped" in text) == bool(skip)
    reported, skipped = metrics(tmp_path / "reported"), metrics(tmp_path / "skipped")
    assert reported[4] == skipped[4]
    assert reported[5] != skipped[5]


@pytest.mark.parametrize(("curriculum", "known"), [(0, [0, 1, 2, 3, 4, 5]), (390, [0, 1, 2, 0, 1, 2])])
def test_other_text_is_no_spike(data, tmp_path, capsys, monkeypatch, curriculum, known):
    """Steps of 128 tokens: the fourth has the first sequence behind the curriculum."""
    counts = []
    monkeypatch.setattr(loop, "spike", lambda loss, losses, _: counts.append(len(losses)))
    assert main(tiny_settings(data, tmp_path / "run", max_steps=6, curriculum=curriculum), capsys)[0] == 0
    assert counts == known


def test_what_counts_as_a_spike():
    losses = [3.0 + 0.1 * (-1) ** i for i in range(30)]
    assert not loop.spike(3.3, losses, 6.0)
    assert loop.spike(3.7, losses, 6.0)
    assert not loop.spike(9.0, losses[:10], 6.0)


def test_time_budget(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", max_steps=0, minutes=0.02, eval_every=0, save_every=0)
    began = time.perf_counter()
    assert main(settings, capsys)[0] == 0
    assert 1.0 < time.perf_counter() - began < 30
    lines = [json.loads(line) for line in (settings.out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["time"] >= 1.2
    assert loop.fraction(settings, loop.Progress(step=7), seconds=0.3) == pytest.approx(0.25)  # the schedule's clock
    both = dataclasses.replace(settings, max_steps=10)
    assert loop.fraction(both, loop.Progress(step=7), seconds=0.3) == pytest.approx(0.8)


@pytest.mark.parametrize("document_mask", [False, True])
def test_the_switches_train_in_bfloat16(data, tmp_path, capsys, document_mask):
    model = tiny_model(document_mask=document_mask, n_kv_head=1)
    settings = tiny_settings(data, tmp_path / "run", model, dtype="bfloat16", z_loss=1e-4, schedule="wsd")
    assert main(settings, capsys)[0] == 0
    losses = metrics(settings.out)
    assert losses[10] < losses[1] - 0.1


def test_help_is_quick_and_complete():
    before = os.times()
    result = subprocess.run([sys.executable, str(MODEL), "--preset", "gpt2", "--help"], capture_output=True, text=True,
                            check=True)
    after = os.times()  # CPU seconds, not those of the clock: the machine may be busy
    assert after.children_user + after.children_system - before.children_user - before.children_system < 2
    assert "524288" in result.stdout
    assert "learning rate" in result.stdout
    bad = subprocess.run([sys.executable, str(MODEL), "--preset", "gpt3"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "--preset gpt3 is unknown; there are gpt2" in bad.stderr


def test_flags_reach_the_settings(tmp_path):
    settings = tiny_settings(tmp_path / "d", tmp_path / "o", skip_spikes=2.5)
    assert dataclasses.replace(parse("", flags(settings)), preset="tiny") == settings


OUTSIDE = [
    ("1 or more", "micro_batch=0 micro_batch=-1 block_size=0 n_head=0 n_layer=0 pad_vocab=0 total_batch=0 keep=0"),
    ("0 or more", "lr=-1 lr=nan lr=inf threads=-1 sequence=-16 embedding_std=-1 n_kv_head=-1 head_size=-8 "
                  "mlp_hidden=-1 eval_tokens=-1 clip=-1 max_steps=-5 minutes=-1 weight_decay=-1 save_every=-1"),
    ("1024 or fewer", "threads=40000"),
    ("a number above 0", "rope_theta=0"),
    ("a number of 1 or more", "rope_factor=0"),
    ("a share from 0 to 1", "min_lr=5 decay=-1"),
    ("a share from 0 to below 1", "beta1=2 momentum=2 warmup=1"),
    ("is longer than --block_size 1024", "sequence=1025"),
]


@pytest.mark.parametrize(("words", "flag"), [(words, flag) for words, flags in OUTSIDE for flag in flags.split()])
def test_numbers_outside_their_range_are_refused(words, flag):
    name, text = flag.split("=")
    values = {name: float(text) if text in ("nan", "inf") else int(text)}
    with pytest.raises(InputError, match=f"^--{name} {text}:? {words}$"):
        check(Settings(model=GPTConfig(**values)) if hasattr(GPTConfig, name) else Settings(**values))


@pytest.mark.parametrize("device", ["foo", "mps"])
def test_an_unknown_device_is_refused(data, tmp_path, capsys, device):
    status, text = main(tiny_settings(data, tmp_path / "run", device=device), capsys)
    assert (status, text) == (2, f"error: --device {device} is none of auto, cpu, cuda and cuda:NUMBER\n")


def test_a_file_is_no_folder_for_a_run(data, tmp_path, capsys):
    (tmp_path / "run").write_text("")
    status, text = main(tiny_settings(data, tmp_path / "run"), capsys)
    assert (status, text) == (2, f"error: --out {tmp_path / 'run'} is a file; name a folder for the run\n")


@pytest.mark.parametrize(("vocabulary", "noted"), [(0, False), (67, False), (500, True)])
def test_a_vocabulary_far_above_the_datas_is_noted(data, tmp_path, capsys, vocabulary, noted):
    settings = tiny_settings(data, tmp_path / "run", tiny_model(vocab_size=vocabulary), max_steps=1)
    _, text = main(settings, capsys)
    assert ("note: the data's tokenizer has 61 tokens only; --vocab_size 0 leaves out the others" in text) == noted


@pytest.mark.parametrize(("changes", "message"), [
    ({"choices": Path("/nonexistent.jsonl")}, "/nonexistent.jsonl"),
    ({"prompt": "1 " * 16}, "--prompt has 16 tokens, which leaves no room in --block_size 16"),
    ({"prompt": " "}, "--prompt ' ' is no token, by the data's tokenizer"),
    ({"export": MODEL.parent}, "exists and is no exported model"),
    ({"export": Path("/tmp/never"), "model": tiny_model(mlp="relu2")}, "no Hugging Face architecture computes"),
], ids=["choices", "prompt", "no token", "export", "architecture"])
def test_what_would_fail_later_is_refused_before_the_first_step(words, tmp_path, capsys, changes, message):
    status, text = main(tiny_settings(words / "data", tmp_path / "run", **changes), capsys)
    assert status == 2
    assert message in text.splitlines()[-2 if "model" in changes else -1]
    assert not (tmp_path / "run" / "args.json").exists()
    assert not metrics(tmp_path / "run", "step")


def test_a_failure_between_the_steps_comes_after_the_checkpoint(words, tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise InputError("no scores")

    monkeypatch.setattr(hellaswag, "evaluate", fail)
    for steps, settings in ((4, {"choices_every": 4}), (3, {})):
        out = tmp_path / str(steps)
        settings = tiny_settings(words / "data", out, max_steps=steps, choices=words / "choices.jsonl", **settings)
        assert main(settings, capsys)[0] == 2
        assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step_0000000{steps}"]


def test_what_a_signal_kept_back_is_made_up_for(words, tmp_path, capsys, monkeypatch):
    """A step that was due for an evaluation, scores and samples, and had a checkpoint alone."""
    changes = {"eval_every": 2, "choices_every": 2, "sample_every": 2, "save_every": 0, "prompt": "1 2",
               "choices": words / "choices.jsonl", "max_steps": 3}
    settings = tiny_settings(words / "data", tmp_path / "run", **changes)
    after = between.Between.after_step

    def stopped(self, progress, by):
        after(self, progress, by or (signal.SIGTERM if progress.step == 2 else 0))
        if progress.step == 2:
            raise InputError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(between.Between, "after_step", stopped)
        assert main(settings, capsys)[0] == 2
    assert metrics(settings.out, "val_loss").keys() == {0}
    assert main(settings, capsys)[0] == 0
    assert main(tiny_settings(words / "data", tmp_path / "whole", **changes), capsys)[0] == 0
    for name in ("val_loss", "choices_acc"):
        assert metrics(settings.out, name) == metrics(tmp_path / "whole", name)
        assert 2 in metrics(settings.out, name)
    assert (settings.out / "samples.txt").read_text() == (tmp_path / "whole" / "samples.txt").read_text()


@pytest.mark.parametrize(("what", "step", "due"), [("validation", 2, 2), ("validation", 3, 2), ("choices", 2, 2),
                                                   ("choices", 3, 2), ("validation", 3, 3)])
def test_a_signal_ends_an_evaluation(what, step, due, words, tmp_path, capsys, monkeypatch):
    """It comes in the midst of it, at a step that it is due at (2), at the end (3) or both; the run goes on alike."""
    changes = {"eval_every": due, "choices_every": due, "sample_every": due, "save_every": due, "prompt": "1 2",
               "choices": words / "choices.jsonl", "max_steps": 3}
    settings = tiny_settings(words / "data", tmp_path / "run", **changes)
    before_batch = between.Between.before_batch

    def signalled(self, of_what):
        def before(number, of):
            if (of_what, self.log.bar.n, number) == (what, step, of - 1):
                os.kill(os.getpid(), signal.SIGINT)
            before_batch(self, of_what)(number, of)
        return before

    with monkeypatch.context() as patch:
        patch.setattr(between.Between, "before_batch", signalled)
        status, text = main(settings, capsys)
    assert status == 128 + signal.SIGINT
    assert f"stopped by signal 2 after step {step}" in text
    kept = metrics(settings.out, "val_loss" if what == "validation" else "choices_acc")
    assert step not in kept
    assert (settings.out / "checkpoints" / f"step_{step:08d}").exists()
    status, text = main(settings, capsys)
    assert (status, "minutes for the rest at 40% of the peak" in text) == (0, True)
    assert main(tiny_settings(words / "data", tmp_path / "whole", **changes), capsys)[0] == 0
    for name in ("val_loss", "choices_acc", "loss"):
        assert metrics(settings.out, name) == metrics(tmp_path / "whole", name)
    assert checkpoint_bytes(settings.out) == checkpoint_bytes(tmp_path / "whole")
    assert (settings.out / "samples.txt").read_text() == (tmp_path / "whole" / "samples.txt").read_text()


@pytest.mark.parametrize("eval_every", [2, 0])
def test_the_checkpoint_of_a_signal_may_be_the_best(eval_every, words, tmp_path, capsys, monkeypatch):
    """Step 2 of 6 is the best, by losses that are made up; a signal stops the run there."""
    changes = {"eval_every": eval_every, "save_every": 2, "keep": 1, "max_steps": 6}
    found = iter([9.0, 1.0, 5.0, 5.0] * 2)
    monkeypatch.setattr(between, "validation_loss",
                        lambda *_: {"val_loss": next(found), "val_bpb": 1.0, "val_tokens": 1})
    after = between.Between.after_step

    def stopped(self, progress, by):
        after(self, progress, by or (signal.SIGTERM if progress.step == 2 else 0))
        if progress.step == 2:
            raise InputError("stopped")

    settings = tiny_settings(words / "data", tmp_path / "run", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(between.Between, "after_step", stopped)
        assert main(settings, capsys)[0] == 2
    for out in (tmp_path / "run", tmp_path / "whole"):
        status, text = main(dataclasses.replace(settings, out=out), capsys)
        assert status == 0
        assert f"the best was {out / 'checkpoints' / 'step_00000002'}, validation loss 1.0000" in text
        assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step_00000002", "step_00000006"]
        assert metrics(out, "val_loss") == {0: 9.0, 2: 1.0, 4: 5.0, 6: 5.0}


def test_repeating_a_finished_run_leaves_it_alone(words, tmp_path, capsys):
    settings = tiny_settings(words / "data", tmp_path / "run", max_steps=3, prompt="1 2",
                             choices=words / "choices.jsonl")

    def contents():
        checkpoints = {path: path.stat().st_ino for path in (settings.out / "checkpoints").rglob("*")}
        return checkpoints, *((settings.out / name).read_text() for name in ("samples.txt", "metrics.jsonl"))

    assert main(settings, capsys)[0] == 0
    before = contents()
    status, text = main(dataclasses.replace(settings, export=tmp_path / "export"), capsys)
    assert status == 0
    assert "step 3 was the last of this run" in text
    assert contents() == before
    assert (tmp_path / "export" / "model.safetensors").exists()


def test_a_full_disk_says_what_to_do(data, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RunLog, "write_step", full)
    status, text = main(tiny_settings(data, tmp_path / "run"), capsys)
    assert status == 2
    assert text.splitlines()[-1] == ("error: [Errno 28] No space left on device; make room for "
                                     f"{tmp_path / 'run'}, then the same command goes on from the newest checkpoint")


def test_the_default_length_may_be_given_by_name(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", max_steps=2)
    assert main(settings, capsys)[0] == 0
    more = dataclasses.replace(settings, max_steps=4, sequence=settings.model.block_size)
    assert main(more, capsys)[0] == 0
    assert max(metrics(settings.out)) == 4


@pytest.mark.parametrize("every", [0, 3])
def test_a_finished_run_gets_what_it_lacks_once(words, tmp_path, capsys, monkeypatch, every):
    settings = tiny_settings(words / "data", tmp_path / "run", max_steps=3, save_every=every, choices_every=every,
                             sample_every=every)
    assert main(settings, capsys)[0] == 0
    more = dataclasses.replace(settings, choices=words / "choices.jsonl", prompt="1 2")
    with monkeypatch.context() as patch:  # as if it were killed while it scores
        patch.setattr(hellaswag, "evaluate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            loop.main(more)
    for _ in range(2):
        assert main(more, capsys)[0] == 0
        assert (settings.out / "metrics.jsonl").read_text().count("choices_acc_norm") == 1
        assert (settings.out / "samples.txt").read_text().count("--- step 3\n") == 2  # one for each of its two
    assert list(metrics(settings.out, "val_loss")) == [0, 3]


def test_a_run_stopped_in_its_last_step_is_finished_once(data, tmp_path, capsys, monkeypatch):
    settings = tiny_settings(data, tmp_path / "run", max_steps=3)
    with monkeypatch.context() as patch:  # a signal that step 3 sees
        patch.setattr(loop, "spike", lambda loss, losses, _: len(losses) == 1 and os.kill(os.getpid(), signal.SIGTERM))
        assert main(settings, capsys)[0] == 128 + signal.SIGTERM
    assert list(metrics(settings.out, "val_loss")) == [0]
    for _ in range(2):
        assert main(settings, capsys)[0] == 0
        assert list(metrics(settings.out, "val_loss")) == [0, 3]
        assert [path.name for path in (settings.out / "checkpoints").iterdir()] == ["step_00000003"]


def test_the_time_budget_is_not_spent_on_compiling(data, tmp_path, capsys, monkeypatch):
    def distribute(world, model, fsdp):
        passes = iter([1.5])  # s; the first pass takes longer than the budget, as where it compiles
        model.register_forward_pre_hook(lambda *_: time.sleep(next(passes, 0)) if model.training else None)
        return model

    monkeypatch.setattr(loop.World, "distribute", distribute)
    settings = tiny_settings(data, tmp_path / "run", max_steps=0, minutes=0.02)
    assert main(settings, capsys)[0] == 0
    assert len(metrics(settings.out)) > 2
    assert metrics(settings.out, "lr")[1] > 0


def test_another_validation_set_is_refused_and_other_settings_are_recorded(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", max_steps=2)
    assert main(settings, capsys)[0] == 0
    other = make_shards(tmp_path / "other", seed=3)
    for path in data.glob("train*"):
        (other / path.name).write_bytes(path.read_bytes())
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (data, other)]
    manifests[1]["shards"]["train"] = manifests[0]["shards"]["train"]
    (other / "manifest.json").write_text(json.dumps(manifests[1]))
    status, text = main(dataclasses.replace(settings, data=other), capsys)
    assert status == 2
    assert "validation: [" in text

    for steps, lr in ((4, 3e-3), (6, 1e-3)):
        assert main(dataclasses.replace(settings, max_steps=steps, lr=lr), capsys)[0] == 0
    arguments = json.loads((settings.out / "args.json").read_text())
    assert (arguments["max_steps"], arguments["lr"]) == (6, 1e-3)
    assert arguments["resumed"] == [{"step": 2, "max_steps": [2, 4]},
                                    {"step": 4, "max_steps": [4, 6], "lr": [3e-3, 1e-3]}]


@pytest.mark.parametrize(("every", "steps"), [(0, [10]), (4, [4, 8, 10])])
def test_the_last_step_is_logged(data, tmp_path, capsys, every, steps):
    settings = tiny_settings(data, tmp_path / "run", log_every=every)
    assert main(settings, capsys)[0] == 0
    assert list(metrics(settings.out)) == steps


def test_samples_of_repeated_steps_are_cut(tmp_path):
    (tmp_path / "samples.txt").write_text("--- step 2\none\ntwo\n--- step 4\nthree\n--- step 6\nfour\n")
    RunLog(tmp_path, 4, None, True).close()
    assert (tmp_path / "samples.txt").read_text() == "--- step 2\none\ntwo\n--- step 4\nthree\n"


def test_a_damaged_state_names_the_checkpoint(data, tmp_path, capsys):
    settings = tiny_settings(data, tmp_path / "run", max_steps=5)
    assert main(settings, capsys)[0] == 0
    newest = settings.out / "checkpoints" / "step_00000005"
    (newest / "state.json").write_text("{")
    status, text = main(settings, capsys)
    assert status == 2
    assert f"{newest} is damaged" in text
    assert "delete that folder to continue from the one before" in text
