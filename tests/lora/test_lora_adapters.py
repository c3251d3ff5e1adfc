"""PEFT's format in both directions, the base model's identity, hostile files, combining."""

import copy
import json
import struct

import peft
import pytest
import torch
from adapter_files import load_adapter, save_adapter
from adapters import adapter_of, base_sha256, combine_adapters, install_adapter
from finetune_settings import InputError
from safetensors.torch import load_file, save_file
from transformers import CTRLConfig, CTRLLMHeadModel, FalconH1Config, FalconH1ForCausalLM

from lora import convert_linear_layer_to_lora, lora_layers, merge_lora, target_layers

IDS = torch.arange(14)[None]
VARIANTS = [{}, {"rslora": True}, {"dora": True}, {"init": "pissa"}]


def adapted(model, randomise, rank=4, alpha=6, seed=1, pattern="", **options):
    return randomise(convert_linear_layer_to_lora(model, pattern, rank, alpha, **options), seed).eval()


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize(("kind", "bias"), [("gpt2", True), ("llama", True), ("qwen3", False)])
def test_peft_loads_ours_with_the_same_logits(make_model, randomise, tmp_path, kind, bias, options):
    base = make_model(kind, bias=bias)
    ours = adapted(copy.deepcopy(base), randomise, **options)
    save_adapter(adapter_of(ours, "base"), tmp_path, ours)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    torch.testing.assert_close(theirs(IDS).logits, ours(IDS).logits, rtol=1e-5, atol=1e-5)
    assert not list(tmp_path.glob("*.tmp"))
    back = install_adapter(make_model(kind, bias=bias).eval(), load_adapter(tmp_path, make_model(kind, bias=bias)))
    torch.testing.assert_close(back(IDS).logits, ours(IDS).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"rank_pattern": {"{a}": 2}, "alpha_pattern": {"{a}": 5}},
     {"rank_pattern": {r".*\.0\..*{a}": 2}, "alpha_pattern": {r".*\.0\..*{a}": 5}}],
    ids=str,
)
@pytest.mark.parametrize(("kind", "bias"), [("gpt2", True), ("llama", False), ("qwen3", True)])
def test_ours_loads_pefts_with_the_same_logits(make_model, randomise, tmp_path, kind, bias, options):
    base = make_model(kind, bias=bias)
    suffixes = [name.rpartition(".")[2] for name in target_layers(base)]
    options = {
        key: {name.format(a=suffixes[0]): v for name, v in value.items()} if isinstance(value, dict) else value
        for key, value in options.items()
    }
    theirs = peft.get_peft_model(
        copy.deepcopy(base),
        peft.LoraConfig(
            r=4, lora_alpha=8, target_modules=suffixes, fan_in_fan_out=kind == "gpt2", task_type="CAUSAL_LM", **options
        ),
    ).eval()
    randomise(theirs).save_pretrained(tmp_path)
    ours = install_adapter(base.eval(), load_adapter(tmp_path, base))
    torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, rtol=1e-5, atol=1e-5)


def test_the_bases_head_that_peft_saves_beside_its_adapter_is_skipped(make_model, randomise, tmp_path):
    base = make_model("llama")
    config = peft.LoraConfig(r=4, target_modules=["lm_head", "q_proj"], task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(copy.deepcopy(base), config).eval()
    randomise(theirs).save_pretrained(tmp_path)
    key = "base_model.model.lm_head.base_layer.weight"
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert key in tensors
    load_adapter(tmp_path, make_model("llama").bfloat16())  # the same weight, rounded
    ours = install_adapter(make_model("llama").eval(), load_adapter(tmp_path, base))
    torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, rtol=1e-5, atol=1e-5)
    for other in (tensors[key] + 1, tensors[key][:5]):
        save_file(tensors | {key: other.contiguous()}, tmp_path / "adapter_model.safetensors")
        with pytest.raises(InputError, match=r"lm_head\.base_layer\.weight' is not the weight of this base"):
            load_adapter(tmp_path, make_model("llama"))


def test_tied_embedding_is_untouched_and_not_saved(make_model, randomise, tmp_path):
    ours = adapted(make_model("qwen3"), randomise)
    save_adapter(adapter_of(ours), tmp_path, ours)
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    assert not [key for key in load_file(tmp_path / "adapter_model.safetensors") if "head" in key or "embed" in key]
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]


def test_the_patterns_name_the_few_layers_that_differ(make_model, randomise, tmp_path):
    base = make_model("llama")
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM",
                             rank_pattern={r"layers\.0\.self_attn\.q_proj": 2},
                             alpha_pattern={r"layers\.0\.self_attn\.q_proj": 5})
    theirs = randomise(peft.get_peft_model(copy.deepcopy(base), config)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = install_adapter(copy.deepcopy(base), load_adapter(tmp_path / "theirs", base))
    save_adapter(adapter_of(ours), tmp_path / "ours", ours)
    saved = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"]) == (4, 6)
    assert saved["rank_pattern"] == {"model.layers.0.self_attn.q_proj": 2}
    assert saved["alpha_pattern"] == {"model.layers.0.self_attn.q_proj": 5}
    again = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "ours").eval()
    torch.testing.assert_close(again(IDS).logits, theirs(IDS).logits, rtol=1e-5, atol=1e-5)


def test_a_part_of_the_layers_is_named_in_full(make_model, randomise, tmp_path):
    base = make_model("qwen3")
    ours = adapted(copy.deepcopy(base), randomise, pattern="layers.1.mlp")
    save_adapter(adapter_of(ours), tmp_path, ours)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    torch.testing.assert_close(theirs(IDS).logits, ours(IDS).logits, rtol=1e-5, atol=1e-5)


def test_a_suffix_that_other_modules_have_as_well_names_no_layer(randomise, tmp_path):
    """CTRL's layers are called h.0.ffn.0 and h.0.ffn.2, its blocks h.0 and h.1."""
    base = CTRLLMHeadModel(CTRLConfig(vocab_size=99, n_embd=32, dff=48, n_layer=3, n_head=4)).eval()
    ours = adapted(copy.deepcopy(base), randomise)
    save_adapter(adapter_of(ours), tmp_path, ours)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    torch.testing.assert_close(theirs(IDS).logits, ours(IDS).logits, rtol=1e-5, atol=1e-5)


def test_peft_takes_what_is_adapted_of_a_mamba(randomise, tmp_path):
    config = FalconH1Config(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, mamba_d_ssm=32,
                            num_attention_heads=4, num_key_value_heads=2, mamba_n_heads=4, mamba_d_head=8)
    base = FalconH1ForCausalLM(config).eval()
    ours = adapted(copy.deepcopy(base), randomise)
    assert {name.rpartition(".")[2] for name in lora_layers(ours)} == {
        "in_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    save_adapter(adapter_of(ours), tmp_path, ours)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    torch.testing.assert_close(theirs(IDS).logits, ours(IDS).logits, rtol=1e-5, atol=1e-5)


def test_base_hash_ignores_adapters_merging_and_bf16(make_model, randomise):
    plain = base_sha256(make_model("gpt2"))
    model = adapted(make_model("gpt2"), randomise)
    assert base_sha256(model) == plain == base_sha256(merge_lora(model)) == base_sha256(make_model("gpt2").bfloat16())
    assert base_sha256(make_model("gpt2", seed=5)) != plain


def test_adapter_on_another_base_is_refused_naming_both(make_model, randomise, tmp_path):
    model = adapted(make_model("gpt2"), randomise)
    save_adapter(adapter_of(model, "models/first"), tmp_path, model)
    other = make_model("gpt2", seed=9)
    other.config._name_or_path = "models/second"
    with pytest.raises(InputError, match=r"models/first.*models/second"):
        install_adapter(other, load_adapter(tmp_path, other))
    assert not lora_layers(other)


def test_the_same_adapter_is_the_same_bytes_and_older_files_are_read(make_model, randomise, tmp_path):
    model = adapted(make_model("gpt2"), randomise)
    path = tmp_path / "adapter_model.safetensors"
    saved = set()
    for _ in range(20):
        save_adapter(adapter_of(model, "models/a", "0" * 64), tmp_path, model)
        saved.add(path.read_bytes())
    assert len(saved) == 1
    tensors, older = load_file(path), {"format": "pt", "base_name": "models/a", "base_sha256": "0" * 64}
    for metadata in (None, older):
        if metadata:
            save_file(tensors, path, metadata)
        adapter = load_adapter(tmp_path, make_model("gpt2"))
        assert (adapter.base_name, adapter.base_sha256) == ("models/a", "0" * 64)
    for base in ("[1]", "{", '{"base_sha256": 1}'):
        save_file(tensors, path, {"lora_base": base})
        with pytest.raises(InputError, match="metadata is not a JSON object of texts"):
            load_adapter(tmp_path, make_model("gpt2"))


def test_switching_equals_each_adapter_alone(make_model, randomise):
    adapters = [
        adapter_of(adapted(make_model("gpt2"), randomise, rank, seed=rank, pattern=part))
        for rank, part in ((2, "attn"), (5, "mlp"))
    ]
    alone = [install_adapter(make_model("gpt2").eval(), adapter)(IDS).logits for adapter in adapters]
    model = make_model("gpt2").eval()
    for i in (0, 1, 0):
        assert torch.equal(install_adapter(model, adapters[i])(IDS).logits, alone[i])
    assert torch.equal(install_adapter(merge_lora(model), adapters[1])(IDS).logits, alone[1])


def test_combining_is_the_weighted_sum_of_the_updates(make_model, randomise):
    first = adapter_of(adapted(make_model("gpt2"), randomise, 2, seed=1))
    second = adapter_of(adapted(make_model("gpt2"), randomise, 5, 3, seed=2, pattern="attn", rslora=True))
    combined = combine_adapters([(first, 0.7), (second, -0.4)])
    for name, branch in combined.branches.items():
        expected = sum(
            weight * part.scaling * part.right @ part.left
            for adapter, weight in ((first, 0.7), (second, -0.4))
            for key, part in adapter.branches.items()
            if key == name
        )
        torch.testing.assert_close(branch.scaling * branch.right @ branch.left, expected, rtol=1e-5, atol=1e-6)
    assert len(combined.branches) == 8
    install_adapter(make_model("gpt2"), combined)


def test_combining_dora_or_adapters_of_two_bases_is_refused(make_model, randomise):
    dora = adapter_of(adapted(make_model("gpt2"), randomise, dora=True))
    with pytest.raises(InputError, match="DoRA"):
        combine_adapters([(dora, 1.0)])
    one, two = (adapter_of(adapted(make_model("gpt2", seed=seed), randomise), f"base{seed}") for seed in (1, 2))
    with pytest.raises(InputError, match=r"base1.*base2"):
        combine_adapters([(one, 1.0), (two, 1.0)])


@pytest.fixture
def saved(make_model, randomise, tmp_path):
    model = adapted(make_model("gpt2"), randomise)
    save_adapter(adapter_of(model), tmp_path, model)
    return tmp_path


def change_config(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"r": 1_000_000_000_000}, "r = 1000000000000"),
        ({"r": 999_999_999}, "rank 4.*says 999999999"),
        ({"r": -1}, "r = -1"),
        ({"r": "8"}, "r = '8'"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"rank_pattern": {"c_attn": 7}}, "c_attn.*says 7"),
        ({"rank_pattern": [1]}, "rank_pattern"),
        ({"rank_pattern": {"c_(": 4}}, "no regular expression"),
        ({"rank_pattern": {"(.|.)*[!?]": 4}}, "no regular expression to use .*timed out"),
        ({"alpha_pattern": {"c_attn": "x"}}, "alpha_pattern of 'c_attn' = 'x'"),
        ({"alpha_pattern": {"c_attn": None}}, "alpha_pattern of 'c_attn' = None"),
        ({"lora_dropout": "x"}, "lora_dropout = 'x'"),
        ({"lora_dropout": 5}, "lora_dropout = 5"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4.*changes the base"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"target_parameters": ["x"]}, "target_parameters"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_dora": True}, "DoRA"),
    ],
)
def test_hostile_config_is_refused(make_model, saved, values, message):
    change_config(saved, **values)
    with pytest.raises(InputError, match=message):
        load_adapter(saved, make_model("gpt2"))


def rewrite(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


KEY = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({KEY: torch.zeros(4, 999)}), r"c_attn.*\(999, 4\)"),
        (lambda t: t.update({KEY: torch.zeros(4)}), "do not multiply"),
        (lambda t: t.pop(KEY), "lora_A"),
        (lambda t: t.update({key.replace("h.0", "h.77"): t.pop(key) for key in list(t)}), "h.77"),
        (lambda t: t.update({"base_model.model.lm_head.weight": torch.zeros(2, 2)}), "lm_head"),
        (lambda t: t.clear(), "no tensors"),
        (lambda t: t[KEY].fill_(float("nan")), "c_attn.*holds NaN"),
    ],
)
def test_hostile_tensors_are_refused(make_model, saved, change, message):
    rewrite(saved, change)
    with pytest.raises(InputError, match=message):
        load_adapter(saved, make_model("gpt2"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 8) + b"not json",
        *[
            struct.pack("<Q", len(h)) + h
            for h in [json.dumps({KEY: {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 8]}}).encode()]
        ],
    ],
    ids=range(7),
)
def test_hostile_header_is_refused(make_model, saved, data):
    (saved / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(InputError, match="safetensors"):
        load_adapter(saved, make_model("gpt2"))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"peft_type": "LORA", "r": ' + "9" * 5000 + "}"])
def test_json_that_python_cannot_read_is_refused(make_model, saved, text):
    (saved / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match="not valid JSON"):
        load_adapter(saved, make_model("gpt2"))


def test_missing_files_are_named(make_model, saved, tmp_path):
    (saved / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is missing$"):
        load_adapter(saved, make_model("gpt2"))
    (saved / "adapter_model.bin").write_bytes(b"what older versions of PEFT wrote")
    with pytest.raises(InputError, match=r"is missing; adapter_model\.bin is a pickle, .* save the adapter again"):
        load_adapter(saved, make_model("gpt2"))
    with pytest.raises(InputError, match="adapter_config"):
        load_adapter(tmp_path / "none", make_model("gpt2"))
    (saved / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        load_adapter(saved, make_model("gpt2"))
