"""Training: equal gradients however the update is cut up, exact resuming, outputs, errors, the command line."""

import json
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import finetune_loop
import numpy as np
import peft
import pytest
import show_threads
import torch
import torch.nn.functional as F
from finetune_checkpoint import lock_folder
from finetune_loop import Diverged, Stopped, Trainer, fine_tune, load_data, make_optimizer
from finetune_model import load_base, load_tokenizer, prepare_model, set_dropout
from finetune_report import Journal, read_metrics
from finetune_settings import InputError, Settings, run_folder, shareable
from instructions import encode_records
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from lora import expert_weights

TRAIN = Path(__file__).resolve().parents[2] / "lora" / "train.py"
CPU = torch.device("cpu")


@pytest.fixture
def settings(base_folder, records_file, tmp_path):
    def make(kind="gpt2", **options):
        defaults = {
            "lora_dim": 4,
            "lora_scaling": 8.0,
            "train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "eval_ratio": 0.1,
            "eval_interval": 3,
            "eval_batch_size": 2,
            "max_steps": 6,
            "lr": 5e-3,
            "dtype": "fp32",
            "response_tokens": 0,
            "output_dir_name": str(tmp_path / "run"),
            "device": "cpu",
        }
        paths = {"model_name_or_path": str(base_folder / kind), "data_path": str(records_file)}
        return Settings(**(paths | defaults | options))

    return make


def trainer_for(s, rank=0, world=1):
    tokenizer = load_tokenizer(s.model_name_or_path)
    model, _ = prepare_model(s, CPU, torch.float32)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_left_weight"):
            parameter.data.normal_(std=0.1)
    return Trainer(s, model, load_data(s, tokenizer, s.max_length), CPU, torch.float32, rank, world, 0)


def gradients(trainer):
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("use_lora", [True, False])
def test_accumulation_does_not_change_the_gradient(settings, use_lora):
    results = []
    for packing in (True, False):
        for batch, steps in ((32, 1), (1, 32), (5, 7), (8, 4)):
            s = settings(train_batch_size=batch, gradient_accumulation_steps=steps, packing=packing, use_lora=use_lora)
            trainer = trainer_for(s)
            trainer.chosen = lambda step: np.arange(32)
            loss, labelled, *_ = trainer.gradient(0)
            results.append((loss, labelled, gradients(trainer)))
    for loss, labelled, grads in results[1:]:
        assert labelled == results[0][1]
        assert loss == pytest.approx(results[0][0], rel=1e-6)
        for name, grad in grads.items():
            torch.testing.assert_close(grad, results[0][2][name], rtol=1e-5, atol=1e-6)


def test_processes_share_an_update_exactly(settings):
    """The gradients of two ranks with unequal label counts add up to one process's."""
    whole = trainer_for(settings(train_batch_size=7, gradient_accumulation_steps=1))
    whole.chosen = lambda step: np.arange(7)
    whole.gradient(0)
    parts = []
    for rank in range(2):
        part = trainer_for(settings(train_batch_size=2, gradient_accumulation_steps=2), rank, 2)
        part.chosen = lambda step: np.arange(7)
        part.sum_over_processes = lambda total, stop: (total, stop)
        part.gradient(0)
        parts.append(gradients(part))
    for name, grad in gradients(whole).items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], grad, rtol=1e-5, atol=1e-6)


def test_update_equals_transformers_loss_and_the_first_loss_is_the_bases(settings, tokenizer, records):
    s = settings(train_batch_size=8, gradient_accumulation_steps=1, max_steps=1)
    result = fine_tune(s)
    lines = read_metrics(Path(result["folder"]) / "metrics.jsonl")
    base = load_base(s.model_name_or_path).eval()
    held = encode_records(records[-4:], tokenizer)
    total = 0.0
    for i in range(len(held)):
        ids = torch.from_numpy(held[i].astype(np.int64))[None]
        labels = ids.clone()
        labels[0, : held.first_label[i]] = -100
        total += F.cross_entropy(base(ids).logits[0, :-1], labels[0, 1:], ignore_index=-100, reduction="sum").item()
    assert lines[0]["step"] == 0
    assert lines[0]["eval_loss"] == pytest.approx(total / held.labels.sum(), rel=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "qwen3"])
def test_lora_run_leaves_its_files_and_peft_agrees(settings, kind, tmp_path, base_folder):
    before = load_file(base_folder / kind / "model.safetensors")
    s = settings(kind, adapter_out=str(tmp_path / "adapter"), model_out=str(tmp_path / "merged"), response_tokens=4)
    result = fine_tune(s)
    folder = Path(result["folder"])
    for name in (
        "arguments.json",
        "train_log.txt",
        "train_data.json",
        "learning_curve.png",
        "response.txt",
        "metrics.jsonl",
        "adapter/adapter_config.json",
        "adapter/prompt_template.json",
    ):
        assert (folder / name).stat().st_size > 0, name
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 7))
    assert [line["step"] for line in lines if "eval_loss" in line] == [0, 3, 6]
    assert lines[-1]["eval_loss"] < lines[0]["eval_loss"]
    assert json.loads((folder / "train_data.json").read_text())["train"]["step"] == list(range(1, 7))
    for name in ("arguments.json", "train_log.txt"):  # only the last part of a folder outside the repository is told
        assert str(tmp_path) not in (folder / name).read_text(), name
        assert str(base_folder) not in (folder / name).read_text(), name
    ids = torch.arange(20)[None]
    base = AutoModelForCausalLM.from_pretrained(base_folder / kind)
    with_peft = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(merged(ids).logits, with_peft, rtol=1e-4, atol=1e-4)
    after = load_file(base_folder / kind / "model.safetensors")
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == before.keys()


def test_full_run_saves_a_model_that_transformers_loads(settings, tmp_path):
    result = fine_tune(settings(use_lora=False, lr=1e-3, model_out=str(tmp_path / "full")))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "full")
    assert "packed" not in (tmp_path / "full" / "config.json").read_text()
    assert model.config.use_cache
    assert json.loads((tmp_path / "full" / "prompt_template.json").read_text()) == {"template": "seed"}
    lines = read_metrics(Path(result["folder"]) / "metrics.jsonl")
    assert lines[-1]["eval_loss"] < lines[0]["eval_loss"] - 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"lora_init": "pissa"},
        {"dora": True},
        {"rslora": True, "loraplus_ratio": 4.0},
        {"dropout": 0.2},
        {"dtype": "bf16"},
        {"gradient_checkpointing": True},
        {"packing": False},
        {"base_dropout": 0.1},
        {"train_on_prompt": True},
        {"template": "alpaca"},
        {"use_lora": False, "dtype": "bf16"},
        {"use_lora": False, "dtype": "bf16", "gradient_checkpointing": True},
        {"matmul_precision": "medium"},
    ],
    ids=str,
)
def test_every_option_learns(settings, options):
    result = fine_tune(settings("qwen3", **options))
    lines = read_metrics(Path(result["folder"]) / "metrics.jsonl")
    assert lines[-1]["eval_loss"] < lines[0]["eval_loss"]


def test_blocks_of_text_are_learned(settings, tmp_path, records):
    (tmp_path / "texts.json").write_text(json.dumps([{"text": record["output"]} for record in records]))
    result = fine_tune(settings(text_mode="blocks", max_length=64, data_path=str(tmp_path / "texts.json")))
    lines = read_metrics(Path(result["folder"]) / "metrics.jsonl")
    assert lines[-1]["eval_loss"] < lines[0]["eval_loss"]


def test_loading_an_adapter_continues_from_it(settings, tmp_path):
    first = fine_tune(settings(adapter_out=str(tmp_path / "a")))
    second = fine_tune(settings(lora_load_path=str(tmp_path / "a"), max_steps=1, output_dir_name=str(tmp_path / "two")))
    assert read_metrics(Path(second["folder"]) / "metrics.jsonl")[0]["eval_loss"] == pytest.approx(
        first["eval_loss"], rel=1e-5
    )
    with pytest.raises(InputError, match=r"--lora_dim is 5, but the adapter .*/a has 4"):
        fine_tune(settings(lora_load_path=str(tmp_path / "a"), lora_dim=5))
    with pytest.raises(InputError, match=r"run: no adapter here .*; there is one in .*run/adapter$"):
        fine_tune(settings(lora_load_path=first["folder"]))
    defaults = {"lora_dim": Settings.lora_dim, "lora_scaling": Settings.lora_scaling}
    third = fine_tune(settings(lora_load_path=str(tmp_path / "a"), max_steps=1, output_dir_name=str(tmp_path / "three"),
                               **defaults))
    arguments = json.loads((Path(third["folder"]) / "arguments.json").read_text())
    assert (arguments["lora_dim"], arguments["lora_scaling"]) == (4, 8), "what was trained, not the flags' defaults"


def test_early_stopping_keeps_the_best(settings, tmp_path):
    result = fine_tune(settings(use_lora=False, lr=0.3, max_grad_norm=0.0, max_steps=40, eval_interval=1, patience=2))
    losses = [
        line["eval_loss"] for line in read_metrics(Path(result["folder"]) / "metrics.jsonl") if "eval_loss" in line
    ]
    assert result["step"] < 40
    assert result["eval_loss"] == pytest.approx(min(losses), rel=1e-5)
    assert result["base_loss"] == pytest.approx(losses[0], rel=1e-5)


    best = AutoModelForCausalLM.from_pretrained(Path(result["folder"]) / "model")
    s = settings(use_lora=False)
    trainer = trainer_for(s)
    trainer.model.load_state_dict(best.state_dict())
    assert trainer.evaluate() == pytest.approx(min(losses), rel=1e-5), "what was saved is the best"


def test_a_run_that_only_gets_worse_keeps_the_base(settings):
    result = fine_tune(settings(lr=10.0, max_grad_norm=0.0, max_steps=40, eval_interval=1, patience=2))
    losses = [line["eval_loss"] for line in read_metrics(Path(result["folder"]) / "metrics.jsonl")
              if "eval_loss" in line]
    assert (result["step"], min(losses)) == (2, losses[0])
    assert result["eval_loss"] == pytest.approx(losses[0], rel=1e-5)
    adapter = load_file(Path(result["folder"]) / "adapter" / "adapter_model.safetensors")
    assert not any(tensor.any() for name, tensor in adapter.items() if "lora_B" in name), "as before training"


@pytest.mark.parametrize(("after", "warned"), [(6.5, True), (2.0, False), (None, False)])
def test_a_run_that_ends_worse_than_it_began_says_so(settings, after, warned, monkeypatch, capsys):
    found = {"eval_loss": after, "base_loss": None if after is None else 2.0, "step": 3, "seconds": 1, "folder": "f"}
    monkeypatch.setattr("finetune_loop.fine_tune", lambda *_, **__: found)
    assert runpy.run_path(str(Path(finetune_loop.__file__).with_name("train.py")))["main"](settings(lr=0.1)) == 0
    errors = capsys.readouterr().err
    assert ("before training that loss was 2.0000; lower --lr (now 0.1) or --lora_scaling (alpha" in errors) == warned


def test_decay_and_rates_by_parameter(settings):
    s = settings(loraplus_ratio=16.0, dora=True, weight_decay=0.02)
    model = trainer_for(s).model
    of = {id(p): name.rpartition(".")[2] for name, p in model.named_parameters()}
    groups = {of[id(p)]: (g["factor"], g["weight_decay"]) for g in make_optimizer(s, model).param_groups
              for p in g["params"]}
    assert groups == {"lora_left_weight": (16.0, 0.02), "lora_right_weight": (1.0, 0.02), "lora_magnitude": (1.0, 0.0)}


def test_nothing_of_the_users_is_replaced(settings, tmp_path):
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.txt").write_text("years")
    base = settings().model_name_or_path
    for place, message in ((other, "something else"), (base, "base model itself"), (other / "thesis.txt", "something")):
        for use_lora in (True, False):
            with pytest.raises(InputError, match=message):
                fine_tune(settings(model_out=str(place), use_lora=use_lora))
    assert (other / "thesis.txt").read_text() == "years"
    with pytest.raises(InputError, match="is a file"):
        fine_tune(settings(adapter_out=str(other / "thesis.txt")))
    done = fine_tune(settings(model_out=str(tmp_path / "merged"), max_steps=1))
    again = fine_tune(settings(model_out=str(tmp_path / "merged"), max_steps=1))
    assert done["step"] == again["step"] == 1, "an earlier result may be replaced"
    assert not list(tmp_path.glob(".merged*"))


def test_models_without_sdpa_are_exported(settings, tmp_path, tokenizer):
    config = Gemma2Config(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                          num_attention_heads=2, num_key_value_heads=1, head_dim=8)
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "gemma")
    tokenizer.save_pretrained(tmp_path / "gemma")
    given = {"model_name_or_path": str(tmp_path / "gemma"), "packing": False, "max_steps": 1, "response_tokens": 2}
    fine_tune(settings(**given, use_lora=False))
    fine_tune(settings(**given, output_dir_name=str(tmp_path / "two"), model_out=str(tmp_path / "merged")))
    assert (tmp_path / "merged" / "model.safetensors").exists()


def test_a_model_that_packing_would_mix_up_is_refused(settings, tmp_path, tokenizer):
    config = Lfm2Config(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                        num_attention_heads=2, num_key_value_heads=1, layer_types=["conv", "full_attention"],
                        initializer_range=0.3)
    Lfm2ForCausalLM(config).save_pretrained(tmp_path / "lfm2")
    tokenizer.save_pretrained(tmp_path / "lfm2")
    with pytest.raises(InputError, match=r"does not keep packed sequences apart.*--packing False"):
        fine_tune(settings(model_name_or_path=str(tmp_path / "lfm2")))
    assert fine_tune(settings(model_name_or_path=str(tmp_path / "lfm2"), packing=False, max_steps=1))["step"] == 1
    assert not expert_weights(load_base(str(tmp_path / "lfm2"))), "a convolution is no expert"


def test_a_base_of_no_numbers_is_no_fault_of_packing(settings, tmp_path, base_folder):
    shutil.copytree(base_folder / "gpt2", tmp_path / "nan")
    model = load_base(str(tmp_path / "nan"))
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = torch.nan
    model.save_pretrained(tmp_path / "nan")
    with pytest.raises(InputError, match="GPT2LMHeadModel gives NaN or infinite numbers before any training"):
        fine_tune(settings(model_name_or_path=str(tmp_path / "nan")))


def test_an_adapter_in_place_of_a_model_is_told_apart(settings, tmp_path):
    fine_tune(settings(max_steps=1, adapter_out=str(tmp_path / "mine")))
    with pytest.raises(InputError, match=r"mine' holds an adapter, not a model; name its base, .* --lora_load_path"):
        fine_tune(settings(model_name_or_path=str(tmp_path / "mine")))


def test_the_adapted_layers_are_named_and_experts_that_lora_does_not_reach(settings, tmp_path, tokenizer, capsys):
    fine_tune(settings(max_steps=1))
    said = capsys.readouterr().out
    assert "parameters trained" in said and "\nLoRA on c_attn, c_proj, c_fc\n" in said and "warning" not in said
    config = MixtralConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                           num_attention_heads=2, num_key_value_heads=1, num_local_experts=2)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "mixtral")
    tokenizer.save_pretrained(tmp_path / "mixtral")
    fine_tune(settings(model_name_or_path=str(tmp_path / "mixtral"), output_dir_name=str(tmp_path / "m"), max_steps=1))
    said = capsys.readouterr().out
    assert "\nLoRA on q_proj, k_proj, v_proj, o_proj\n" in said
    assert "the experts' gate_up_proj, down_proj, 2,304 parameters, stay as they are\n" in said and "PEFT" not in said
    config = Qwen2MoeConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                            num_key_value_heads=1, num_experts=2, moe_intermediate_size=8, num_experts_per_tok=1,
                            shared_expert_intermediate_size=8)
    Qwen2MoeForCausalLM(config).save_pretrained(tmp_path / "shared")
    tokenizer.save_pretrained(tmp_path / "shared")
    fine_tune(settings(model_name_or_path=str(tmp_path / "shared"), output_dir_name=str(tmp_path / "s"), max_steps=1))
    assert "PEFT takes down_proj, gate_proj, up_proj for the experts' and may not load" in capsys.readouterr().out


def test_an_encoder_decoder_is_refused_as_such(settings, tmp_path, tokenizer):
    config = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    with pytest.raises(InputError, match=r"t5' is an encoder-decoder model \(t5\); only models that continue text"):
        fine_tune(settings(model_name_or_path=str(tmp_path / "t5")))


def test_a_model_that_sees_what_follows_is_refused(settings, tmp_path, tokenizer):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = RobertaConfig(vocab_size=len(tokenizer), **sizes, initializer_range=0.3, max_position_embeddings=130)
    for causal in (False, True):
        config.is_decoder = causal
        RobertaForCausalLM(config).save_pretrained(tmp_path / "roberta")
        tokenizer.save_pretrained(tmp_path / "roberta")
        s = settings(model_name_or_path=str(tmp_path / "roberta"), packing=False, max_steps=1)
        if causal:
            assert fine_tune(s)["step"] == 1
        else:
            with pytest.raises(InputError, match=r"roberta' sees what follows a token \(RobertaForCausalLM\)"):
                fine_tune(s)


def test_weights_that_do_not_fit_the_config_are_refused_not_made_up(settings, tmp_path, base_folder):
    for key, value, missing in (("n_layer", 3, r"12 of the weights .* transformer\.h\.2\.attn\.c_attn\.bias the first"),
                                ("n_embd", 64, r"28 of the weights .* of another shape, transformer\.h\.0")):
        shutil.copytree(base_folder / "gpt2", tmp_path / key)
        path = tmp_path / key / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        with pytest.raises(InputError, match=missing):
            fine_tune(settings(model_name_or_path=str(tmp_path / key)))


@pytest.mark.parametrize(
    ("file", "text"),
    [("config.json", "[1]"), ("config.json", '{"model_type": "gpt2", "n_embd": "a"}'), ("tokenizer.json", '{"a": 1}')],
)
def test_damaged_files_of_a_model_are_one_line(settings, tmp_path, base_folder, file, text):
    shutil.copytree(base_folder / "gpt2", tmp_path / "damaged")
    (tmp_path / "damaged" / file).write_text(text)
    with pytest.raises(InputError, match=r"damaged' is not a complete model folder: \w+Error: .") as error:
        fine_tune(settings(model_name_or_path=str(tmp_path / "damaged")))
    assert "\n" not in str(error.value)


def test_every_dropout_of_the_base_is_set():
    config = OPTConfig(vocab_size=99, hidden_size=16, ffn_dim=24, num_hidden_layers=1, num_attention_heads=2,
                       word_embed_proj_dim=16, dropout=0.2, attention_dropout=0.3)
    model = OPTForCausalLM(config).train()
    set_dropout(model, 0.0)
    ids = torch.arange(9)[None]
    torch.testing.assert_close(model(ids).logits, model(ids).logits, rtol=0, atol=0)
    set_dropout(model, 0.1)
    assert (model.model.decoder.layers[0].dropout, model.model.decoder.layerdrop) == (0.1, 0.0), "no layer is left out"


def test_prompts_with_completions_are_asked_as_they_were_trained(settings, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Tom {i} saw", "completion": " a cat."}) + "\n" for i in range(20)))
    result = fine_tune(settings(data_path=str(path), response_tokens=2, adapter_out=str(tmp_path / "a")))
    assert json.loads((tmp_path / "a" / "prompt_template.json").read_text()) == {"template": "raw"}
    assert "ASSISTANT" not in (Path(result["folder"]) / "response.txt").read_text()


def test_chats_are_trained_and_asked_by_the_chat_template(settings, tmp_path, base_folder):
    shutil.copytree(base_folder / "gpt2", tmp_path / "chat base")
    tokenizer = load_tokenizer(str(tmp_path / "chat base"))
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer.chat_template += "{% if add_generation_prompt %}assistant: {% endif %}"
    tokenizer.save_pretrained(tmp_path / "chat base")
    turns = [{"role": role, "content": "a cat"} for role in ("user", "assistant", "user", "assistant")]
    (tmp_path / "chats.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 20)
    fine_tune(settings(model_name_or_path=str(tmp_path / "chat base"), data_path=str(tmp_path / "chats.jsonl"),
                       max_steps=1, response_tokens=2, adapter_out=str(tmp_path / "a")))
    assert json.loads((tmp_path / "a" / "prompt_template.json").read_text()) == {"template": "chat"}


def test_metrics_outlive_a_kill_after_resuming(settings, tmp_path):
    result = fine_tune(settings())
    path = Path(result["folder"]) / "metrics.jsonl"
    before = path.read_text()
    journal = Journal(path.parent, 6)  # what a resumed run opens; killed before anything is flushed
    assert path.read_text() == before
    journal.close()


def test_a_run_by_the_clock_ends(settings):
    start = time.monotonic()
    result = fine_tune(settings(max_steps=100_000, minutes=0.03))
    assert result["step"] < 100_000
    assert time.monotonic() - start < 120


def test_divergence_stops_before_the_update(settings, tmp_path):
    with pytest.raises(Diverged, match="update"):
        fine_tune(settings(use_lora=False, lr=1e30, max_grad_norm=0.0, max_steps=20))


@pytest.mark.parametrize("eval_ratio", [0.0, 0.1])
def test_a_last_update_that_destroys_the_weights_is_not_saved(settings, tmp_path, eval_ratio):
    with pytest.raises(Diverged, match="weights after update 1 are not finite"):
        fine_tune(settings(lr=1e300, max_steps=1, eval_ratio=eval_ratio, adapter_out=str(tmp_path / "adapter")))
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def run_of(folder):
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    lines = [
        {k: v for k, v in line.items() if k not in ("time", "tokens_per_second")}
        for line in read_metrics(folder / "metrics.jsonl")
    ]
    return state["tensors"], lines


def command(s, **options):
    values = {**vars(s), **options}
    defaults = vars(Settings())
    flags = [part for key, value in values.items() if value != defaults[key] for part in (f"--{key}", str(value))]
    return [sys.executable, str(TRAIN), *flags]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def kill_when(arguments, number, condition):
    """Starts the command and sends the signal as soon as the condition holds; returns the exit status."""
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=240)
    return process.returncode, errors


def run_to_its_end(s):
    """The command, as a user runs it: what other tests have left in this process has no part in its rounding."""
    done = subprocess.run(command(s), env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGKILL, {"dropout": 0.3, "patience": 50}), (signal.SIGTERM, {"use_lora": False})],
    ids=["kill -9", "sigterm"],
)
def test_interrupted_and_resumed_is_bitwise_the_same(settings, tmp_path, number, options):
    options = {"max_steps": 60, "save_interval": 4, "eval_interval": 10, "lr": 1e-3, **options}
    run_to_its_end(settings(**options))
    s = settings(**options, output_dir_name=str(tmp_path / "cut"))
    status, errors = kill_when(command(s), number, lambda: (tmp_path / "cut" / "checkpoint.pt").exists())
    assert status == (-9 if number == signal.SIGKILL else 143), errors
    assert torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["progress"]["step"] < 60, (
        "it was too late to interrupt"
    )
    run_to_its_end(s)
    (tensors, lines), (others, other_lines) = run_of(tmp_path / "run"), run_of(tmp_path / "cut")
    assert all(torch.equal(tensors[key], others[key]) for key in tensors)
    assert lines == other_lines


@pytest.mark.parametrize("at", [0, 3, 6], ids=["before training", "under way", "at the end"])
def test_a_signal_ends_an_evaluation_which_is_made_when_the_run_goes_on(settings, tmp_path, monkeypatch, at):
    fine_tune(settings())
    s, plain, passes = settings(output_dir_name=str(tmp_path / "cut")), Trainer.loss, []

    def loss(self, examples, chosen):
        if examples is self.data.evaluation:
            passes.append(at)
            if len(passes) == 1 + 2 * (at // 3):  # the first of two batches
                os.kill(os.getpid(), signal.SIGINT)
        return plain(self, examples, chosen)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "loss", loss)
        with pytest.raises(Stopped, match="stopped by signal 2"):
            fine_tune(s)
    assert len(passes) == 1 + 2 * (at // 3), "not the second"
    assert (tmp_path / "cut" / "checkpoint.pt").exists() == bool(at)
    assert fine_tune(s)["step"] == 6
    (tensors, lines), (others, other_lines) = run_of(tmp_path / "run"), run_of(tmp_path / "cut")
    assert all(torch.equal(tensors[key], others[key]) for key in tensors)
    assert lines == other_lines
    assert torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["progress"]["done"]


def test_resume_with_other_settings_or_data_is_refused(settings, tmp_path):
    fine_tune(settings(max_steps=2))
    with pytest.raises(InputError, match=r"lr: 0\.005 -> 0\.001"):
        fine_tune(settings(max_steps=2, lr=1e-3))
    with pytest.raises(InputError, match="training data: "):
        fine_tune(settings(max_steps=2, eval_ratio=0.3))
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"instruction": "Say no.", "output": "no"}]))
    with pytest.raises(InputError, match="evaluation data: "):
        fine_tune(settings(max_steps=2, eval_data_path=str(other)))
    fine_tune(settings(max_steps=2, lr=1e-3, resume="never"))
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        fine_tune(settings(max_steps=2, lr=1e-3))
    torch.save({"model": {}}, tmp_path / "run" / "checkpoint.pt")  # another program's
    with pytest.raises(InputError, match=r"not a readable checkpoint \('tensors'\)"):
        fine_tune(settings(max_steps=2, lr=1e-3))


def test_a_run_may_be_evaluated_otherwise_but_not_lengthened(settings, tmp_path):
    fine_tune(settings(max_steps=2))
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    state["identity"] |= {"eval_batch_size": 2, "eval_interval": 3}  # as an earlier version wrote them
    torch.save(state, tmp_path / "run" / "checkpoint.pt")
    assert fine_tune(settings(max_steps=2, eval_batch_size=3, eval_interval=2))["step"] == 2
    said = r"is finished, with a learning rate that follows its length \(max_steps: 2 -> 9\).*load_path .*/run/adapter"
    with pytest.raises(InputError, match=said):
        fine_tune(settings(max_steps=9))
    with pytest.raises(InputError, match=r"belongs to another run \(eval_interval: .*patience: 0 -> 1"):
        fine_tune(settings(max_steps=2, eval_interval=2, patience=1))


def test_a_folder_in_use_is_refused(settings, tmp_path):
    lock = lock_folder(tmp_path / "run")
    with pytest.raises(InputError, match="another run"):
        fine_tune(settings())
    lock.close()


def test_two_processes_equal_one(settings, tmp_path):
    """torchrun with unequal labels, an update that does not divide: equal up to the order of summation."""
    options = {"max_steps": 8, "eval_interval": 4, "lr": 1e-3}
    one = fine_tune(settings(train_batch_size=6, gradient_accumulation_steps=1, **options))
    s = settings(train_batch_size=3, gradient_accumulation_steps=1, output_dir_name=str(tmp_path / "two"), **options)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *command(s)[1:]]
    result = subprocess.run(torchrun, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    (tensors, lines), (others, other_lines) = run_of(Path(one["folder"])), run_of(tmp_path / "two")
    assert len(lines) == len(other_lines)
    for line, other in zip(lines, other_lines, strict=True):
        assert line.keys() == other.keys()
        assert all(line[key] == pytest.approx(other[key], rel=1e-4) for key in line)
    for name, tensor in tensors.items():
        torch.testing.assert_close(others[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are read from Linux's /proc")
def test_no_thread_of_gloo_outlives_the_run(settings, tmp_path):
    """One that still does something when Python ends aborts the process."""
    python, *script = command(settings(max_steps=2))
    torchrun = [python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    result = subprocess.run([*torchrun, show_threads.__file__, str(tmp_path), *script], env=ENVIRONMENT,
                            capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    for rank in "01":
        left, *threads = (tmp_path / rank).read_text().split("\n")
        assert left == "0"
        assert [name for name in threads if "gloo" in name] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name_or_path": "data/models/none"}, "no model folder 'data/models/none'"),
        ({"model_name_or_path": "nobody/nothing"}, "neither a folder nor within reach"),
        ({"lora_module_name": "query_key"}, "query_key.*c_attn"),
        ({"eval_ratio": 1.0}, "eval_ratio"),
        ({"lora_dim": 0}, "lora_dim is 0"),
        ({"lr": 0.0}, "lr is 0"),
        ({"use_lora": False, "adapter_out": "x"}, "adapter_out"),
        ({"use_lora": False, "loraplus_ratio": 16.0}, "--loraplus_ratio belongs to LoRA"),
        ({"text_mode": "blocks"}, "--text_mode blocks is for texts; these records have instruction"),
        ({"lora_load_path": "nowhere"}, "nowhere"),
        ({"max_length": 5}, "no example has a label left"),
        ({"device": "cuda"}, "CUDA"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**40}, "seed is 1099511627776"),
        ({"epochs": 0.0}, "epochs is 0"),
        ({"epochs": float("nan")}, "epochs is nan"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm is nan"),
        ({"response_tokens": -1}, "response_tokens is -1"),
        ({"lora_init": "pissa", "lora_dim": 4000}, "only .* singular vectors"),
        ({"patience": 2, "eval_ratio": 0.0}, "patience 2 needs an evaluation set"),
        ({"lora_load_path": "somewhere", "dora": True}, "--dora cannot change"),
    ],
)
def test_mistakes_are_named(settings, options, message):
    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InputError, match=message):
        fine_tune(settings(**options))


def test_one_record_trains_without_an_evaluation_set(settings, tmp_path, records):
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(records[0]))
    result = fine_tune(settings(max_steps=2, data_path=str(path)))
    assert (result["step"], result["eval_loss"]) == (2, None)


def test_command_line_reports_mistakes_in_one_line(settings, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text('[{"instruction": "x"}]')
    result = subprocess.run(
        command(settings(), data_path=str(bad)), env=ENVIRONMENT, capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 2
    assert result.stderr == f"error: {bad}, record 1: 'output' is missing\n"


def test_memory_that_cannot_be_had_is_a_mistake_in_one_line(settings):
    result = subprocess.run(command(settings(lora_dim=10**15)), env=ENVIRONMENT, capture_output=True, text=True,
                            timeout=240)
    assert result.returncode == 2
    assert result.stderr.startswith("error: out of memory: ")
    assert "--lora_dim" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_ends_the_command_quietly():
    process = subprocess.Popen([sys.executable, str(TRAIN), "--help"], env=ENVIRONMENT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_help_is_quick_and_complete():
    start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = subprocess.run(
        [sys.executable, str(TRAIN), "--help"], env={**ENVIRONMENT, "COLUMNS": "200"}, capture_output=True, text=True
    )
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - start < 2  # CPU seconds, whatever else runs
    for flag in vars(Settings()):
        assert f"--{flag}" in result.stdout
    imports = subprocess.run(
        [sys.executable, "-X", "importtime", str(TRAIN), "--help"], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert not [line for line in imports.stderr.splitlines() if line.endswith((" torch", " transformers"))]


def test_the_seeds_flags_are_understood():
    import tyro

    line = (
        "--model_name_or_path gpt2 --max_length 512 --trust_remote_code True --use_lora True --lora_dim 32 "
        "--lora_scaling 32 "
        "--lora_module_name h. --lora_load_path x --data_path alpaca_data.json --epochs 8 --train_batch_size 16 "
        "--eval_batch_size 16 "
        "--gradient_accumulation_steps 4 --lr 3e-4 --lr_warmup_ratio 0.03 --weight_decay 0.01 --seed 42 "
        "--eval_ratio 0.01 "
        "--eval_interval 100 --output_dir_name results"
    )
    s = tyro.cli(Settings, args=line.split(), config=(tyro.conf.FlagConversionOff,), use_underscores=True)
    assert (s.use_lora, s.lora_module_name, s.epochs, s.lr) == (True, "h.", 8, 3e-4)


def test_run_folders_and_shareable_paths():
    assert run_folder(Settings(model_name_or_path="a/b c"), "T").name == "b-c-lora32-T"
    assert run_folder(Settings(output_dir_name="x"), "T").parts[-3:] == ("runs", "lora", "x")
    assert run_folder(Settings(output_dir_name="./x"), "T") == Path("x")
    assert shareable("/home/somebody/models/m") == "m"
    assert shareable("gpt2") == "gpt2"


def test_disk_full_keeps_the_old_checkpoint(settings, tmp_path, monkeypatch):
    import finetune_checkpoint

    fine_tune(settings(max_steps=2))
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()

    def full(path, data):
        Path(f"{path}.tmp").write_bytes(b"half")
        Path(f"{path}.tmp").unlink()
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(finetune_checkpoint, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        fine_tune(settings(max_steps=3, resume="never"))
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    shutil.rmtree(tmp_path / "run")
