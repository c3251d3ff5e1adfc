"""convert.py against transformers: logits, gradients, round trips, refusals, and an export that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from convert import Settings, check_target, export, load, load_run, locate, main
from hf_format import architecture, hf_tensors
from model import GPT
from presets import GPTConfig, InputError
from safetensors.torch import load_file, save_file

SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 24, "vocab_size": 101, "end_of_text": 7}
LLAMA = {"norm": "rmsnorm", "position": "rope", "mlp": "swiglu", "bias": False}
STRETCHED = {"rope_type": "llama3", "rope_theta": 10.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 30}
CASES = {
    "gpt2": ({}, "GPT2LMHeadModel"),
    "gpt2-no-bias-untied": ({"bias": False, "tied": False}, "GPT2LMHeadModel"),
    "gpt2-relu2": ({"mlp": "relu2", "mlp_hidden": 40}, "GPT2LMHeadModel"),
    "llama": (LLAMA, "LlamaForCausalLM"),
    "llama-grouped-untied-bias": (LLAMA | {"n_kv_head": 2, "tied": False, "bias": True, "rope_theta": 500.0},
                                  "LlamaForCausalLM"),
    "llama3.1-stretched": (LLAMA | {"rope_theta": 10.0, "rope_factor": 8.0, "rope_original": 30}, "LlamaForCausalLM"),
    "qwen2-stretched": (LLAMA | {"qkv_bias": True, "n_kv_head": 2, "rope_theta": 10.0, "rope_factor": 3.5,
                                 "rope_original": 30}, "Qwen2ForCausalLM"),
    "qwen3-mqa-wide-head": (LLAMA | {"qk_norm": True, "n_kv_head": 1, "head_size": 16}, "Qwen3ForCausalLM"),
}


def random_model(**switches) -> GPT:
    """A small model in which every parameter matters, norms and biases too."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(**SMALL | switches))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model


def theirs(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


@pytest.mark.parametrize("name", CASES)
def test_export_equals_transformers_and_loads_back(name, tmp_path):
    switches, expected = CASES[name]
    model = random_model(**switches)
    export(model, None, tmp_path / "out", {"steps": 3, "data": "nothing"})
    reference = theirs(tmp_path / "out")
    assert type(reference).__name__ == expected == architecture(model.config)
    tokens = torch.randint(101, (3, 24))
    logits = model(tokens)
    assert torch.allclose(logits, reference(tokens).logits, atol=1e-4)
    back = load(tmp_path / "out")
    assert back.config.padded_vocab == 128
    assert torch.equal(back(tokens), logits)
    assert reference.generation_config.eos_token_id == 7
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- steps: 3\n- data: nothing\n" in card
    assert f"{sum(p.numel() for p in reference.parameters()):,} parameters" in card


@pytest.mark.parametrize("name", ["gpt2", "llama-grouped-untied-bias", "qwen2-stretched", "qwen3-mqa-wide-head"])
def test_gradients_equal_transformers(name, tmp_path):
    model = random_model(**CASES[name][0])
    export(model, None, tmp_path / "out")
    reference = theirs(tmp_path / "out")
    tokens = torch.randint(101, (3, 25))
    loss = model(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    logits = reference(tokens[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    expected.backward()
    assert torch.allclose(loss, expected, atol=1e-5)
    gradient = GPT(model.config)  # a carrier: export of "weights" that are gradients
    with torch.no_grad():
        for p, q in zip(gradient.parameters(), model.parameters(), strict=True):
            p.copy_(q.grad)
    ours = hf_tensors(model.config, gradient.state_dict())
    for parameter, p in reference.named_parameters():
        assert torch.allclose(ours[parameter], p.grad, atol=1e-5), parameter


def test_reads_the_hubs_oldest_gpt2_layout(tmp_path):
    """No prefix, causal masks among the tensors, as the hub's gpt2/model.safetensors has them."""
    model = random_model()
    export(model, None, tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    tensors = {name.removeprefix("transformer."): value for name, value in saved.items()}
    tensors |= {f"h.{i}.attn.bias": torch.ones(1, 1, 24, 24).tril() for i in range(2)}
    save_file(tensors, tmp_path / "model.safetensors")
    tokens = torch.randint(101, (1, 9))
    assert torch.equal(load(tmp_path)(tokens), model(tokens))


@pytest.mark.parametrize("class_name", ["GPT2", "Llama", "Qwen2", "Qwen3"])
def test_reads_what_transformers_saves(class_name, tmp_path):
    import transformers

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 101}
    if class_name != "GPT2":
        small |= {"num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
        small |= {} if class_name == "Qwen2" else {"head_dim": 8}
    config = getattr(transformers, f"{class_name}Config")(**small)
    torch.manual_seed(1)
    reference = getattr(transformers, architecture_name(class_name))(config).eval()
    reference.save_pretrained(tmp_path, max_shard_size="20KB")  # several files and an index
    assert (tmp_path / "model.safetensors.index.json").exists()
    tokens = torch.randint(101, (2, 17))
    assert torch.allclose(load(tmp_path)(tokens), reference(tokens).logits, atol=1e-4)


def architecture_name(class_name):
    return "GPT2LMHeadModel" if class_name == "GPT2" else f"{class_name}ForCausalLM"


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="no Hugging Face architecture computes --position none"):
        export(random_model(position="none"), None, tmp_path / "x")
    for switches in ({}, {"qkv_bias": True}):  # transformers refuses such a width without a norm of q and k
        with pytest.raises(InputError, match="--n_embd 30 a multiple of the heads"):
            export(random_model(**LLAMA, **switches, n_embd=30, head_size=8), None, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    export(random_model(**LLAMA, qk_norm=True, n_embd=30, head_size=8), None, tmp_path / "wide")
    assert theirs(tmp_path / "wide").config.hidden_size == 30
    folder = tmp_path / "model"
    export(random_model(**LLAMA), None, folder)
    config = json.loads((folder / "config.json").read_text())
    for change, message in [({"model_type": "bert"}, "model_type 'bert'"), ({"model_type": []}, r"model_type = \[\]"),
                            ({"hidden_act": "gelu"}, "hidden_act"),
                            ({"rope_parameters": {"rope_type": "yarn"}}, "rotary scaling 'yarn'"),
                            ({"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight is missing"),
                            ({"num_hidden_layers": 1}, "have no place in the model"),
                            ({"intermediate_size": 64}, "gate_proj.weight gives shape"),
                            ({"num_hidden_layers": "2"}, "num_hidden_layers = '2' must be of type int"),
                            ({"num_hidden_layers": None}, "the field 'num_hidden_layers' is missing"),
                            ({"num_attention_heads": 3}, "config.json, in our names: --n_head 3 is not a multiple"),
                            ({"vocab_size": None}, "the field 'vocab_size' is missing"),
                            ({"eos_token_id": ["7"]}, "eos_token_id = '7' must be of type int"),
                            ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rotary scaling 'linear'"),
                            ({"rope_parameters": STRETCHED | {"low_freq_factor": 2.0}}, "low_freq_factor = 2.0 is not"),
                            ({"rope_scaling": STRETCHED | {"factor": None}}, "the field 'factor' is missing"),
                            ({"rope_parameters": STRETCHED | {"factor": 0.5}}, "--rope_factor 0.5: a number of 1"),
                            ({"document_mask": True, "eos_token_id": None}, "--document_mask needs an end-of-text"),
                            ({"mlp_bias": True}, "biases in some layers only, attention_bias = False and mlp"),
                            ({"rope_parameters": "default"}, "rope_parameters = 'default' must be of type dict")]:
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=message):
            load(folder)
    for change in ({"vocab_size": 10**13}, {"hidden_size": 10**9}, {"num_hidden_layers": 10**9}):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=r"config.json describes [0-9,]+ parameters, the weights are 30,\d+"):
            load(folder)  # before memory is taken for them
    for text, message in [(json.dumps([config]), "not an object in braces"), ("[" * 100_000, "is not JSON")]:
        (folder / "config.json").write_text(text)
        with pytest.raises(InputError, match=message):
            load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:100])
    with pytest.raises(InputError, match="damaged"):
        load(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match="is a pickle, which can run any code"):
        load(folder)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is no exported model"):
        export(random_model(), None, mine)
    assert (mine / "thesis.txt").exists()


@pytest.mark.parametrize("names", [["config.json", "thesis.txt"], ["README.md", "tokenizer.json"]])
def test_only_an_export_is_replaced(names, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    check_target(mine)
    check_target(tmp_path / "new")
    for name in names:
        (mine / name).write_text("{}")
    with pytest.raises(InputError, match="is no exported model"):
        export(random_model(), None, mine)
    assert sorted(path.name for path in mine.iterdir()) == sorted(names)
    with pytest.raises(InputError, match="is no exported model"):
        check_target(mine / names[0])
    export(random_model(), None, tmp_path / "new")
    export(random_model(), None, tmp_path / "new")


def test_mistral_without_a_window_is_a_llama(tmp_path):
    """The same tensors and the same function; with a window, also where the field is absent (4,096), it is not."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(1)
    reference = MistralForCausalLM(MistralConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=101,
        intermediate_size=48, max_position_embeddings=64, sliding_window=None)).eval()
    reference.save_pretrained(tmp_path / "a")
    tokens = torch.randint(101, (2, 40))
    main(Settings(str(tmp_path / "a"), tmp_path / "b"))
    assert type(theirs(tmp_path / "b")).__name__ == "LlamaForCausalLM"
    for logits in (load(tmp_path / "a")(tokens), theirs(tmp_path / "b")(tokens).logits):
        assert torch.allclose(logits, reference(tokens).logits, atol=1e-4)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config.pop("sliding_window") is None
    for change in ({}, {"sliding_window": 4096}):
        (tmp_path / "a" / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match="sliding_window = 4096 is not supported, only None"):
            load(tmp_path / "a")


def test_a_folder_that_is_not_there_is_no_matter_of_the_network():
    with pytest.raises(InputError) as error:
        locate("data/models/none")
    assert str(error.value).startswith("data/models/none is neither a folder nor a model that the hub gives (names")
    assert "network" not in str(error.value) and "bash train.sh" in str(error.value)


def test_the_hub_gives_each_weight_once_and_no_pickle(tmp_path, monkeypatch):
    """The files of mistralai/Mistral-7B-v0.3, and a pickle."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    listed = ["README.md", "config.json", "consolidated.safetensors", "generation_config.json",
              "model-00001-of-00001.safetensors", "model.safetensors.index.json", "params.json", "pytorch_model.bin",
              "tokenizer.json", "tokenizer.model"]
    fetched = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **patterns: fetched.extend(
        filter_repo_objects(listed, **patterns)) or tmp_path)
    assert locate("someone/of-no-folder") == tmp_path
    assert fetched == ["config.json", "generation_config.json", "model-00001-of-00001.safetensors",
                       "model.safetensors.index.json", "params.json", "tokenizer.json", "tokenizer.model"]


def test_unscaled_attention_of_gpt2_is_refused(tmp_path):
    export(random_model(), None, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"scale_attn_weights": False}))
    with pytest.raises(InputError, match="scale_attn_weights = False is not supported, only True"):
        load(tmp_path)


def test_conversion_keeps_what_belongs_to_tokenizer_and_generation(tmp_path):
    export(random_model(**LLAMA), None, tmp_path / "a")
    files = {"tokenizer.json": "{}", "chat_template.jinja": "{{ messages }}", "added_tokens.json": '{"<x>": 100}'}
    for name, text in files.items():
        (tmp_path / "a" / name).write_text(text)
    generation = {"bos_token_id": 3, "eos_token_id": [7, 9], "pad_token_id": 1, "do_sample": True, "temperature": 0.6,
                  "repetition_penalty": 1.05}
    (tmp_path / "a" / "generation_config.json").write_text(json.dumps(generation | {"top_k": None}))
    main(Settings(str(tmp_path / "a"), tmp_path / "b"))
    assert json.loads((tmp_path / "b" / "generation_config.json").read_text()) == generation
    assert {name: (tmp_path / "b" / name).read_text() for name in files} == files
    assert load(tmp_path / "b").config.end_of_text == 7
    assert theirs(tmp_path / "b").generation_config.eos_token_id == [7, 9]
    assert theirs(tmp_path / "b").generation_config.repetition_penalty == 1.05
    for ends in ("7", [[7]], {}, [7.5]):
        (tmp_path / "a" / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        with pytest.raises(InputError, match="must be a token's id or a list of them"):
            main(Settings(str(tmp_path / "a"), tmp_path / "b"))
    (tmp_path / "a" / "generation_config.json").unlink()  # then config.json's count
    main(Settings(str(tmp_path / "a"), tmp_path / "b"))
    assert json.loads((tmp_path / "b" / "generation_config.json").read_text()) == {"bos_token_id": 7, "eos_token_id": 7}


@pytest.mark.parametrize(("kind", "ends", "expected"), [
    ("llama", {"eos_token_id": None}, None), ("llama", {"eos_token_id": []}, None), ("llama", {}, 2),
    ("gpt2", {}, None), ("llama", {"eos_token_id": [9, 3]}, 9), ("llama", {"eos_token_id": 5000}, None),
    ("llama", {"eos_token_id": -1}, None)])
def test_the_end_of_text_of_other_models(kind, ends, expected, tmp_path):
    """Where the field is absent transformers has a default, which for GPT-2 is no token of this small vocabulary."""
    export(random_model(**(LLAMA if kind == "llama" else {})), None, tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    del config["eos_token_id"]
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | ends))
    (tmp_path / "a" / "generation_config.json").unlink()
    model = load(tmp_path / "a")
    assert model.config.end_of_text == expected
    export(model, None, tmp_path / "b")
    assert theirs(tmp_path / "b").generation_config.eos_token_id == expected
    card = (tmp_path / "b" / "README.md").read_text()
    assert ("No token ends a document." in card) == (expected is None)
    assert "None" not in card


def test_an_export_where_nothing_can_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="its folder cannot be made"):
        check_target(tmp_path / "file" / "model")


def test_the_rotary_base_is_transformers(tmp_path):
    model, tokens = random_model(**LLAMA), torch.randint(101, (2, 24))
    export(model, None, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"rope_theta": 99.0}, {"rope_theta": 99.0, "rope_parameters": None},
                   {"rope_parameters": {"rope_type": "default", "rope_theta": 99.0}},
                   {"rope_theta": 10.0, "rope_scaling": STRETCHED}, {"rope_parameters": STRETCHED}):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        assert torch.allclose(load(tmp_path)(tokens), theirs(tmp_path)(tokens).logits, atol=1e-4), change


def test_an_output_head_of_its_own_is_not_dropped(tmp_path):
    """transformers keeps it, whatever config.json says."""
    export(random_model(**LLAMA, tied=False), None, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(InputError, match=r"lm_head.weight is not the embedding"):
        load(tmp_path)
    export(random_model(**LLAMA), None, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, path)
    assert load(tmp_path).config.tied


@pytest.mark.parametrize("index", [{}, {"weight_map": ["model.safetensors"]}, {"weight_map": {"lm_head.weight": 3}}])
def test_a_damaged_index_is_refused(index, tmp_path):
    export(random_model(), None, tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="has no weight_map from tensors to files"):
        load(tmp_path)


@pytest.mark.parametrize("args", [{}, {"model": {}}, {"model": {"colour": 1}, "data": "x"}, {"model": 3, "data": "x"}])
def test_a_run_of_another_kind_is_refused(args, tmp_path):
    (tmp_path / "checkpoints" / "step_00000001").mkdir(parents=True)
    (tmp_path / "args.json").write_text(json.dumps(args))
    with pytest.raises(InputError, match=r"args.json is not that of a pretraining run"):
        load_run(tmp_path)


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path):
    from tokenizers import Tokenizer, models

    export(random_model(), None, tmp_path / "a")
    path = tmp_path / "tokenizer.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"tokenizer.json cannot be read: EOF"):
        main(Settings(str(tmp_path / "a"), tmp_path / "b", tmp_path))
    Tokenizer(models.WordLevel({str(i): i for i in range(102)}, "0")).save(str(path))
    with pytest.raises(InputError, match="has 102 tokens, the model only 101"):
        main(Settings(str(tmp_path / "a"), tmp_path / "b", tmp_path))
    assert not (tmp_path / "b").exists()


def test_document_mask_is_said_and_comes_back(tmp_path, capsys):
    """Within one document transformers computes the same; across documents it does not."""
    model = random_model(document_mask=True)
    export(model, None, tmp_path / "a")
    main(Settings(str(tmp_path / "a"), tmp_path / "b"))
    for text in (capsys.readouterr().out, (tmp_path / "b" / "README.md").read_text()):
        assert "trained with --document_mask: no token looked beyond an end-of-text" in text
    assert load(tmp_path / "b").config.document_mask
    reference, tokens = theirs(tmp_path / "b"), torch.randint(8, 101, (2, 24))
    assert torch.allclose(model(tokens), reference(tokens).logits, atol=1e-4)
    tokens[:, 10] = 7
    assert not torch.allclose(model(tokens), reference(tokens).logits, atol=1e-2)


def test_failed_export_keeps_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    model = random_model()
    export(model, None, folder)
    before = (folder / "model.safetensors").read_bytes()
    import convert

    def disk_full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "flush", disk_full)
    with pytest.raises(OSError, match="No space"):
        export(random_model(**LLAMA), None, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


KILLED = """
import sys, torch
from convert import export
from model import GPT
from presets import GPTConfig
model = GPT(GPTConfig(n_layer=2, n_head=4, n_embd=256, block_size=16, vocab_size=2000))
export(model, None, sys.argv[1])
print("ready", flush=True)
while True:
    export(model, None, sys.argv[1])
"""


def test_a_link_keeps_leading_to_the_export(tmp_path):
    export(random_model(), None, tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    export(random_model(n_layer=1), None, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "real").config.n_layer == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_kill_during_export_leaves_a_whole_folder(tmp_path):
    """kill -9 at any moment: the folder, or its predecessor beside it, loads."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "pretrain"), "OMP_NUM_THREADS": "1"}
    for delay in (0.0, 0.013, 0.031):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "model")], env=environment,
                                   stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        whole = tmp_path / "model" if (tmp_path / "model").exists() else tmp_path / ".model.old"
        assert load(whole).config.n_embd == 256


def test_command_line(tmp_path):
    export(random_model(), None, tmp_path / "a")
    script = Path(__file__).parents[2] / "pretrain" / "convert.py"
    done = subprocess.run([sys.executable, script, tmp_path / "a", tmp_path / "b c"], capture_output=True, text=True,
                          check=True)
    assert "GPT2LMHeadModel" in done.stdout
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b c/model.safetensors").read_bytes()
    failed = subprocess.run([sys.executable, script, tmp_path, tmp_path / "d"], capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr
