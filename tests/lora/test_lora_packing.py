"""Packed and padded batches against one sequence at a time, for several model families."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from finetune_settings import InputError
from fused_head import CastLoss, HeadCrossEntropy, labelled_loss
from fused_operations import FusedActivation, fuse_operations, fused
from instructions import Examples
from packed_attention import ShortAttention, flash_attention, grouped_attention, use_packed_attention
from packing import Layout, group_by_length, pack, pad, plan_epoch, share_beginnings
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    JetMoeConfig,
    JetMoeForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)
from transformers.activations import GELUActivation, NewGELUActivation, PytorchGELUTanh
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lora import convert_linear_layer_to_lora, only_optimize_lora_parameters

SMALL = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
LENGTHS = [5, 30, 9, 12, 3, 31, 28, 7, 30]


def make_examples(lengths=LENGTHS, seed=0):
    """Sequences of these lengths; each begins as the one before it: 0 to 8 tokens, some of them in the labels."""
    random = np.random.default_rng(seed)
    rows = [random.integers(1, 320, length).astype(np.int32) for length in lengths]
    for before, row in pairwise(rows):
        shared = min(len(before), len(row), int(random.integers(0, 9)))
        row[:shared] = before[:shared]
    return Examples(
        np.concatenate(rows),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.array([max(1, length // 2) for length in lengths]),
    )


def one_by_one(model, examples):
    """The reference: transformers' own loss of each sequence alone, summed over labelled tokens."""
    total = 0
    for i in range(len(examples)):
        ids = torch.from_numpy(examples[i].astype(np.int64))[None]
        labels = ids.clone()
        labels[0, : examples.first_label[i]] = -100
        total = total + F.cross_entropy(
            model(ids).logits[0, :-1].float(), labels[0, 1:], ignore_index=-100, reduction="sum"
        )
    return total


def families(make_model):
    return {
        "gpt2": lambda: make_model("gpt2"),
        "llama": lambda: make_model("llama"),
        "qwen3": lambda: make_model("qwen3"),
        "mistral, window 8": lambda: MistralForCausalLM(
            MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=8)
        ),
        "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SMALL, num_key_value_heads=4)),
        "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL)),
        "jetmoe": lambda: JetMoeForCausalLM(
            JetMoeConfig(vocab_size=320, hidden_size=32, intermediate_size=16, num_hidden_layers=2,
                         num_key_value_heads=2, kv_channels=8, num_local_experts=4)
        ),
        "deepseek_v3, values of another size": lambda: DeepseekV3ForCausalLM(
            DeepseekV3Config(**SMALL, num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8,
                             qk_nope_head_dim=8, v_head_dim=12, moe_intermediate_size=16, n_routed_experts=4, n_group=1,
                             topk_group=1, num_experts_per_tok=2, first_k_dense_replace=1)
        ),
        "opt": lambda: OPTForCausalLM(
            OPTConfig(
                vocab_size=320,
                hidden_size=32,
                ffn_dim=48,
                num_hidden_layers=2,
                dropout=0.0,
                num_attention_heads=4,
                word_embed_proj_dim=32,
                attention_dropout=0.0,
            )
        ),
    }


def loss_and_gradients(model, compute):
    model.zero_grad()
    loss = compute()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "mistral, window 8", "phi3", "neox", "opt"])
def test_packed_and_padded_equal_one_sequence_at_a_time(make_model, randomise, family, full):
    torch.manual_seed(0)
    model = families(make_model)[family]().train()
    if not full:
        randomise(only_optimize_lora_parameters(convert_linear_layer_to_lora(model, "", 4, 8)))
    examples = make_examples()
    loss, gradients = loss_and_gradients(model, lambda: one_by_one(model, examples))
    fuse_operations(model)
    ways = {"padded": lambda: labelled_loss(model, pad(examples, range(len(examples))))}
    results = {name: loss_and_gradients(model, way) for name, way in ways.items()}
    use_packed_attention(model)
    results["packed"] = loss_and_gradients(model, lambda: labelled_loss(model, pack(examples, range(len(examples)))))
    model.activation_checkpointing_enable({"use_reentrant": False})
    results["checkpointed"] = loss_and_gradients(
        model, lambda: labelled_loss(model, pack(examples, range(len(examples))))
    )
    for other, others in results.values():
        torch.testing.assert_close(other, loss.float(), rtol=1e-6, atol=1e-4)
        assert others.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                others[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item() + 1e-7
            )


def test_families_that_need_care(make_model):
    """jetmoe takes a view of attention's output; deepseek's values have a head size of their own."""
    for family in ("jetmoe", "deepseek_v3, values of another size"):
        torch.manual_seed(0)
        model, examples = families(make_model)[family]().train(), make_examples()
        loss, gradients = loss_and_gradients(model, lambda m=model, e=examples: one_by_one(m, e))
        use_packed_attention(model)
        for precision in ("fp32", "bf16"):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                batch = pack(examples, range(9))
                other, others = loss_and_gradients(model, lambda m=model, b=batch: labelled_loss(m, b))
            torch.testing.assert_close(other, loss.float(), rtol=1e-6 if precision == "fp32" else 1e-2, atol=1e-4)
            if precision == "fp32":
                for name, gradient in gradients.items():
                    torch.testing.assert_close(others[name], gradient, rtol=1e-4,
                                               atol=1e-5 * gradient.abs().max().item() + 1e-7)


def test_a_head_that_scales_is_not_taken_for_plain():
    model = FalconH1ForCausalLM(FalconH1Config(**SMALL, num_key_value_heads=2, lm_head_multiplier=0.5, mamba_d_ssm=32,
                                               mamba_n_heads=4, mamba_d_head=8)).train()
    examples = make_examples()
    torch.testing.assert_close(
        labelled_loss(model, pad(examples, range(9))), one_by_one(model, examples), rtol=1e-5, atol=1e-3
    )


def test_a_family_whose_attention_cannot_be_replaced_is_refused_but_padding_works():
    model = BloomForCausalLM(BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=4))
    with pytest.raises(InputError, match="--packing False"):
        use_packed_attention(model)
    examples = make_examples()
    torch.testing.assert_close(
        labelled_loss(model, pad(examples, range(9))), one_by_one(model, examples), rtol=1e-6, atol=1e-3
    )


def test_soft_caps_are_kept_or_refused():
    model = Gemma2ForCausalLM(
        Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, final_logit_softcapping=3.0)
    ).train()
    model.set_attn_implementation("eager")
    examples = make_examples()
    torch.testing.assert_close(
        labelled_loss(model, pad(examples, range(9))), one_by_one(model, examples), rtol=1e-5, atol=1e-3
    )
    with pytest.raises(InputError, match="soft-capped"):
        labelled_loss(use_packed_attention(model), pack(examples, range(9)))


def varlen_by_hand(query, key, value, starts, key_starts, longest, longest_key, scale, window_size):
    """What torch's variable-length kernel does, for machines without a GPU; (flat, H, D) each."""
    assert starts is key_starts and longest == longest_key == max(starts.diff())
    parts = []
    for start, stop in pairwise(starts.tolist()):
        q, k, v = (tensor[start:stop].transpose(0, 1) for tensor in (query, key, value))
        mask = torch.ones(stop - start, stop - start, dtype=torch.bool).tril(window_size[1])
        mask = mask if window_size[0] < 0 else mask.triu(-window_size[0])
        parts.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("kept", [256, 4])
def test_attention_in_every_way_equals_sdpa_of_each_sequence(monkeypatch, window, kept):
    monkeypatch.setattr("packed_attention.KEPT", kept)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_by_hand)
    torch.manual_seed(0)
    places = [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 8, 9, 10, 11], [0, 1, 12], [13]]  # two of them share a beginning
    layout = Layout([np.array(place) for place in places], "cpu")
    qkv = [torch.randn(2, 14, 4, dtype=torch.double, requires_grad=True) for _ in range(3)]
    expected = torch.zeros(2, 14, 4, dtype=torch.double)
    for place in reversed(places):
        mask = torch.ones(len(place), len(place), dtype=torch.bool).tril()
        mask = mask if window is None else mask.triu(1 - window)
        rows = (tensor[:, place] for tensor in qkv)
        expected[:, place] = F.scaled_dot_product_attention(*rows, attn_mask=mask, scale=0.3)
    g = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, qkv, g)
    for out in (grouped_attention(*qkv, layout, 0.3, 0.0, window), flash_attention(*qkv, layout, 0.3, window)):
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(torch.autograd.grad(out, qkv, g), gradients)
    short = ShortAttention.apply(*qkv, layout, 0.3, window)  # its loops calculate in fp32
    torch.testing.assert_close(short, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(short, qkv, g), gradients, rtol=1e-5, atol=1e-6)


def test_checkpointing_attends_to_several_groups_again():
    layout = Layout([np.arange(start, start + n) for start, n in ((0, 64), (64, 5), (69, 2))], "cpu")
    assert len(layout.groups) > 1
    qkv = [torch.randn(2, 71, 4, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]

    def attend(*qkv):
        return ShortAttention.apply(*qkv, layout, 0.5, None).sum()

    again = torch.autograd.grad(checkpoint(attend, *qkv, use_reentrant=False), qkv)
    torch.testing.assert_close(again, torch.autograd.grad(attend(*qkv), qkv), rtol=0, atol=0)


def test_bf16_gradients_are_about_as_good_as_padded_sdpas(make_model, randomise):
    """Distance to fp32, ours packed against transformers' own attention, both in bf16."""
    examples, gradients = make_examples(), {}
    for name, dtype in (("exact", torch.float32), ("sdpa", torch.bfloat16), ("ours", torch.bfloat16)):
        model = make_model("llama").to(dtype).train()
        randomise(only_optimize_lora_parameters(convert_linear_layer_to_lora(model, "", 4, 8)))
        if name == "sdpa":
            batch = pad(examples, range(9))
        else:
            batch = pack(examples, range(9))
            use_packed_attention(model)
        _, parts = loss_and_gradients(model, lambda m=model, b=batch: labelled_loss(m, b))
        gradients[name] = torch.cat([part.flatten() for part in parts.values()])
    error = {name: (gradients[name] - gradients["exact"]).norm().item() for name in ("sdpa", "ours")}
    assert error["ours"] < 2.5 * error["sdpa"]


def test_groups_waste_little_and_cover_everything():
    lengths = sorted(np.random.default_rng(0).integers(1, 500, 64).tolist(), reverse=True)
    runs = group_by_length(lengths)
    assert [a for a, _ in runs] == [0, *(b for _, b in runs[:-1])]
    assert runs[-1][1] == 64
    assert all(lengths[a] * (b - a) <= 1.25 * sum(lengths[a:b]) for a, b in runs)
    assert group_by_length([7] * 5) == [(0, 5)]
    layout = Layout([np.arange(7) + 7 * i for i in range(5)], "cpu")
    assert [group.gather.tolist() for group in layout.groups] == [list(range(35))]


def test_equal_beginnings_stand_once():
    random = np.random.default_rng(0)
    rows = [random.integers(0, 3, random.integers(1, 9)) for _ in range(40)]
    tokens, positions, places = share_beginnings(rows)
    beginnings = {tuple(row[: t + 1].tolist()) for row in rows for t in range(len(row))}
    assert len(tokens) == len(beginnings)
    for row, place in zip(rows, places, strict=True):
        assert (tokens[place] == row).all()
        assert (positions[place] == np.arange(len(row))).all()
    layout = Layout(sorted(places, key=len, reverse=True), "cpu")
    written = torch.cat([group.tokens for group in layout.groups])
    assert sorted(written.tolist()) == list(range(len(tokens)))
    assert (layout.flat[layout.first] == torch.arange(len(tokens))).all()


def test_pack_marks_what_is_predicted():
    examples = Examples(np.arange(1, 9, dtype=np.int32), np.array([0, 3, 8]), np.array([1, 3]))
    batch = pack(examples, [0, 1])
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3, 4]]
    assert (batch.predict.tolist(), batch.targets.tolist()) == ([5, 6, 0, 1], [7, 8, 2, 3])
    batch = pad(examples, [0, 1], pad_id=99)
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 99, 99], [4, 5, 6, 7, 8]]
    assert (batch.predict.tolist(), batch.targets.tolist()) == ([0, 1, 7, 8], [2, 3, 7, 8])


@pytest.mark.parametrize("bucket", [False, True])
def test_an_epoch_takes_every_example_once_in_an_order_of_its_own(bucket):
    lengths = np.random.default_rng(0).integers(1, 100, 1003)
    first, again, second = (np.concatenate(plan_epoch(lengths, 8, 42, epoch, bucket)) for epoch in (0, 0, 1))
    assert sorted(first) == list(range(1003))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    if bucket:
        assert sum(max(lengths[u]) * len(u) for u in plan_epoch(lengths, 8, 42, 0, True)) < 1.2 * lengths.sum()


@pytest.mark.parametrize("train_head", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_head_equals_cross_entropy(monkeypatch, rows, train_head):
    import fused_head

    monkeypatch.setattr(fused_head, "CHUNK_ELEMENTS", 64 * 50)
    torch.manual_seed(0)
    hidden, weight = torch.randn(rows, 16, requires_grad=True), torch.randn(50, 16, requires_grad=train_head)
    targets = torch.randint(0, 50, (rows,))
    expected = F.cross_entropy(hidden @ weight.t(), targets, reduction="sum")
    wanted = torch.autograd.grad(expected / 3, [hidden, weight] if train_head else [hidden])
    loss = HeadCrossEntropy.apply(hidden, weight, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-5)
    for got, want in zip(
        torch.autograd.grad(loss / 3, [hidden, weight] if train_head else [hidden]), wanted, strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_head_survives_huge_logits():
    hidden = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    loss = HeadCrossEntropy.apply(hidden, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([1]))
    loss.backward()
    assert loss.item() == 2000
    assert hidden.grad.isfinite().all()


def test_only_equal_operations_are_fused():
    assert isinstance(fused(NewGELUActivation()), FusedActivation)
    assert isinstance(fused(PytorchGELUTanh()), FusedActivation)
    assert isinstance(fused(nn.SiLU()), FusedActivation)
    assert fused(GELUActivation()) is None
    assert fused(nn.GELU()) is None
    norm = LlamaRMSNorm(32)
    assert fused(norm).weight is norm.weight
    assert fused(Gemma2RMSNorm(32)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("make", [NewGELUActivation, nn.SiLU, lambda: LlamaRMSNorm(70)])
def test_fused_operations_and_their_gradients_equal_the_plain_ones(make, dtype):
    torch.manual_seed(0)
    plain = make()
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    new = fused(plain)
    x, g = (scale * torch.randn(2, 9, 70).to(dtype) for scale in (8, 1))
    x[0, 0, :4] = torch.tensor([-200.0, 200, 0, 1e-8])
    results = []
    for module, kind in ((plain, torch.float64), (new, dtype)):
        xs, parameters = x.to(kind).requires_grad_(), list(module.to(kind).parameters())
        y = module(xs.transpose(0, 1)).transpose(0, 1)
        results.append([y, *torch.autograd.grad(y, [xs, *parameters], g.to(kind))])
    rounding = {torch.float32: 1e-6, torch.bfloat16: 6e-3, torch.float64: 1e-6}[dtype]
    for exact, ours in zip(*results, strict=True):
        assert (exact - ours).abs().max() < rounding * (1 + exact.abs().max())


def test_a_nan_reaches_the_loss():
    hidden = torch.full((3, 4), torch.nan)
    assert HeadCrossEntropy.apply(hidden, torch.ones(5, 4), torch.tensor([0, 1, 2])).isnan()
    assert fused(nn.SiLU())(hidden).isnan().all()


def test_cast_weights_give_fp32_gradients_as_autocast_does(make_model):
    examples = make_examples()
    model = use_packed_attention(fuse_operations(make_model("llama").train()))
    batch = pack(examples, range(9))
    _, exact = loss_and_gradients(model, lambda: labelled_loss(model, batch))
    _, cast = loss_and_gradients(model, lambda: CastLoss(model, torch.bfloat16).cast(batch))
    with torch.autocast("cpu", torch.bfloat16):
        _, auto = loss_and_gradients(model, lambda: labelled_loss(model, batch))
    exact, cast, auto = (torch.cat([part.flatten() for part in parts.values()]) for parts in (exact, cast, auto))
    assert cast.dtype == torch.float32
    assert (cast - exact).norm() < 2 * (auto - exact).norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("threshold", [0, 10**9])
def test_rows_are_added_as_index_add_adds_them(monkeypatch, dtype, threshold):
    """With several threads and with one; places may repeat, and then every row counts."""
    import cpu_loops

    monkeypatch.setattr(cpu_loops, "PARALLEL_FROM", threshold)
    torch.manual_seed(0)
    total, part = torch.randn(5, 40, 24, dtype=dtype), torch.randn(5, 70, 24, dtype=dtype)
    places = torch.randint(40, (70,))
    expected = total.index_add(1, places, part)
    cpu_loops.add_rows_(total, places, part)
    assert torch.equal(total, expected)
