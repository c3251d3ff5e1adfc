"""sweep.py on a tiny model: the grid, skipping and resuming, divergence, the table, the scores."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("lora_sweep", ROOT / "lora" / "sweep.py")
sweep = importlib.util.module_from_spec(spec)
sys.modules["lora_sweep"] = sweep
spec.loader.exec_module(sweep)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                                         num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
                                         eos_token_id=0, bos_token_id=0))
    model.save_pretrained(folder / "tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"<|endoftext|>": 0, **{c: i for i, c in enumerate(alphabet, 1)}}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder / "tiny")
    records = [{"instruction": f"Say {i}.", "input": "", "output": str(i), "family": "say",
                "check": {"kind": "exact", "answers": [str(i)]}} for i in range(40)]
    (folder / "train.json").write_text(json.dumps(records))
    (folder / "val.json").write_text(json.dumps(records[:6]))
    return folder


def settings(base, folder, **changes):
    return sweep.SweepSettings(**{
        "model_name_or_path": str(base / "tiny"), "data_path": str(base / "train.json"), "eval_ratio": 0.1,
        "max_steps": 4, "eval_interval": 2, "gradient_accumulation_steps": 1, "response_tokens": 4, "name": str(folder),
        "lora_dim": (1, 4), "train_batch_size": (4,), "device": "cpu", **changes})


def results(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


def test_grid_and_list_of_settings(base, tmp_path):
    runs = sweep.planned_runs(settings(base, tmp_path, lr=(1e-4, 1e-3), seed=(1, 2, 3), full_lr=(1e-4,)))
    assert len(runs) == 2 * 2 * 3 + 3
    assert len({sweep.run_name(run) for run in runs}) == 15
    assert [run.use_lora for run in runs].count(False) == 3
    runs = sweep.planned_runs(settings(base, tmp_path, alpha_per_rank=2.0))
    assert [(run.lora_dim, run.lora_scaling) for run in runs] == [(1, 2.0), (4, 8.0)]
    (tmp_path / "list.json").write_text('[{"lora_dim": 4, "lr": 0.003}, {"use_lora": false, "max_steps": 9}]')
    first, second = sweep.planned_runs(settings(base, tmp_path, list=str(tmp_path / "list.json")))
    assert (first.lora_dim, first.lr, first.max_steps) == (4, 0.003, 4)
    assert (second.use_lora, second.max_steps) == (False, 9)


def test_names_follow_settings_and_data_but_not_places(base, tmp_path):
    one, two = sweep.planned_runs(settings(base, tmp_path))
    moved = sweep.planned_runs(settings(base, tmp_path / "elsewhere", save_interval=1))
    assert [sweep.run_name(run) for run in moved] == [sweep.run_name(one), sweep.run_name(two)]
    other = tmp_path / "other.json"
    other.write_text((base / "train.json").read_text().replace("Say 3", "Tell 3"))
    changed = sweep.planned_runs(settings(base, tmp_path, data_path=str(other)))[0]
    assert sweep.run_name(changed).split("-")[:-1] == sweep.run_name(one).split("-")[:-1]
    assert sweep.run_name(changed) != sweep.run_name(one)


def test_runs_are_logged_skipped_and_added_to(base, tmp_path, capsys):
    folder = tmp_path / "my sweep"
    s = settings(base, folder, full_lr=(1e-3,), seed=(1, 2))
    sweep.main(s)
    first = results(folder)
    assert len(first) == 6
    for name, result in first.items():
        assert result["status"] == "finished" and result["steps"] == 4
        assert {"metrics.jsonl", "arguments.json", "response.txt"} <= {path.name for path in (folder / name).iterdir()}
    trainable = {r["settings"]["lora_dim"]: r["trainable"] for r in first.values() if r["settings"]["use_lora"]}
    per_rank = 4 * (32 + 32) + 2 * (32 + 48) + (48 + 32)  # q, k, v, o; gate, up; down
    assert trainable == {1: per_rank, 4: 4 * per_rank}
    assert "r = 1 " in (folder / "sweep.md").read_text() and "full" in (folder / "sweep.md").read_text()
    assert (folder / "lora_ranks.png").exists() and (folder / "lora_eval_by_rank.png").exists()
    times = {name: (folder / name / "result.json").stat().st_mtime_ns for name in first}
    capsys.readouterr()
    sweep.main(settings(base, folder, full_lr=(1e-3,), seed=(1, 2, 3)))
    assert "9 runs" in capsys.readouterr().out
    assert len(results(folder)) == 9
    assert all((folder / name / "result.json").stat().st_mtime_ns == t for name, t in times.items())


def test_a_run_that_diverges_is_kept_and_shown(base, tmp_path, capsys):
    sweep.main(settings(base, tmp_path / "lr", lora_dim=(4,), lr=(1e-3, 1e6), max_steps=12))
    statuses = sorted(result["status"] for result in results(tmp_path / "lr").values())
    assert statuses == ["diverged", "finished"]
    assert "lr = 1000000.0: **1 of 1 diverged**" in capsys.readouterr().out


def test_an_interrupted_run_continues_to_the_same_result(base, tmp_path, monkeypatch):
    import finetune_loop

    whole = settings(base, tmp_path / "whole", lora_dim=(4,), save_interval=1)
    sweep.main(whole)
    original, calls = finetune_loop.Trainer.gradient, []

    def interrupt(self, step, stop=0):
        calls.append(step)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, step, stop)

    monkeypatch.setattr(finetune_loop.Trainer, "gradient", interrupt)
    cut = settings(base, tmp_path / "cut", lora_dim=(4,), save_interval=1)
    with pytest.raises(KeyboardInterrupt):
        sweep.main(cut)
    assert not results(tmp_path / "cut")
    sweep.main(cut)
    assert calls == [0, 1, 2, 2, 3]
    (a,), (b,) = results(tmp_path / "whole").values(), results(tmp_path / "cut").values()
    assert a["eval_loss"] == b["eval_loss"] and a["train_loss"] == b["train_loss"]


def test_replies_are_scored(base, tmp_path, capsys):
    folder = tmp_path / "scored"
    sweep.main(settings(base, folder, lora_dim=(2,), records=str(base / "val.json"), limit=4))
    assert "0.0% |" in capsys.readouterr().out
    scores = json.loads((folder / "scores.json").read_text())["scores"]
    assert set(scores) == {"base", *results(folder)}
    assert len((folder / "replies.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize(("changes", "said"), [
    ({"data_path": "nowhere.json"}, "nowhere.json does not exist"),
    ({"records": "nowhere.json"}, "--records nowhere.json"),
    ({"list": "nowhere.json"}, "--list nowhere.json"),
    ({"alpha_per_rank": -1.0}, "--alpha_per_rank"),
    ({"lora_dim": (0,)}, "lora_dim is 0"),
])
def test_bad_settings_are_named(base, tmp_path, changes, said):
    with pytest.raises(sweep.InputError, match=said):
        sweep.main(settings(base, tmp_path / "bad", **changes))


def test_a_list_with_an_unknown_flag_is_refused(base, tmp_path):
    (tmp_path / "list.json").write_text('[{"lora_dim": 4}, {"rank": 8}]')
    with pytest.raises(sweep.InputError, match="entry 2: 'rank' is no flag"):
        sweep.main(settings(base, tmp_path / "bad", list=str(tmp_path / "list.json")))
