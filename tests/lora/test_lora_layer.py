"""The layer against PEFT, and its merging, switching, targets and variants."""

import copy

import peft
import pytest
import torch
import torch.nn.functional as F
from finetune_settings import InputError
from torch import nn
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Llama4ForCausalLM, Llama4TextConfig

from lora import (
    LoRALinear,
    convert_linear_layer_to_lora,
    convert_lora_to_linear_layer,
    get_lora_state_dict,
    lora_layers,
    merge_lora,
    only_optimize_lora_parameters,
    target_layers,
    unmerge_lora,
)


def twin_of_peft(model, kind, rank=4, alpha=8, randomise=None, **options):
    """(ours, PEFT's) with the same adapter on copies of one base."""
    theirs = peft.get_peft_model(
        copy.deepcopy(model),
        peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=[name.rpartition(".")[2] for name in target_layers(model)],
            fan_in_fan_out=kind == "gpt2",
            task_type="CAUSAL_LM",
            **options,
        ),
    )
    randomise(theirs)
    ours = convert_linear_layer_to_lora(
        model, "", rank, alpha, rslora=options.get("use_rslora", False), dora=options.get("use_dora", False)
    )
    only_optimize_lora_parameters(ours)
    for name, layer in lora_layers(ours).items():
        other = theirs.base_model.model.get_submodule(name)
        layer.lora_right_weight.data.copy_(other.lora_A["default"].weight.data.t())
        layer.lora_left_weight.data.copy_(other.lora_B["default"].weight.data.t())
    return ours, theirs


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
@pytest.mark.parametrize(("kind", "bias"), [("gpt2", True), ("llama", False), ("llama", True)])
def test_logits_and_gradients_equal_pefts(make_model, randomise, kind, bias, options):
    ours, theirs = twin_of_peft(make_model(kind, bias=bias), kind, randomise=randomise, **options)
    ids = torch.randint(0, 320, (3, 17), generator=torch.Generator().manual_seed(0))
    losses = [model(ids, labels=ids).loss for model in (ours, theirs)]
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-6)
    for loss in losses:
        loss.backward()
    for name, layer in lora_layers(ours).items():
        other = theirs.base_model.model.get_submodule(name)
        torch.testing.assert_close(
            layer.lora_right_weight.grad, other.lora_A["default"].weight.grad.t(), rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(
            layer.lora_left_weight.grad, other.lora_B["default"].weight.grad.t(), rtol=1e-5, atol=1e-5
        )
        if layer.lora_magnitude is not None:
            torch.testing.assert_close(
                layer.lora_magnitude.grad, other.lora_magnitude_vector["default"].weight.grad, rtol=1e-4, atol=1e-5
            )
    assert not [name for name, p in ours.named_parameters() if p.grad is not None and "lora_" not in name]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_autograd_function_passes_gradcheck(dropout):
    layer = LoRALinear(torch.randn(5, 7).double(), torch.randn(5).double(), 3, 6, lora_dropout=dropout)
    a, b = layer.lora_right_weight.data.double(), torch.randn(3, 5).double()
    x, mask = torch.randn(2, 7).double(), (torch.rand(2, 7) > 0.3).double()
    from lora import LowRankLinear

    def branch(x, a, b):
        dropped = x * mask if dropout else None
        return LowRankLinear.apply(x, dropped, layer.weight, layer.bias, a, b, 2.0)

    assert torch.autograd.gradcheck(branch, [t.requires_grad_() for t in (x, a, b)])


def test_dropout_acts_on_the_branch_only_and_only_in_training():
    torch.manual_seed(0)
    layer = LoRALinear(torch.randn(6, 8), None, 2, 4, lora_dropout=0.5)
    nn.init.normal_(layer.lora_left_weight)
    x = torch.randn(2000, 8)
    base, branch = F.linear(x, layer.weight), layer.eval()(x) - F.linear(x, layer.weight)
    torch.testing.assert_close(branch, (x @ layer.lora_right_weight) @ layer.lora_left_weight * 2, rtol=1e-5, atol=1e-5)
    noisy = torch.stack([layer.train()(x) - base for _ in range(200)])
    assert not torch.equal(noisy[0], branch)
    assert (noisy.mean(0) - branch).abs().mean() < 0.1 * branch.abs().mean()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"dora": True}, {"init": "pissa"}], ids=str)
def test_first_output_is_the_bases_and_its_bits_stay(make_model, kind, options):
    model = make_model(kind)
    ids = torch.arange(12)[None]
    before, weights = model(ids).logits, {k: v.clone() for k, v in model.state_dict().items()}
    convert_linear_layer_to_lora(model, "", 4, 8, **options)
    only_optimize_lora_parameters(model)
    if options.get("init") == "pissa" or options.get("dora"):
        torch.testing.assert_close(model(ids).logits, before, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(model(ids).logits, before)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not torch.allclose(model(ids).logits, before, atol=1e-3)
    after = convert_lora_to_linear_layer(model).state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[key], weights[key]) for key in weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"dora": True}, {"init": "pissa"}], ids=str)
def test_merge_twice_and_unmerge_give_back_the_same_bits(make_model, randomise, dtype, options):
    model = make_model("gpt2").to(dtype).eval()
    convert_linear_layer_to_lora(model, "", 4, 8, **options)
    randomise(model)
    ids = torch.arange(12)[None]
    bits, apart = {k: v.clone() for k, v in model.state_dict().items()}, model(ids).logits
    merge_lora(model)
    merged = model(ids).logits
    torch.testing.assert_close(merged.float(), apart.float(), rtol=1e-4, atol=1e-4 if dtype == torch.float32 else 0.1)
    merge_lora(model)
    assert torch.equal(model(ids).logits, merged)
    unmerge_lora(unmerge_lora(model))
    assert all(torch.equal(tensor, bits[key]) for key, tensor in model.state_dict().items())
    assert torch.equal(model(ids).logits, apart)


def test_a_nan_adapter_is_not_merged_anywhere(make_model, randomise):
    model = randomise(convert_linear_layer_to_lora(make_model("qwen3"), "", 4, 8))
    bits = {k: v.clone() for k, v in model.state_dict().items()}
    list(lora_layers(model).values())[-1].lora_left_weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.down_proj.*NaN"):
        merge_lora(model)
    assert all(torch.equal(v, bits[k]) for k, v in model.state_dict().items() if k.endswith("proj.weight"))


def test_training_while_merged_is_refused(make_model):
    model = merge_lora(convert_linear_layer_to_lora(make_model("qwen3"), "", 4, 8)).train()
    with pytest.raises(RuntimeError, match="unmerge"):
        model(torch.arange(5)[None])


@pytest.mark.parametrize(("kind", "count"), [("gpt2", 8), ("llama", 14), ("qwen3", 14)])
def test_default_targets_are_the_blocks_linear_layers(make_model, kind, count):
    names = target_layers(make_model(kind))
    assert len(names) == count
    assert not any("head" in name or "emb" in name for name in names)


def test_a_tower_of_images_beside_the_text_model_is_left_out():
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 320, "num_key_value_heads": 1, "head_dim": 8}
    model = Gemma3ForConditionalGeneration(Gemma3Config(
        text_config=text, vision_config={**sizes, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4))
    names = target_layers(model)
    assert len(names) == 14 and all("language_model" in name for name in names)
    assert len(target_layers(model, "vision_tower.encoder.*.fc1")) == 2, "by name they are taken"


def test_a_linear_layer_that_computes_something_else_is_left_as_it_is():
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = Llama4ForCausalLM(Llama4TextConfig(**sizes, vocab_size=320, num_key_value_heads=1, head_dim=8,
                                               intermediate_size_mlp=24, num_local_experts=2)).eval()
    ids = torch.arange(12)[None]
    before = model(ids).logits
    assert isinstance(model.model.layers[0].feed_forward.router, nn.Linear)
    convert_linear_layer_to_lora(model)
    assert {name.rpartition(".")[2] for name in lora_layers(model)} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert torch.equal(model(ids).logits, before)


def test_the_seeds_pattern_works_on_gpt2_and_lists_candidates_on_llama(make_model):
    assert len(target_layers(make_model("gpt2"), "h.")) == 8
    with pytest.raises(InputError, match=r"'h\.'.*model\.layers\.\*\.self_attn\.q_proj"):
        target_layers(make_model("llama"), "h.")


def test_layers_are_named_by_whole_parts_or_a_regular_expression(make_model):
    llama, gpt2 = make_model("llama"), make_model("gpt2")
    assert len(target_layers(llama, "q_proj, v_proj")) == 4
    assert len(target_layers(gpt2, "attn")) == len(target_layers(gpt2, "h.*.attn")) == 4
    assert target_layers(gpt2, "transformer.h.*.attn.c_attn") == target_layers(gpt2, "c_attn")
    for part in ("proj", "attn", "ayers.1", "xq_proj"):
        with pytest.raises(InputError, match=f"'{part}' matches no linear layer"):
            target_layers(llama, part)
    llama.model.layers[0].self_attn.xq_proj = torch.nn.Linear(32, 32)
    assert [name for name in target_layers(llama, "q_proj") if "xq" in name] == []
    assert target_layers(llama, r".*layers\.1\..*q_proj") == ["model.layers.1.self_attn.q_proj"]
    assert len(target_layers(llama, r".*\.\d{1,2}\..*\.(q|v)_proj,.*down_proj")) == 6
    with pytest.raises(InputError, match=r"matches no linear layer"):
        target_layers(llama, r"layers\.1\..*q_proj")  # PEFT's rule: the whole name
    with pytest.raises(InputError, match="'v_prj' matches no linear layer"):
        target_layers(llama, "q_proj,v_prj")
    with pytest.raises(InputError, match="neither a name nor a regular expression"):
        target_layers(llama, "(q_proj")


def test_the_tied_head_is_refused_and_a_free_one_taken(make_model):
    with pytest.raises(InputError, match="lm_head"):
        target_layers(make_model("qwen3"), "lm_head,q_proj")
    assert "lm_head" in target_layers(make_model("llama"), "lm_head,q_proj")


def test_state_dict_holds_the_adapters_under_the_seeds_names(make_model):
    state = get_lora_state_dict(convert_linear_layer_to_lora(make_model("gpt2"), "c_attn", 4, 8))
    assert sorted(state)[:2] == [
        "transformer.h.0.attn.c_attn.lora_left_weight",
        "transformer.h.0.attn.c_attn.lora_right_weight",
    ]
    assert state["transformer.h.0.attn.c_attn.lora_right_weight"].shape == (32, 4)
    assert len(state) == 4


@pytest.mark.parametrize("rank", [0, -3])
def test_bad_rank_is_refused(make_model, rank):
    with pytest.raises(InputError, match="lora_dim"):
        convert_linear_layer_to_lora(make_model("gpt2"), "", rank, 8)


def test_bf16_autocast_and_bf16_base_are_close_to_fp32(make_model, randomise):
    ids = torch.arange(20)[None]
    model = randomise(convert_linear_layer_to_lora(make_model("gpt2"), "", 4, 8))
    exact = model(ids, labels=ids).loss
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(ids, labels=ids).loss
        mixed.backward()
    halved = randomise(convert_linear_layer_to_lora(make_model("gpt2").bfloat16(), "", 4, 8))
    loss = halved(ids, labels=ids).loss
    loss.backward()
    assert all(abs(value.item() - exact.item()) < 0.03 for value in (mixed, loss))
    assert all(
        p.dtype == torch.float32 and p.grad.isfinite().all() for n, p in halved.named_parameters() if "lora_" in n
    )


def test_int8_base_stays_close(make_model, randomise):
    pytest.importorskip("torchao")
    from finetune_model import quantise_base

    ids = torch.arange(20)[None]
    model = randomise(convert_linear_layer_to_lora(make_model("llama"), "", 4, 8))
    only_optimize_lora_parameters(model)
    exact = model(ids, labels=ids).loss.item()
    quantise_base(model)
    loss = model(ids, labels=ids).loss
    loss.backward()
    assert abs(loss.item() - exact) < 0.02
    assert model.model.layers[0].mlp.up_proj.lora_right_weight.grad.abs().sum() > 0
