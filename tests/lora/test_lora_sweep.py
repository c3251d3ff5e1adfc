"""sweep.py on a tiny model: the grid, skipping and resuming, divergence, the table, the scores."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import curves
import pytest
import torch
from sweep_report import in_short, load_groups, report, varying
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


def test_full_fine_tuning_gets_no_flags_of_lora(base, tmp_path):
    (tmp_path / "list.json").write_text('[{"lora_dim": 4}, {"use_lora": false}]')
    for which in ({"full_lr": (1e-3,), "lora_dim": (4,)}, {"list": str(tmp_path / "list.json")}):
        lora, full = sweep.planned_runs(settings(base, tmp_path, dora=True, dropout=(0.1,), **which))
        assert (lora.use_lora, lora.dora, lora.dropout) == (True, True, 0.1)
        assert (full.use_lora, full.dora, full.dropout) == (False, False, 0.0)


def test_alpha_per_rank_holds_for_the_entries_of_a_list_that_give_no_alpha(base, tmp_path):
    (tmp_path / "list.json").write_text('[{"lora_dim": 4}, {"lora_dim": 8, "lora_scaling": 5}]')
    runs = sweep.planned_runs(settings(base, tmp_path, list=str(tmp_path / "list.json"), alpha_per_rank=2.0))
    assert [(run.lora_dim, run.lora_scaling) for run in runs] == [(4, 8.0), (8, 5)]
    runs = sweep.planned_runs(settings(base, tmp_path, list=str(tmp_path / "list.json")))
    assert [(run.lora_dim, run.lora_scaling) for run in runs] == [(4, 32.0), (8, 5)]


def test_listed_runs_of_full_fine_tuning_take_no_notice_of_rank_and_alpha(base, tmp_path):
    (tmp_path / "list.json").write_text('[{"use_lora": false}, {"use_lora": false, "lora_dim": 4, "lora_scaling": 9}]')
    runs = sweep.planned_runs(settings(base, tmp_path, list=str(tmp_path / "list.json"), alpha_per_rank=2.0))
    assert sweep.run_name(runs[0]) == sweep.run_name(runs[1])


def test_a_run_that_cannot_be_made_leaves_the_others(base, tmp_path, capsys):
    (tmp_path / "list.json").write_text('[{"lora_dim": 2, "lora_module_name": "nosuch"}, {"lora_dim": 1}]')
    folder = tmp_path / "sweep"
    assert sweep.main(settings(base, folder, list=str(tmp_path / "list.json"))) == 2
    assert "run 1 of 2, r2-alpha32" in capsys.readouterr().err
    assert "r = 1 " in (folder / "sweep.md").read_text()


def test_names_follow_settings_and_data_but_not_places(base, tmp_path):
    one, two = sweep.planned_runs(settings(base, tmp_path))
    moved = sweep.planned_runs(settings(base, tmp_path / "elsewhere", save_interval=1))
    assert [sweep.run_name(run) for run in moved] == [sweep.run_name(one), sweep.run_name(two)]
    other = tmp_path / "other.json"
    other.write_text((base / "train.json").read_text().replace("Say 3", "Tell 3"))
    changed = sweep.planned_runs(settings(base, tmp_path, data_path=str(other)))[0]
    assert sweep.run_name(changed).split("-")[:-1] == sweep.run_name(one).split("-")[:-1]
    assert sweep.run_name(changed) != sweep.run_name(one)


def test_names_follow_all_the_weights_of_the_base(base, tmp_path):
    def name(weights):
        folder = tmp_path / str(len(list(tmp_path.iterdir()))) / "tiny"  # the folder's own name enters the run's
        folder.mkdir(parents=True)
        for file, content in weights.items():
            (folder / f"{file}.safetensors").write_bytes(content)
        return sweep.run_name(sweep.planned_runs(settings(base, tmp_path, model_name_or_path=str(folder)))[0])

    shards = {"model-00001-of-00002": b"a", "model-00002-of-00002": b"b"}
    assert name(shards) == name(dict(reversed(shards.items())))
    assert len({name(shards), name(shards | {"model-00002-of-00002": b"c"}), name({"model": b"a"}), name({})}) == 4
    data = hashlib.sha256((base / "train.json").read_bytes()).hexdigest()
    weights = hashlib.sha256((base / "tiny" / "model.safetensors").read_bytes()).hexdigest()
    assert sweep.file_hashes(str(base / "train.json"), "", str(base / "tiny")) == [data, "", weights]
    assert sweep.file_hashes(str(base / "train.json"), "", "gpt2") == [data, "", ""]


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


def test_runs_that_differ_in_any_setting_are_not_seeds_of_one(tmp_path):
    runs = [sweep.Settings(lora_dim=4, seed=seed, loraplus_ratio=ratio) for ratio in (1.0, 16.0) for seed in (1, 2)]
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "result.json").write_text("{}")
    groups = load_groups(tmp_path, {str(i): sweep.deciding(run) for i, run in enumerate(runs)}, {})
    assert {label: len(group["runs"]) for label, group in groups.items()} == {
        "r = 4, loraplus_ratio = 1": 2, "r = 4, loraplus_ratio = 16": 2}


def test_an_alpha_that_follows_the_rank_is_not_named():
    follows = [sweep.Settings(lora_dim=rank, lora_scaling=0.1 * rank) for rank in (1, 2, 3, 7)]
    assert varying([sweep.deciding(run) for run in follows]) == []
    assert in_short(0.1 * 3) == "0.3"


def test_every_group_of_full_fine_tuning_is_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("sweep_report.plot_runs", lambda runs, *_: drawn.extend(label for label, *_ in runs))
    runs = [sweep.Settings(use_lora=False, lr=lr) for lr in (1e-4, 2e-4, 3e-4, 4e-4)]
    result = {"status": "finished", "trainable": 1, "steps": 1, "seconds": 1.0, "peak_bytes": 1, "base_eval_loss": 1.0,
              "eval_loss": 1.0, "train_loss": 1.0}
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "result.json").write_text(json.dumps(result))
    report(tmp_path, {str(i): sweep.deciding(run) for i, run in enumerate(runs)}, {})
    assert "| peak GB (with what earlier runs left) |" in (tmp_path / "sweep.md").read_text()
    assert drawn == ["full, lr = 0.0001", "full, lr = 0.0002", "full, lr = 0.0003", "full, lr = 0.0004"]


def test_a_run_that_diverges_is_kept_and_shown(base, tmp_path, capsys):
    sweep.main(settings(base, tmp_path / "lr", lora_dim=(4,), lr=(1e-3, 1e6), max_steps=12))
    statuses = sorted(result["status"] for result in results(tmp_path / "lr").values())
    assert statuses == ["diverged", "finished"]
    assert "lr = 1e+06: **1 of 1 diverged**" in capsys.readouterr().out


def test_a_run_that_diverges_before_its_first_evaluation_has_no_result_to_draw(base, tmp_path, capsys, monkeypatch):
    drawn, save = {}, curves.save_figure
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: (drawn.update({path.name: figure}),
                                                                     save(figure, path)))
    entries = [{"lora_dim": 1, "seed": 1}, {"lora_dim": 1, "seed": 2}, {"lora_dim": 2, "lr": 1e30},
               {"lora_dim": 4, "seed": 1}]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    sweep.main(settings(base, tmp_path / "runs", list=str(tmp_path / "list.json"), max_grad_norm=0.0))
    (lost,) = (result for result in results(tmp_path / "runs").values() if result["status"] == "diverged")
    assert lost["settings"]["lora_dim"] == 2
    assert lost["eval_loss"] is None and lost["train_loss"] is None and lost["base_eval_loss"] > 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "**1 of 1 diverged**" in line)
    assert [cell.strip() for cell in row.split("|")[-4:-1]] == ["", "", ""]  # no losses, no score
    styles = {line.get_label(): line.get_linestyle() for line in drawn["lora_ranks.png"].axes[1].lines}
    assert styles["r = 2, lr = 1e+30: diverged"] == ":"
    assert styles["r = 1, lr = 0.0003"] == styles["r = 4, lr = 0.0003"] == "-"
    mean = drawn["lora_eval_by_rank.png"].axes[0].lines[0]
    evals = {rank: [r["eval_loss"] for r in results(tmp_path / "runs").values() if r["settings"]["lora_dim"] == rank]
             for rank in (1, 4)}
    assert list(mean.get_xdata()) == [1, 4]
    assert list(mean.get_ydata()) == pytest.approx([sum(evals[1]) / 2, evals[4][0]])


def test_without_an_evaluation_set_there_is_no_figure_of_it(base, tmp_path):
    sweep.main(settings(base, tmp_path / "none", eval_ratio=0.0))
    assert {result["eval_loss"] for result in results(tmp_path / "none").values()} == {None}
    assert (tmp_path / "none" / "sweep.md").exists() and (tmp_path / "none" / "lora_ranks.png").exists()
    assert not (tmp_path / "none" / "lora_eval_by_rank.png").exists()


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
    folder, records = tmp_path / "scored", tmp_path / "val.json"
    records.write_text((base / "val.json").read_text())
    asked = settings(base, folder, lora_dim=(2, 2), records=str(records), limit=4)  # 2 twice is one run
    sweep.main(asked)
    assert "0.0% |" in capsys.readouterr().out
    scores = json.loads((folder / "scores.json").read_text())["scores"]
    assert set(scores) == {"base", *results(folder)}
    replies = [json.loads(line) for line in (folder / "replies.jsonl").read_text().splitlines()]
    assert len(replies) == 8
    written = (folder / "replies.jsonl").stat().st_mtime_ns
    sweep.main(asked)
    assert (folder / "replies.jsonl").stat().st_mtime_ns == written
    right = {line["instruction"]: line["reply"] for line in replies if line["model"] == "base"}
    changed = [{**record, "check": {"kind": "exact", "answers": [right.get(record["instruction"])]}}
               for record in json.loads(records.read_text())]
    records.write_text(json.dumps(changed))
    sweep.main(asked)
    assert json.loads((folder / "scores.json").read_text())["scores"]["base"]["macro_average"] == 1.0


def test_records_that_cannot_be_scored_are_refused_before_training(base, tmp_path):
    records = json.loads((base / "val.json").read_text())
    del records[2]["check"]
    (tmp_path / "val.json").write_text(json.dumps(records))
    with pytest.raises(sweep.InputError, match=r"val\.json, record 3: needs a family"):
        sweep.main(settings(base, tmp_path / "bad", records=str(tmp_path / "val.json")))
    assert not (tmp_path / "bad").exists()


def test_a_scoring_that_fails_leaves_the_report_and_cuts_reviews_as_in_training(base, tmp_path, monkeypatch):
    reviews = tmp_path / "reviews.json"
    reviews.write_text(json.dumps([{"text": f"Film {i}.", "label": i % 2} for i in range(20)]))

    def fail(command, **_):
        assert command[command.index("--max_length") + 1] == "50"
        raise sweep.subprocess.CalledProcessError(2, command)

    monkeypatch.setattr(sweep.subprocess, "run", fail)
    with pytest.raises(sweep.subprocess.CalledProcessError):
        sweep.main(settings(base, tmp_path / "runs", lora_dim=(1,), max_steps=1, text_mode="sentiment", max_length=50,
                            data_path=str(reviews), records=str(reviews)))
    assert (tmp_path / "runs" / "sweep.md").exists() and (tmp_path / "runs" / "lora_ranks.png").exists()


@pytest.mark.parametrize(("changes", "said"), [
    ({"data_path": "nowhere.json"}, "nowhere.json does not exist"),
    ({"records": "nowhere.json"}, "--records nowhere.json"),
    ({"list": "nowhere.json"}, "--list nowhere.json"),
    ({"alpha_per_rank": -1.0}, "--alpha_per_rank"),
    ({"lora_dim": (0,)}, "lora_dim is 0"),
    ({"lora_dim": ()}, "--lora_dim: give at least one value"),
    ({"lora_load_path": "x"}, "--lora_load_path brings its rank"),
    ({"adapter_out": "x"}, "--adapter_out: a sweep names"),
    ({"limit": -1}, "--limit is -1"),
    ({"name": ".."}, "--name '..'"),
    ({"records": __file__}, "not valid JSON"),
])
def test_bad_settings_are_named(base, tmp_path, changes, said):
    with pytest.raises(sweep.InputError, match=said):
        sweep.main(settings(base, tmp_path / "bad", **changes))


def test_without_lora_there_are_no_ranks(base, tmp_path):
    runs = sweep.planned_runs(settings(base, tmp_path, use_lora=False, lr=(1e-4, 1e-3)))
    assert [(run.use_lora, run.lr) for run in runs] == [(False, 1e-4), (False, 1e-3)]


def test_a_whole_number_in_a_list_is_the_run_of_the_grid(base, tmp_path):
    (tmp_path / "list.json").write_text('[{"lora_dim": 4, "lora_scaling": 32}]')
    listed, = sweep.planned_runs(settings(base, tmp_path, list=str(tmp_path / "list.json")))
    grid, = sweep.planned_runs(settings(base, tmp_path, lora_dim=(4,)))
    assert sweep.run_name(listed) == sweep.run_name(grid)


def test_a_damaged_result_is_named(tmp_path):
    for text in ("", "[1]", "[" * 100_000):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(sweep.InputError, match=r"result.json is damaged .*delete it"):
            sweep.read_json(tmp_path / "result.json")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_memory_is_measured_on_any_system(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    if platform == "darwin":
        monkeypatch.delattr(sweep.Path, "read_text")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a GPU that --device cpu leaves alone
    assert sweep.memory("cpu", reset=True) > 1e5


def test_a_script_that_fails_is_named_without_its_flags(capsys):
    def fail(_):
        raise subprocess.CalledProcessError(2, [sys.executable, "/home/someone/lora/generate.py", "--base", "x" * 999])

    with pytest.raises(SystemExit, match="2"):
        sweep.run_command(fail, lambda: None)
    assert capsys.readouterr().err == "error: generate.py ended with status 2; see above\n"


@pytest.mark.parametrize("rank", [10**15, 10**18])
def test_want_of_memory_is_one_line(base, tmp_path, rank):
    flags = ("--model_name_or_path", base / "tiny", "--data_path", base / "train.json", "--name", tmp_path / "large",
             "--lora_dim", rank, "--eval_ratio", 0.1, "--device", "cpu")
    done = subprocess.run([sys.executable, str(ROOT / "lora" / "sweep.py"), *map(str, flags)], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: out of memory") and done.stderr.count("\n") == 1


def test_pissas_frozen_half_does_not_count_as_trained(base, tmp_path):
    sweep.main(settings(base, tmp_path / "pissa", lora_dim=(2,), lora_init="pissa", max_steps=1))
    (result,) = results(tmp_path / "pissa").values()
    assert result["trainable"] == 2 * (4 * (32 + 32) + 2 * (32 + 48) + (48 + 32))


def test_all_settings_are_checked_before_the_first_run(base, tmp_path):
    with pytest.raises(sweep.InputError, match="--lora_dim is 0"):
        sweep.main(settings(base, tmp_path / "bad", lora_dim=(1, 0)))
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(("content", "said"), [
    (b'[{"lora_dim": 4}, {"rank": 8}]', "entry 2: 'rank' is no flag"),
    (b'[{"lr": "abc"}]', "entry 1: --lr is 'abc'; it must be a number"),
    (b'[{}, {"lora_dim": 2.5}]', "entry 2: --lora_dim is 2.5; it must be a whole number"),
    (b'[{"lora_dim": true}]', "entry 1: --lora_dim is True; it must be a whole number"),
    (b'[{"lr": 1' + b"0" * 400 + b"}]", "it must be a number"),
    (b'[{"use_lora": 1}]', "entry 1: --use_lora is 1; it must be true or false"),
    (b'[{"data_path": null}]', "entry 1: --data_path is None; it must be text"),
    (b'[{"lora_init": ["zero"]}]', "entry 1: --lora_init is ['zero']; it must be one of zero, pissa"),
    (b'[{"lora_dim": 0}]', "entry 1: --lora_dim is 0; it must be at least 1"),
    (b"[[[1]]]", "entry 1: [[1]] is no object"),
    (b"[]", "expected a non-empty list"),
    (b'[{"lr": ', "Expecting value"),
    ('[{"name": "é"}]'.encode("latin1"), "can't decode byte 0xe9 in position 11"),
])
def test_a_list_with_a_mistake_is_refused(base, tmp_path, content, said):
    path = tmp_path / "list.json"
    path.write_bytes(content)
    with pytest.raises(sweep.InputError) as error:
        sweep.main(settings(base, tmp_path / "bad", list=str(path)))
    assert str(error.value).startswith(f"--list {path}") and said in str(error.value)
    assert not (tmp_path / "bad").exists()
