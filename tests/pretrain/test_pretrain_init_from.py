"""--init_from: a model that exists is trained further, from its own weights, and nothing else takes its place."""

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys

import loop
import pytest
import tokenizers
import torch
from convert import export, load, load_any, load_run
from evaluate import validation_loss
from init_from import fill
from model import GPT
from presets import InputError, Settings, check, parse
from pretrain_tiny import MODEL, Alone, checkpoint_bytes, make_shards, metrics, run, tiny_model, tiny_settings
from shards import Split

GPT2 = {"norm": "layernorm", "position": "learned", "mlp": "gelu", "qk_norm": False, "bias": True, "zero_init": False}


def shards_by(words, folder, data):
    """Shards in `data` that name a tokenizer of these words, which is made in `folder`."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, "0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    path = make_shards(data, vocabulary=len(words)) / "manifest.json"
    sha256 = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    names = {"tokenizer": str(folder), "tokenizer_sha256": sha256}
    path.write_text(json.dumps(json.loads(path.read_text()) | names))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Shards with a tokenizer, and two models for them: `llama` and, of more tokens and positions, `gpt2`."""
    place = tmp_path_factory.mktemp("a model")
    shards_by(list(map(str, range(61))), place / "tokenizer", place / "data")
    torch.manual_seed(5)
    for name, config in (("llama", tiny_model(vocab_size=61, end_of_text=0)),
                         ("gpt2", tiny_model(**GPT2, vocab_size=70, block_size=40, end_of_text=0))):
        model = GPT(config)
        for p in model.parameters():
            p.data.add_(0.1 * torch.randn_like(p))
        export(model, place / "tokenizer", place / name)
    return place


def settings(place, out, name="llama", **changes):
    """Of a run of four steps that begins with a model of `place`, whose architecture parse() takes over."""
    source = str(place / name)
    config = dataclasses.replace(parse("", ["--init_from", source]).model, **changes.pop("model", {}))
    return tiny_settings(changes.pop("data", place / "data"), out, config,
                         **{"init_from": source, "max_steps": 4, "sequence": 16, **changes})


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_first_loss_is_the_models_own_and_training_lowers_it(place, tmp_path, name):
    assert loop.main(settings(place, tmp_path / "run", name, lr=3e-3, muon_lr=0.01, export=tmp_path / "out")) == 0
    losses = metrics(tmp_path / "run", "val_loss")
    model, val = load(place / name), Split(place / "data", "val")
    x, y = val.sequences([0], val.tokens - 1)
    with torch.no_grad():
        windows = [model(x[:, at:at + 16], y[:, at:at + 16]) * len(x[0, at:at + 16]) for at in range(0, x.shape[1], 16)]
    assert losses[0] == pytest.approx(float(sum(windows)) / x.shape[1], rel=1e-5)
    assert losses[4] < losses[0]
    trained = load(tmp_path / "out")
    assert dataclasses.replace(trained.config, end_of_text=0) == dataclasses.replace(model.config, end_of_text=0)
    pairs = zip(trained.parameters(), model.parameters(), strict=True)
    moved = [float((p - q).detach().abs().mean()) for p, q in pairs]
    assert all(distance < 0.1 for distance in moved) and max(moved) > 0


def test_a_run_can_be_trained_further_by_several_processes_and_continued(place, tmp_path):
    """Also without the weights that it began with, which its checkpoint makes needless."""
    first = tiny_settings(place / "data", tmp_path / "first", max_steps=4)
    run(first)
    further = tiny_settings(place / "data", tmp_path / "one", init_from=str(tmp_path / "first"), max_steps=4)
    run(further)
    before, after = (metrics(tmp_path / name, "val_loss") for name in ("first", "one"))
    assert after[0] == pytest.approx(before[4], rel=1e-5)
    run(dataclasses.replace(further, out=tmp_path / "two"), processes=2)
    run(dataclasses.replace(further, out=tmp_path / "parts", fsdp=True), processes=2)
    one, two, parts = (metrics(tmp_path / name) for name in ("one", "two", "parts"))
    assert one == pytest.approx(two, rel=1e-5)
    assert one == pytest.approx(parts, rel=1e-4)
    whole = dataclasses.replace(further, out=tmp_path / "three", max_steps=8)
    run(whole)
    for path in (tmp_path / "first" / "checkpoints").glob("*/model.safetensors"):
        path.write_bytes(b"")
    before = checkpoint_bytes(tmp_path / "three")
    last = sorted((tmp_path / "three" / "checkpoints").glob("step_*"))[-1]
    shutil.rmtree(last)
    run(whole)
    assert checkpoint_bytes(tmp_path / "three") == before


@pytest.mark.parametrize(("changes", "message"), [
    ({"model": {"n_layer": 3}}, "n_layer: 2 -> 3"),
    ({"model": {"mlp": "silu", "bias": True}}, "bias: False -> True\n  mlp: swiglu -> silu"),
    ({"name": "gpt2", "model": {"vocab_size": 61}}, "--vocab_size 61: --init_from .*gpt2 has 70 tokens, and none"),
    ({"name": "gpt2", "model": {"block_size": 41}}, "--block_size 41: --init_from .*gpt2 has learned 40 positions"),
    ({"init_from": "no/such model"}, "no/such model is neither a folder nor a model that the hub gives"),
])
def test_what_does_not_fit_is_refused(place, tmp_path, capsys, changes, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert loop.main(settings(place, tmp_path / "run", **changes)) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_positions_may_become_fewer_and_rotary_ones_more(place):
    val = Split(place / "data", "val")
    for name, size in (("gpt2", 8), ("llama", 64)):
        source = load(place / name)
        model = GPT(dataclasses.replace(source.config, block_size=size, pad_vocab=7))
        fill(model, place / name, val)
        tokens = torch.randint(61, (2, 8))
        assert torch.allclose(model(tokens), source(tokens), atol=1e-6)


def test_new_tokens_begin_as_the_mean_of_the_others(place, tmp_path):
    shards_by([*map(str, range(61)), "<|user|>", "<|model|>"], tmp_path / "chat", tmp_path / "data")
    source = load(place / "llama")
    model = GPT(dataclasses.replace(source.config, vocab_size=63))
    fill(model, place / "llama", Split(tmp_path / "data", "train"))
    tokens = torch.randint(61, (2, 8))
    assert torch.allclose(model(tokens)[..., :61], source(tokens), atol=1e-6)
    new, known = model.lm_head.weight[61:63], source.lm_head.weight[:61]
    assert torch.allclose(new, known.mean(0).expand(2, -1))
    run(settings(place, tmp_path / "run", data=tmp_path / "data", model={"vocab_size": 0}, max_steps=1))


def test_shards_of_another_tokenizer_are_refused(place, tmp_path):
    shards_by(["0", "1", "3", "2", *map(str, range(4, 61))], tmp_path / "other", tmp_path / "data")
    model = load(place / "llama")
    with pytest.raises(InputError, match=r"was encoded by another tokenizer .*: '[23]' is token [23] in one, [23]"):
        fill(model, place / "llama", Split(tmp_path / "data", "val"))


def test_the_flags_defaults_are_the_models_own(place, tmp_path):
    read = parse("", ["--init_from", str(place / "gpt2"), "--rope_theta", "7"])
    assert (read.model.n_embd, read.model.position, read.model.rope_theta) == (32, "learned", 7.0)
    assert (read.preset, read.sequence, read.optimizer) == ("continue", 0, "adamw")
    assert parse("", [f"--init_from={place / 'llama'}", "--preset", "text"]).lr == 2e-2
    with pytest.raises(InputError, match="--preset continue trains a model further; name it with --init_from"):
        check(parse("", ["--preset", "continue"]))
    with pytest.raises(InputError, match="is neither a run"):
        parse("", ["--init_from", str(tmp_path)])


def test_any_checkpoint_of_a_run_can_be_read_and_the_best_is_named(place, tmp_path, capsys):
    """A rate that rises to the end makes the last one worse than the best."""
    spoiled = tiny_settings(place / "data", tmp_path / "run", max_steps=5, eval_every=1, save_every=1, keep=1, lr=0.5,
                            muon_lr=3.0, warmup=0.9, min_lr=1.0)
    assert loop.main(spoiled) == 0
    losses = metrics(tmp_path / "run", "val_loss")
    best = min(list(losses)[1:], key=losses.get)
    folder = tmp_path / "run" / "checkpoints" / f"step_{best:08d}"
    assert best < 5
    assert f"the best was {folder}, validation loss {losses[best]:.4f}" in capsys.readouterr().err
    split = Split(place / "data", "val")
    for source, step in ((folder, best), (tmp_path / "run", 5)):
        model, tokenizer = load_any(source)
        assert validation_loss(model, split, 16, 2, 0, Alone())["val_loss"] == pytest.approx(losses[step], rel=1e-5)
        assert tokenizer == place / "tokenizer"


def test_settings_come_from_a_file_and_flags_override_them(place, tmp_path):
    """Another run's args.json, without where that run went; or a file of one's own."""
    first = tiny_settings(place / "data", tmp_path / "run", max_steps=4, beta2=0.97)
    run(first)
    read = parse("", ["--config", str(tmp_path / "run" / "args.json"), "--seed", "2"])
    assert read.model == load_run(tmp_path / "run")[0].config and read.data == place / "data"
    assert (read.beta2, read.optimizer, read.max_steps, read.seed) == (0.97, "muon", 4, 2)
    assert read.out == Settings(preset="tiny").out
    (tmp_path / "mine.json").write_text('{"preset": "text", "lr": 0.5, "qk_norm": false, "n_layer": 2, "export": null}')
    read = parse("", [f"--config={tmp_path / 'mine.json'}"])
    assert (read.preset, read.lr, read.beta2, read.model.qk_norm, read.model.n_layer) == ("text", 0.5, 0.99, False, 2)
    for text, message in (("{", "is not JSON"), ("[]", "holds no settings"), ('{"model": 3}', "holds no settings"),
                          ('{"model": {"qk_norm": "yes"}}', 'qk_norm is "yes"; it must be true or false'),
                          ('{"lr": true}', "lr is true; it must not be true or false")):
        (tmp_path / "mine.json").write_text(text)
        with pytest.raises(InputError, match=message):
            parse("", ["--config", str(tmp_path / "mine.json")])
    (tmp_path / "mine.json").write_text('{"learning_rate": 0.5}')
    with pytest.raises(SystemExit):
        parse("", ["--config", str(tmp_path / "mine.json")])


def test_what_changes_when_a_run_goes_on_is_said(place, tmp_path, capsys):
    """And a run that is over keeps the settings that it was made with."""
    short = tiny_settings(place / "data", tmp_path / "run", max_steps=4)
    assert loop.main(short) == 0
    made_of = (tmp_path / "run" / "args.json").read_text()
    capsys.readouterr()
    assert loop.main(dataclasses.replace(short, lr=1.0)) == 0
    assert "nothing is left to train" in capsys.readouterr().err
    assert (tmp_path / "run" / "args.json").read_text() == made_of
    assert loop.main(dataclasses.replace(short, max_steps=6, weight_decay=0.3)) == 0
    assert "continues after step 4\n  max_steps: 4 -> 6\n  weight_decay: 0.1 -> 0.3\n" in capsys.readouterr().err


def test_a_checkpoint_of_earlier_code_lacks_the_newest_switches(place, tmp_path):
    short = tiny_settings(place / "data", tmp_path / "run", max_steps=4)
    assert loop.main(short) == 0
    for path in (tmp_path / "run" / "checkpoints").glob("*/state.json"):
        state = json.loads(path.read_text())
        for name in ("model.qkv_bias", "model.rope_factor", "model.rope_original"):
            del state["identity"][name]
        path.write_text(json.dumps(state))
    assert loop.main(dataclasses.replace(short, max_steps=6)) == 0


def test_the_source_may_be_gone_once_there_is_a_run(place, tmp_path):
    """And may be named otherwise; its ends stay ends beside the data's."""
    source = tmp_path / "source"
    shutil.copytree(place / "llama", source)
    (source / "generation_config.json").write_text('{"bos_token_id": 5, "eos_token_id": 9}')
    words = [*map(str, (MODEL, "--init_from", source, "--data", place / "data", "--out", tmp_path / "run",
                        "--export", tmp_path / "out", "--total_batch", 128, "--sequence", 16, "--prompt", ""))]
    subprocess.run([sys.executable, *words, "--max_steps", "2"], check=True, capture_output=True)
    ids = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert ids == {"bos_token_id": 5, "eos_token_id": [9, 0]}
    assert "It began with the weights of `source`." in (tmp_path / "out" / "README.md").read_text()
    shutil.rmtree(source)
    done = subprocess.run([sys.executable, *words, "--max_steps", "4"], check=True, capture_output=True, text=True)
    assert "continues after step 2\n  max_steps: 2 -> 4\n" in done.stderr


def test_new_tokens_may_fill_rows_that_a_model_has_to_spare(place, tmp_path):
    """As Qwen's, whose embedding has more rows than its tokenizer tokens."""
    shards_by([*map(str, range(61)), "<|user|>", "<|model|>"], tmp_path / "chat", tmp_path / "data")
    for vocabulary in (70, 0):
        out = tmp_path / f"run {vocabulary}"
        run(settings(place, out, "gpt2", data=tmp_path / "data", model={"vocab_size": vocabulary}, max_steps=1))
        assert load_run(out)[0].config.vocab_size == 70


def test_flags_may_be_spelled_with_hyphens(place):
    for words in (["--init-from", str(place / "llama")], [f"--init-from={place / 'llama'}"]):
        assert parse("", words).preset == "continue"
    small = parse("", ["--init_from", str(place / "gpt2"), "--block_size", "8"])
    check(small)
    assert small.model.block_size == 8
