"""The launchers, run on a copy of them in a path with a space, with a stand-in for Python that logs its calls."""

import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import summary

ROOT = Path(__file__).resolve().parents[2]

# Called as `PYTHON script arguments...`: logs the call, then makes what the real script would leave behind.
# `PYTHON -c ...` is for a real one.
STAND_IN = f"""#!/usr/bin/env bash
[ "$1" != -c ] || exec '{sys.executable}' "$@"
"""
STAND_IN += """
printf '%s\\n' "$*" >>"$LOG"
[ "$1" != "${SLOW_AT:-}" ] || sleep 60
[ "$1" != "${FAIL_AT:-}" ] || exit "${FAIL_WITH:-7}"
make() { mkdir -p "$(dirname "$1")"; echo "made ${SEED:-}" >"$1"; }
case "$1 ${2:-}" in
    "data/prepare.py stories")
        make data/text/stories/train.txt; make data/text/stories/val.txt; make data/choices/stories.jsonl
        make data/instructions/stories_train.json; make data/instructions/stories_val.json ;;
    "data/prepare.py file")
        case "$*" in
            *"--kind text"*) make "data/text/$5/train.txt"; make "data/text/$5/val.txt" ;;
            *) make "data/instructions/$5_train.json"; make "data/instructions/$5_val.json" ;;
        esac ;;
esac
while [ $# -gt 0 ]; do
    case $1 in
        --out) make "$2/tokenizer.json"; make "$2/manifest.json"; make "$2/metrics.jsonl"; make "$2/loss.png" ;;
        --export | --model_out) make "$2/model.safetensors" ;;
        --adapter_out | --adapter-out) make "$2/adapter_model.safetensors" ;;
        --replies | --json) make "$2" ;;
    esac
    shift
done
"""


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / "a clone with spaces"
    folder.mkdir()
    for name in ("setup.sh", "train.sh", "generate.sh", "requirements.txt", "data/stories.py", "pretrain/presets.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    stand_in = tmp_path / "stand in python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def run(*command, cwd=tmp_path, **env):
        log = tmp_path / "log"
        log.write_text("")
        environment = os.environ | {"PYTHON": str(stand_in), "LOG": str(log)} | env
        done = subprocess.run(
            ["bash", str(folder / command[0]), *command[1:]],
            cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )
        done.calls = log.read_text().splitlines()
        return done

    run.folder, run.stand_in = folder, stand_in
    return run


def scripts(done):
    return [" ".join(call.split()[:2]) for call in done.calls]


def test_whole_pipeline_runs_in_order_then_skips_what_is_up_to_date(clone):
    first = clone("train.sh")
    assert first.returncode == 0, first.stderr
    assert scripts(first) == [
        "data/prepare.py stories", "bpe/run.py train", "bpe/run.py encode", "bpe/run.py compare",
        "pretrain/model.py --preset", "pretrain/plot.py data/runs/pretrain/stories",
        "lora/train.py --model_name_or_path",
        "lora/train.py --model_name_or_path", "lora/generate.py --base",
        "data/checkers.py data/runs/lora/stories-replies.jsonl", "data/summary.py stories",
    ]
    again = clone("train.sh")
    assert scripts(again) == ["data/summary.py stories"]
    assert again.stdout.count("up to date") == 10


def test_the_command_of_a_step_can_be_copied(clone, tmp_path):
    (tmp_path / "Müller's text.txt").write_text("text")
    done = clone("train.sh", "--name", "mine", "--text", "Müller's text.txt", "bpe", LC_ALL="C.UTF-8")
    said = re.findall("^== .*: python (.*)", done.stdout, re.MULTILINE)
    assert [" ".join(shlex.split(line)) for line in said] == done.calls[:-1]
    assert done.calls[0].startswith(f"data/prepare.py file {tmp_path}/Müller's text.txt --name mine")


def test_a_changed_input_setting_or_force_makes_what_follows_anew(clone):
    assert clone("train.sh").returncode == 0
    (clone.folder / "data/text/stories/.DS_Store").write_text("macOS's Finder has been here")
    assert scripts(clone("train.sh")) == ["data/summary.py stories"]
    (clone.folder / "data/text/stories/train.txt").write_text("another text")
    assert scripts(clone("train.sh"))[:2] == ["bpe/run.py train", "bpe/run.py encode"]
    assert "--vocab_size 512" in clone("train.sh", "bpe", "--vocab_size", "512").calls[0]
    assert len(clone("train.sh", "--force").calls) == 11


def test_a_later_stage_keeps_what_the_flags_of_an_earlier_one_made(clone, tmp_path):
    (tmp_path / "t.txt").write_text("some text")
    mine = ["train.sh", "--name", "mine", "--text", "t.txt"]
    assert clone(*mine, "bpe", "--vocab_size", "600", "--pattern", "a b").returncode == 0
    done = clone("train.sh", "--name", "mine", "pretrain", "--max_steps", "12")
    assert not any(call.startswith("bpe/") for call in done.calls)
    assert ("== tokenizer: kept as made with --vocab_size 600 --pattern a\\ b (data/tokenizer/mine/tokenizer.json); "
            "--force makes it anew without\n") in done.stdout
    done = clone(*mine)
    assert scripts(done) == ["data/summary.py mine"]
    assert "== pretrain: kept as made with --max_steps 12 (" in done.stdout
    assert scripts(clone(*mine, "bpe", "--vocab_size", "600", "--pattern", "a b")) == ["data/summary.py mine"]
    (tmp_path / "t.txt").write_text("another text")
    done = clone(*mine, SEED="2")
    assert "== tokenizer: made anew without the flags of before: --vocab_size 600 --pattern a\\ b\n" in done.stdout
    assert "== pretrain: made anew without the flags of before: --max_steps 12\n" in done.stdout
    moved = "== pretrain: the run in data/runs/pretrain/mine had other settings or inputs; it is now data/runs/"
    assert moved in done.stdout
    steps = clone.folder / "data/runs/steps"
    (steps / "mine-tokenizer").write_text("done 0123  -\n")  # as an older train.sh left it
    done = clone(*mine)
    assert "bpe/run.py train" in scripts(done) and "of before" not in done.stdout


def test_what_a_stage_is_made_by_is_told_from_how_it_is_said(clone, tmp_path):
    """The content of a file that a flag names counts, its spelling and the interpreter's path do not."""
    config = tmp_path / "c.json"
    config.write_text("{}")
    flags = ("--config", str(config), "--max_steps", "12")
    assert clone("train.sh", "pretrain", *flags).returncode == 0
    assert scripts(clone("train.sh", "pretrain", f"--config={config}", "--max-steps=12")) == ["data/summary.py stories"]
    other = tmp_path / "other python"
    other.symlink_to(clone.stand_in)
    assert scripts(clone("train.sh", "pretrain", *flags, PYTHON=str(other))) == ["data/summary.py stories"]
    assert "kept as made with --config" in clone("train.sh").stdout
    config.write_text('{"lr": 1}')
    assert scripts(clone("train.sh", "pretrain", *flags))[0] == "pretrain/model.py --preset"


def test_a_refused_command_leaves_what_is_kept(clone):
    assert clone("train.sh", "bpe", "--vocab_size", "600").returncode == 0
    assert clone("train.sh", "bpe", "--vocab_sizee", "7", FAIL_AT="bpe/run.py", FAIL_WITH="2").returncode == 2
    done = clone("train.sh", "pretrain")
    assert "tokenizer: kept as made with --vocab_size 600" in done.stdout
    assert not any(call.startswith("bpe/") for call in done.calls)
    assert clone("train.sh", "bpe", "--out", "x").stderr.startswith("error: --out: here the folders follow from --name")


def test_a_deleted_run_leaves_the_model(clone):
    assert clone("train.sh").returncode == 0
    shutil.rmtree(clone.folder / "data/runs/pretrain/stories", ignore_errors=True)
    done = clone("train.sh")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_renamed_input_makes_what_follows_anew(clone):
    texts = clone.folder / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("some text")
    words = ("train.sh", "--name", "mine", "--text", str(texts), "bpe")
    assert clone(*words).calls[0].startswith("data/prepare.py file")
    assert scripts(clone(*words)) == ["data/summary.py mine"]
    (texts / "a.txt").rename(texts / "a.jsonl")
    assert clone(*words).calls[0].startswith("data/prepare.py file")


def test_advice_keeps_the_name(clone):
    done = clone("train.sh", "--name", "mine", "lora")
    assert (done.returncode, done.stderr) == (2, "error: there is no base model data/models/mine to fine-tune; "
                                                 "make it with: bash train.sh --name mine pretrain\n")


def test_an_environment_that_is_gone_is_named(clone, tmp_path):
    done = clone("train.sh", PYTHON="", VIRTUAL_ENV=str(tmp_path / "gone"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/gone/bin/python is no Python 3.11 or newer; ")


def test_an_interrupted_run_continues_in_its_folder_and_another_one_does_not(clone):
    run = clone.folder / "data/runs/pretrain/stories"
    assert clone("train.sh", FAIL_AT="pretrain/model.py", FAIL_WITH="130").returncode == 130
    run.mkdir(parents=True)
    (run / "checkpoint").write_text("half way")
    assert clone("train.sh", "pretrain").returncode == 0
    assert (run / "checkpoint").exists(), "the same command continues"
    assert clone("train.sh", "pretrain", "--lr", "0.1").returncode == 0
    assert not (run / "checkpoint").exists(), "another setting starts anew"
    kept = [path for path in run.parent.iterdir() if (path / "checkpoint").exists()]
    assert len(kept) == 1, "and the old run is moved aside, not deleted"


@pytest.mark.parametrize("script", ["data/prepare.py", "bpe/run.py", "pretrain/model.py", "lora/train.py"])
@pytest.mark.parametrize("status", ["1", "2", "143"])
def test_a_failing_stage_stops_the_pipeline_with_its_status(clone, script, status):
    done = clone("train.sh", FAIL_AT=script, FAIL_WITH=status)
    assert done.returncode == int(status)
    assert done.calls[-1].startswith(script)
    assert clone("train.sh").calls[0].startswith(script), "what failed is not taken for done"


def test_ctrl_c_stops_at_once_and_counts_nothing_as_done(clone, tmp_path):
    environment = os.environ | {"PYTHON": str(clone.stand_in), "LOG": str(tmp_path / "log"), "SLOW_AT": "bpe/run.py"}
    running = subprocess.Popen(
        ["bash", str(clone.folder / "train.sh")], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, start_new_session=True, text=True,
    )
    while "bpe/run.py" not in (running.stdout.readline() or pytest.fail("ended early")):
        pass
    time.sleep(0.3)
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(timeout=10) != 0
    assert scripts(clone("train.sh"))[0] == "bpe/run.py train"


def start_both_runs(clone, log, word, **variables):
    """train.sh at work on LoRA and full fine-tuning: each has written a line with the word to the log."""
    log.write_text("")
    environment = os.environ | {"PYTHON": str(clone.stand_in), "LOG": str(log), **variables}
    running = subprocess.Popen(["bash", str(clone.folder / "train.sh")], env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 20
    while log.read_text().count(word) < 2:
        assert time.monotonic() < deadline, "both runs begin"
        time.sleep(0.1)
    return running


def test_ctrl_c_ends_the_run_beside_as_well(clone, tmp_path):
    running = start_both_runs(clone, tmp_path / "log", "lora/train.py", SLOW_AT="lora/train.py")
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(timeout=10) != 0
    left = subprocess.run(["pgrep", "-f", str(clone.stand_in)], capture_output=True, text=True).stdout
    assert left == "", "nothing goes on in the background"
    assert scripts(clone("train.sh"))[:2] == ["lora/train.py --model_name_or_path"] * 2


def test_sigterm_to_the_script_alone_ends_the_stages_once_they_have_saved(clone, tmp_path):
    log, saving = tmp_path / "log", tmp_path / "saving python"
    slow = f"""[ "$1" != lora/train.py ] || {{
        trap 'sleep 0.5; echo saved >>"$LOG"; exit 0' TERM; echo begun >>"$LOG"; while :; do sleep 0.1; done; }}
    exec '{clone.stand_in}' "$@"
    """
    saving.write_text("#!/usr/bin/env bash\n" + slow)
    saving.chmod(0o755)
    running = start_both_runs(clone, log, "begun", PYTHON=str(saving))
    running.terminate()
    assert running.wait(timeout=10) == 143
    assert log.read_text().count("saved") == 2
    steps = clone.folder / "data/runs/steps"
    assert all((steps / f"stories-{name}").read_text().startswith("started") for name in ("full", "lora"))


def test_own_text_and_instructions_relative_to_the_caller(clone, tmp_path):
    caller = tmp_path / "my texts"
    caller.mkdir()
    (caller / "my book.txt").write_text("text")
    (caller / "ask.json").write_text("[]")
    command = ["train.sh", "--name", "mine", "--text", "my book.txt", "--instructions", "ask.json"]
    done = clone(*command, cwd=caller)
    assert done.returncode == 0, done.stderr
    assert f"data/prepare.py file {caller}/my book.txt --name mine --kind text --val_share 0.05" in done.calls
    assert any(call.startswith("pretrain/model.py --preset text ") for call in done.calls)
    assert not any("checkers.py" in call for call in done.calls), "only our own instructions have checkers"
    assert scripts(clone(*command, cwd=caller)) == ["data/summary.py mine"]


def test_own_text_behind_a_link_is_looked_at(clone, tmp_path):
    (tmp_path / "first.txt").write_text("one")
    (tmp_path / "second.txt").write_text("two")
    (tmp_path / "link.txt").symlink_to("first.txt")
    command = ["train.sh", "--name", "mine", "--text", "link.txt", "bpe"]
    assert scripts(clone(*command))[0] == "data/prepare.py file"
    assert scripts(clone(*command)) == ["data/summary.py mine"]
    (tmp_path / "link.txt").unlink()
    (tmp_path / "link.txt").symlink_to("second.txt")
    assert scripts(clone(*command))[0] == "data/prepare.py file"


@pytest.mark.parametrize("flags", [["pretrain", "--lr", "0.1"], ["--force", "pretrain"]])
def test_the_folder_of_a_running_job_stays_where_it_is(clone, flags):
    run = clone.folder / "data/runs/pretrain/stories"
    assert clone("train.sh", "pretrain").returncode == 0
    with (run / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as pretrain/ and lora/ hold it
        done = clone("train.sh", *flags)
        assert done.returncode == 2
        assert done.stderr == "error: a job is running in data/runs/pretrain/stories; wait for it, or stop it\n"
        assert [path.name for path in run.parent.iterdir()] == ["stories"]
    assert clone("train.sh", *flags).returncode == 0, "the lock of a job that has ended stops nobody"


def test_a_second_fine_tuning_leaves_the_log_of_the_first_alone(clone):
    assert clone("train.sh").returncode == 0
    run = clone.folder / "data/runs/lora/stories-full"
    log = run.with_name("stories-full.log")
    log.write_text("of the first")
    run.mkdir(exist_ok=True)
    with (run / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = clone("train.sh", "lora")
    assert done.returncode == 2
    assert done.stderr == "error: a job is running in data/runs/lora/stories-full; wait for it, or stop it\n"
    assert log.read_text() == "of the first"


def test_prepared_text_is_not_its_own_source(clone):
    own = clone.folder / "data/text/mine/train.txt"
    own.parent.mkdir(parents=True)
    own.write_text("my text")
    for path in (ROOT / "data").glob("*.py"):
        shutil.copy(path, clone.folder / "data")
    done = clone("train.sh", "--name", "mine", "--text", "data/text/mine", PYTHON=sys.executable)
    assert done.returncode == 2
    assert done.stderr.startswith("error: data/text/mine/train.txt: --name mine is written there itself; choose")
    assert own.read_text() == "my text"


def test_flags_that_only_look_like_files_of_the_caller_stay_as_they_are(clone, tmp_path):
    assert clone("train.sh").returncode == 0
    for folder in ("300", "lora", "set"):
        (tmp_path / folder).mkdir()
    for file in ("mine.json", "set/more.json", "--lr"):
        (tmp_path / file).write_text("[]")
    given = ["--vocab", "300", "--name", "lora", "--pattern", "", "--lr", "1", "mine.json", "set/more.json", "/"]
    read = [str(tmp_path / word) if word.endswith(".json") else word for word in given]
    assert clone("train.sh", "lora", *given).calls[0] == ON_STORIES + " ".join(read)
    assert clone("train.sh", "lora", "lora", cwd=clone.folder).calls[0] == f"{ON_STORIES}lora"
    link = tmp_path / "another way to the clone"
    link.symlink_to(clone.folder)
    assert clone("train.sh", "lora", "lora/../train.sh", cwd=link).calls[0] == f"{ON_STORIES}lora/../train.sh"


def test_files_after_an_equals_sign_and_what_a_run_makes_are_the_callers(clone, tmp_path):
    (tmp_path / "mine.json").write_text("[]")
    given = ["--data_path=mine.json", "--lr=1e-3", "--adapter_out", "out/a", "--model_out=out/m"]
    given += ["--output_dir_name", "r"]
    done = clone("train.sh", "lora", *given)
    assert done.calls[0] == (f"lora/train.py --data_path={tmp_path}/mine.json --lr=1e-3 --adapter_out {tmp_path}/out/a "
                             f"--model_out={tmp_path}/out/m --output_dir_name r")
    assert clone("train.sh", "lora", *given, cwd=clone.folder).calls[0] == " ".join(["lora/train.py", *given])
    assert clone("train.sh", "lora", "--model_out", "m").calls[0] == f"lora/train.py --model_out {tmp_path}/m"


ON_STORIES = ("lora/train.py --model_name_or_path data/models/stories --data_path "
              "data/instructions/stories_train.json --eval_data_path data/instructions/stories_val.json ")


def test_lora_with_flags_is_one_run_of_the_trainer_on_the_base_that_is_there(clone, tmp_path):
    flags = ["--use_lora", "True", "--lora_dim", "8"]
    assert clone("train.sh", "lora", *flags).calls[0] == "lora/train.py --use_lora True --lora_dim 8"
    assert clone("train.sh").returncode == 0
    done = clone("train.sh", "lora", *flags)
    assert done.calls == [f"{ON_STORIES}--use_lora True --lora_dim 8", "data/summary.py stories"]
    done = clone("train.sh", "lora", "--data-path=a.json")
    assert done.calls[0] == "lora/train.py --model_name_or_path data/models/stories --data-path=a.json"
    for other in (["--model_name_or_path", "gpt2"], ["--model-name-or-path=gpt2"]):
        assert clone("train.sh", "lora", *other, *flags).calls[0] == " ".join(["lora/train.py", *other, *flags])


@pytest.mark.parametrize("flag", ["--out", "--export=here", "--data"])
def test_pretrain_refuses_other_folders_before_anything_starts(clone, flag):
    done = clone("train.sh", "pretrain", flag, "x")
    assert (done.returncode, done.calls) == (2, [])
    assert done.stderr.startswith(f"error: {flag.removesuffix('=here')}: here the folders follow from --name NAME; ")
    assert "pretrain/model.py" in done.stderr


def test_lora_with_a_name_and_flags_is_a_run_on_what_the_name_stands_for(clone):
    base, instructions = "--model_name_or_path data/models/mine", "data/instructions/mine"
    done = clone("train.sh", "--name", "mine", "lora", "--lora_dim", "8")
    data = f"--data_path {instructions}_train.json --eval_data_path {instructions}_val.json"
    assert done.calls[0] == f"lora/train.py {base} {data} --lora_dim 8"
    done = clone("train.sh", "--name", "mine", "lora", "--data_path", "a.json")
    assert done.calls[0] == f"lora/train.py {base} --data_path a.json"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["train.sh", "bqe"], "unknown argument 'bqe'"),
        (["train.sh", "--name"], "--name needs a value"),
        (["train.sh", "--text", "x.txt"], "need --name"),
        (["train.sh", "--name", "", "bpe"], "--name needs a value"),
        (["train.sh", "--name", "../x", "bpe"], "--name '../x': letters, digits, dot, dash and underscore only"),
        (["train.sh", "--name", "nope", "bpe"], "there is no data/text/nope/train.txt; give --text FILE"),
        (["generate.sh", "--name", "../x"], "--name '../x': letters, digits"),
        (["generate.sh", "--replies"], "--replies needs a value"),
        (["train.sh", "--name", "mine", "--text", "absent.txt"], "no such file: absent.txt"),
        (["train.sh", "--name=../x", "--text=a=b.txt"], "--name '../x': letters, digits"),
        (["train.sh", "--name=mine", "--text=a=b.txt", "bpe"], "no such file: a=b.txt"),
        (["train.sh", "--name=", "bpe"], "--name needs a value"),
        (["train.sh", "lora"], "no base model data/models/stories"),
        (["generate.sh"], "bash train.sh"),
        (["generate.sh", "--name", "mine"], "bash train.sh --name mine"),
    ],
)
def test_bad_calls_say_what_to_do_and_exit_2(clone, command, says):
    done = clone(*command)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert done.calls == []


def test_generate_hands_over_what_there_is(clone):
    base, plain = "--base data/models/stories", "--template plain"
    assert clone("train.sh", "pretrain").returncode == 0
    assert clone("generate.sh", "--prompt", "a b").calls == [f"lora/generate.py {base} {plain} --prompt a b"]
    assert clone("train.sh").returncode == 0
    tuned = "--full data/models/stories-full --adapters data/adapters/stories-lora"
    assert clone("generate.sh").calls == [f"lora/generate.py {base} {tuned}"]  # each as it was trained


def test_what_another_base_was_fine_tuned_to_is_neither_shown_nor_measured(clone, monkeypatch, capsys):
    monkeypatch.setattr(summary, "ROOT", clone.folder)
    monkeypatch.setattr(summary, "DATA", clone.folder / "data")
    for numbers in ("read", "last_values"):  # the stand-in measures nothing
        monkeypatch.setattr(summary, numbers, lambda path: {})
    assert clone("train.sh").calls[-1] == "data/summary.py stories"
    shown = "lora/generate.py --base data/models/stories"
    done = clone("train.sh", "pretrain", "--max_steps", "12", SEED="2")
    assert done.calls[-1] == "data/summary.py stories full lora"
    done = clone("generate.sh")
    assert done.calls == [f"{shown} --template plain"]
    notes = done.stderr.splitlines()
    assert [note.split(" is left out: ")[0] for note in notes] == [
        "note: data/models/stories-full", "note: data/adapters/stories-lora"]
    assert all(note.endswith("; bash train.sh makes it anew") for note in notes)
    summary.main("stories", "full", "lora")
    printed = capsys.readouterr().out
    assert "  data/models/stories  " in printed and "  data/models/stories-full  " not in printed
    assert "  bash train.sh   makes anew what was made from other files or settings: data/models/stories-f" in printed
    assert clone("train.sh").calls[-1] == "data/summary.py stories"
    tuned = "--full data/models/stories-full --adapters data/adapters/stories-lora"
    assert clone("generate.sh").calls == [f"{shown} {tuned}"]
    bpe = "train.sh", "bpe", "--vocab_size", "600"
    assert clone(*bpe, SEED="3").calls[-1] == "data/summary.py stories pretrain"
    assert clone("train.sh", FAIL_AT="pretrain/model.py", FAIL_WITH="130").returncode == 130
    assert clone(*bpe, SEED="3").calls[-1] == "data/summary.py stories pretrain", "begun, not done"


def test_a_prompt_is_a_text_whatever_files_there_are(clone, tmp_path):
    assert clone("train.sh", "pretrain").returncode == 0
    for name in ("cat", "dog"):
        (tmp_path / name).touch()
    done = clone("generate.sh", "--prompt", "cat", "dog", "--input=cat", "--records", "cat")
    assert done.calls[0].endswith(f"--prompt cat dog --input=cat --records {tmp_path}/cat")


def test_an_adapter_made_where_the_user_is_is_found_from_there(clone, tmp_path):
    assert clone("train.sh").returncode == 0
    assert clone("train.sh", "lora", "--adapter-out", "my_ad").returncode == 0
    assert (tmp_path / "my_ad").is_dir()
    (tmp_path / "cat").mkdir()
    done = clone("generate.sh", "--adapters", "my_ad", "gpt2", "--full=my_ad", "--prompt", "cat", "my_ad")
    found = f"--adapters {tmp_path}/my_ad gpt2 --full={tmp_path}/my_ad --prompt cat my_ad"
    assert done.calls[0].endswith(f" --adapters data/adapters/stories-lora {found}")
    for flag in ("--model_name_or_path", "--lora_load_path"):
        assert clone("train.sh", "lora", flag, "my_ad").calls[0].endswith(f" {flag} {tmp_path}/my_ad")
    done = clone("train.sh", "pretrain", "--init_from", "my_ad")
    assert any(call.endswith(f"--init_from {tmp_path}/my_ad") for call in done.calls)


def test_generate_reads_and_writes_where_the_user_is(clone, tmp_path):
    assert clone("train.sh", "--name", "mine", "--text", "my.txt", "pretrain").returncode == 2
    (tmp_path / "my.txt").write_text("text")
    assert clone("train.sh", "--name", "mine", "--text", "my.txt", "pretrain").returncode == 0
    common = "lora/generate.py --base data/models/mine --template plain"
    done = clone("generate.sh", "--records", "my.txt", "--replies", "out.jsonl", "--name", "mine", "--top_p", "0.5")
    assert done.calls == [f"{common} --records {tmp_path}/my.txt --replies {tmp_path}/out.jsonl --top_p 0.5"]
    done = clone("generate.sh", "--name=mine", "--replies=out.jsonl", "--replies", "/tmp/out.jsonl", cwd=clone.folder)
    assert done.calls == [f"{common} --replies {clone.folder}/out.jsonl --replies /tmp/out.jsonl"]


@pytest.mark.parametrize(
    ("stage", "script"), [("bpe", "bpe/run.py train"), ("pretrain", "pretrain/model.py"), ("lora", "lora/train.py")]
)
def test_the_help_of_a_stage_runs_nothing_else(clone, stage, script):
    run = clone.folder / "data/runs/pretrain/stories"
    run.mkdir(parents=True)
    done = clone("train.sh", stage, "--preset", "x", "--help")
    assert (done.returncode, done.calls) == (0, [f"{script} --preset x --help"])
    assert [path.name for path in run.parent.iterdir()] == ["stories"], "no run is moved aside"


@pytest.mark.parametrize("status", ["1", "2"])
def test_a_refused_setting_does_not_cost_the_run_that_is_there(clone, status):
    run = clone.folder / "data/runs/pretrain/stories"
    assert clone("train.sh", "pretrain").returncode == 0
    done = clone("train.sh", "pretrain", "--leaning_rate", "1", FAIL_AT="pretrain/model.py", FAIL_WITH=status)
    assert done.returncode == int(status)
    assert run.exists() == (status == "2")
    assert scripts(clone("train.sh", "pretrain"))[0].startswith("data/summary.py" if status == "2" else "pretrain/")


def test_a_full_disk_costs_no_run_that_is_there(clone, monkeypatch):
    """Files cannot grow, as on a full disk: the stamp stays, and the interrupted run continues once there is room."""
    monkeypatch.setenv("FAIL_AT", "pretrain/model.py")
    run = clone.folder / "data/runs/pretrain/stories"
    assert clone("train.sh", "pretrain").returncode == 7
    run.mkdir(parents=True)
    (run / "checkpoint").write_text("kept")
    stamp = clone.folder / "data/runs/steps/stories-pretrain"
    before = stamp.read_text()
    full = clone.folder / "full.sh"
    full.write_text("trap '' XFSZ; ulimit -f 0; exec bash \"$(dirname \"$0\")/train.sh\" \"$@\"")
    for flags in ([], ["--lr", "1"]):
        done = clone("full.sh", "pretrain", *flags)
        assert done.returncode == 2
        assert done.stderr == (
            "error: cannot write data/runs/steps/stories-pretrain; is the disk full, or the folder read-only?\n"
        )
        assert (stamp.read_text(), (run / "checkpoint").read_text()) == (before, "kept")
    assert sorted(path.name for path in stamp.parent.glob("*pretrain*")) == ["stories-pretrain"]
    again = clone("train.sh", "pretrain", FAIL_AT="")
    assert again.returncode == 0 and (run / "checkpoint").read_text() == "kept"


def test_a_folder_that_cannot_be_written_is_named(clone):
    (clone.folder / "data/runs").write_text("in the way")  # as a read-only folder is, also for root
    done = clone("train.sh")
    assert (done.returncode, done.calls) == (2, [])
    assert done.stderr.endswith("error: cannot write data/runs; is the disk full, or the folder read-only?\n")


def test_instructions_can_come_when_the_base_is_there(clone, tmp_path):
    for name in ("my.txt", "ask.json"):
        (tmp_path / name).write_text("text")
    assert clone("train.sh", "--name", "mine", "--text", "my.txt", "pretrain").returncode == 0
    done = clone("train.sh", "--name", "mine", "--instructions", "ask.json", "lora")
    assert f"data/prepare.py file {tmp_path}/ask.json --name mine --kind instructions" in done.calls
    assert sum(call.startswith("lora/train.py") for call in done.calls) == 2


def test_tools_that_macos_lacks_are_not_needed(clone, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    names = "bash env sed cat find mkdir mv date dirname basename tail getconf grep wc head cut sort"
    for name in names.split():
        (tools / name).symlink_to(shutil.which(name))
    shasum = tools / "shasum"
    real = shutil.which("sha256sum") or "shasum -a 256"
    shasum.write_text(f'#!/bin/bash\n[ "$1 $2" = "-a 256" ] && exec {real} "${{@:3}}"\n')
    shasum.chmod(0o755)
    for _ in range(2):
        done = clone("train.sh", PATH=str(tools))
        assert (done.returncode, done.stderr) == (0, "")
    assert scripts(done) == ["data/summary.py stories"]
    with (clone.folder / "data/runs/pretrain/stories/.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "a job is running" in clone("train.sh", "--force", "pretrain", PATH=str(tools)).stderr


def test_help_is_cut_out_as_every_sed_understands(clone):
    for script in ("train.sh", "generate.sh"):
        assert f"bash {script}" in clone(script, "--help").stdout
        text = (clone.folder / script).read_text()
        assert not re.search(r"sed .*[^;\s]}'", text), "BSD's sed needs a ; before }"


def test_cdpath_does_not_lead_astray(clone, tmp_path):
    environment = os.environ | {"CDPATH": f".:{tmp_path}", "PYTHON": str(clone.stand_in), "LOG": str(tmp_path / "log")}
    done = subprocess.run(["bash", f"{clone.folder.name}/train.sh", "--help"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_an_interpreter_is_looked_for_where_the_caller_is(clone, tmp_path):
    done = clone("train.sh", "bpe", PYTHON=f"./{clone.stand_in.name}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_interrupted_installation_is_mended(clone, tmp_path):
    """Ctrl-C while .venv was made leaves a Python without pip."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text(f"""#!/usr/bin/env bash
case "$*" in
    "-c "*sys.prefix*) echo '{venv}' ;;
    "-c "*) exec '{sys.executable}' "$@" ;;
    "-m ensurepip"*) touch '{venv}/pip' ;;
    "-m pip --version") [ -e '{venv}/pip' ] ;;
    "-m pip install"*) [ -e '{venv}/pip' ] && echo installed >&2 ;;
    *) exec '{clone.stand_in}' "$@" ;;
esac
""")
    python.chmod(0o755)
    done = clone("train.sh", "bpe", PYTHON="", VIRTUAL_ENV=str(venv))
    assert (done.returncode, done.stderr) == (0, "installed\n")


def test_an_interpreter_that_is_not_there_is_named(clone):
    done = clone("train.sh", PYTHON="/no/such/python")
    assert done.returncode == 2
    assert "PYTHON=/no/such/python" in done.stderr
