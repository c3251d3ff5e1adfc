"""The model against transformers and against plain formulas: logits, gradients, cache, every switch."""

import cmath
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from attention import attention, document_starts, mask_by_blocks, plain_attention, visible_from
from model import GPT, rotary_table, rotate
from presets import PRESETS, GPTConfig, InputError
from pretrain_tiny import layers_of_pytorch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

V, T = 97, 24
GPT2 = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 32, "vocab_size": V}
LLAMA = {**GPT2, "mlp": "swiglu", "norm": "rmsnorm", "position": "rope", "bias": False}


def tokens(rows=3, length=T, seed=0):
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def scrambled(config: GPTConfig) -> GPT:
    """A model none of whose parameters is at a special value such as 0 or 1."""
    torch.manual_seed(1)
    model = GPT(config)
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    return model


def gpt2_reference(model: GPT, dropout: float = 0.0) -> GPT2LMHeadModel:
    c = model.config
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=c.block_size, n_embd=c.n_embd, n_layer=c.n_layer,
                                        n_head=c.n_head, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=0))
    ours = dict(model.named_parameters())
    for name, p in theirs.named_parameters():
        value = ours[name].data[:V] if "wte" in name else ours[name].data
        p.data.copy_(value.T if "c_" in name and p.dim() == 2 else value)
    return theirs


def llama_reference(model: GPT):
    c = model.config
    kinds = (Qwen3Config, Qwen3ForCausalLM) if c.qk_norm else (LlamaConfig, LlamaForCausalLM)
    theirs = kinds[1](kinds[0](
        vocab_size=V, hidden_size=c.n_embd, intermediate_size=c.hidden, num_hidden_layers=c.n_layer,
        num_attention_heads=c.n_head, num_key_value_heads=c.kv_heads, head_dim=c.head_dim, rms_norm_eps=c.norm_eps,
        max_position_embeddings=c.block_size, rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=c.tied, attention_bias=False))
    h, ours = c.hidden, model.transformer
    theirs.model.embed_tokens.weight.data.copy_(ours["wte"].weight.data[:V])
    theirs.model.norm.weight.data.copy_(ours["ln_f"].weight.data)
    theirs.lm_head.weight.data.copy_(model.lm_head.weight.data[:V])
    for mine, block in zip(ours["h"], theirs.model.layers, strict=True):
        parts = mine.attn.c_attn.weight.data.split(mine.attn.sizes)
        for part, name in zip(parts, ("q_proj", "k_proj", "v_proj"), strict=True):
            getattr(block.self_attn, name).weight.data.copy_(part)
        block.self_attn.o_proj.weight.data.copy_(mine.attn.c_proj.weight.data)
        if c.qk_norm:
            block.self_attn.q_norm.weight.data.copy_(mine.attn.q_norm.weight.data)
            block.self_attn.k_norm.weight.data.copy_(mine.attn.k_norm.weight.data)
        block.mlp.gate_proj.weight.data.copy_(mine.mlp.c_fc.weight.data[:h])
        block.mlp.up_proj.weight.data.copy_(mine.mlp.c_fc.weight.data[h:])
        block.mlp.down_proj.weight.data.copy_(mine.mlp.c_proj.weight.data)
        block.input_layernorm.weight.data.copy_(mine.ln_1.weight.data)
        block.post_attention_layernorm.weight.data.copy_(mine.ln_2.weight.data)
    return theirs


CASES = {
    "gpt2": (GPT2, gpt2_reference),
    "llama": (LLAMA, llama_reference),
    "llama, grouped heads, untied": ({**LLAMA, "n_kv_head": 2, "tied": False}, llama_reference),
    "llama, one key-value head": ({**LLAMA, "n_kv_head": 1}, llama_reference),
    "qwen3": ({**LLAMA, "qk_norm": True, "n_kv_head": 2, "head_size": 16, "rope_theta": 1e6}, llama_reference),
}


@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients_equal_transformers(name):
    values, reference = CASES[name]
    model = scrambled(GPTConfig(**values))
    theirs = reference(model)
    x = tokens(length=T + 1)
    expected = theirs(x[:, :-1]).logits
    torch.testing.assert_close(model(x[:, :-1]), expected, atol=1e-5, rtol=1e-5)
    loss = model(x[:, :-1], x[:, 1:])
    theirs_loss = F.cross_entropy(expected.flatten(0, 1), x[:, 1:].flatten())
    torch.testing.assert_close(loss, theirs_loss)
    loss.backward()
    theirs_loss.backward()
    mine = model.transformer["wte"].weight.grad
    embedding = theirs.get_input_embeddings().weight.grad
    torch.testing.assert_close(mine[:V], embedding, atol=1e-6, rtol=1e-4)
    if model.config.tied:
        assert (mine[V:] == 0).all()  # the padding of the vocabulary gets no gradient
    ours_first = model.transformer["h"][0].attn.c_attn.weight.grad
    if name == "gpt2":
        torch.testing.assert_close(ours_first, theirs.transformer.h[0].attn.c_attn.weight.grad.T, atol=1e-6, rtol=1e-4)
    else:
        layer = theirs.model.layers[0].self_attn
        expected = torch.cat([layer.q_proj.weight.grad, layer.k_proj.weight.grad, layer.v_proj.weight.grad])
        torch.testing.assert_close(ours_first, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("mlp", ["gelu", "relu2", "silu", "swiglu"])
def test_mlp_against_its_formula(mlp):
    model = scrambled(GPTConfig(**{**GPT2, "mlp": mlp}))
    module, x = model.transformer["h"][0].mlp, torch.randn(2, 5, 32)
    h = x @ module.c_fc.weight.T + module.c_fc.bias
    if mlp == "swiglu":
        gate, up = h[..., : model.config.hidden], h[..., model.config.hidden:]
        h = gate / (1 + torch.exp(-gate)) * up
    elif mlp == "gelu":
        h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    elif mlp == "silu":
        h = h / (1 + torch.exp(-h))
    else:
        h = h.clamp(min=0) ** 2
    torch.testing.assert_close(module(x), h @ module.c_proj.weight.T + module.c_proj.bias)


@pytest.mark.parametrize(("norm", "place"), [("layernorm", "post"), ("rmsnorm", "post"), ("none", "pre")])
def test_norm_switches(norm, place):
    model = scrambled(GPTConfig(**{**GPT2, "norm": norm, "norm_place": place}))
    block, x = model.transformer["h"][0], torch.randn(2, 5, 32)

    def normalise(x, module):
        if norm == "none":
            return x
        if norm == "layernorm":
            x = x - x.mean(-1, keepdim=True)
        x = x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-5) * module.weight
        return x if norm == "rmsnorm" else x + module.bias

    if place == "post":
        expected = normalise(x + block.attn(x), block.ln_1)
        expected = normalise(expected + block.mlp(expected), block.ln_2)
    else:
        expected = x + block.attn(x)
        expected = expected + block.mlp(expected)
    torch.testing.assert_close(block(x), expected)
    assert ("ln_f" in model.transformer) == (place == "pre")
    assert torch.isfinite(model(tokens(), tokens(seed=1)))


def test_rotation_is_a_rotation_by_position_times_frequency():
    cos, sin = rotary_table(8, 6, 100.0)
    x = torch.randn(1, 8, 1, 6)
    y = rotate(x, cos, sin)
    for t in range(8):
        for i in range(3):
            turned = complex(x[0, t, 0, i], x[0, t, 0, i + 3]) * cmath.exp(1j * t * 100 ** (-2 * i / 6))
            assert y[0, t, 0, i].item() == pytest.approx(turned.real, abs=1e-5)
            assert y[0, t, 0, i + 3].item() == pytest.approx(turned.imag, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 31, 256, 300])
@pytest.mark.parametrize("documents", [False, True])
def test_attention_kernels_against_the_formula(dtype, length, documents):
    generator = torch.Generator().manual_seed(length)
    q, k, v, grad = (torch.randn(2, heads, length, 8, generator=generator) for heads in (4, 2, 2, 4))
    ours = [x.to(dtype).requires_grad_() for x in (q, k, v)]
    exact = [x.detach().float().requires_grad_() for x in ours]
    starts = document_starts(torch.randint(50, (2, length), generator=generator), 0) if documents else None
    result = attention(*ours, starts)
    expected = plain_attention(*exact, visible_from(starts) if documents else None)
    result.backward(grad.to(dtype))
    expected.backward(grad.to(dtype).float())
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    for a, b in [(result, expected), *((a.grad, b.grad) for a, b in zip(ours, exact, strict=True))]:
        # what cancels (the gradient of q with a single key is 0) rounds in proportion to what came in
        assert (a.float() - b).norm() <= tolerance * b.norm() + 3e-7 * grad.norm()


@pytest.mark.parametrize("masked", [False, True])
def test_outside_of_compiled_blocks_a_gpu_takes_no_kernel_that_is_made_for_each_shape(masked, monkeypatch):
    """Seen on the device without numbers: cuDNN is off meanwhile, and with a mask no kernel has to group heads."""
    seen = []

    def attend(q, k, v, attn_mask, is_causal, enable_gqa):
        seen.append((torch.backends.cuda.cudnn_sdp_enabled(), attn_mask is None, is_causal, enable_gqa, k.shape[1]))
        return q

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    q, k, v = (torch.empty(2, heads, 32, 16, device="meta") for heads in (4, 2, 2))
    starts = document_starts(torch.zeros(2, 32, dtype=torch.long, device="meta"), 0) if masked else None
    attention(q, k, v, starts)
    assert seen == [(False, False, False, False, 4) if masked else (False, True, True, True, 2)]
    assert torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_sees_what_the_mask_shows(monkeypatch):
    """The form of a compiled GPT on a GPU: FlexAttention, here as PyTorch's own reference of it."""
    from torch.nn.attention import flex_attention

    monkeypatch.setattr("attention.block_mask_maker", lambda: flex_attention.create_block_mask)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 300, 16, generator=generator) for heads in (4, 2, 2))
    starts = document_starts(torch.randint(50, (2, 300), generator=generator), 0)
    torch.testing.assert_close(attention(q, k, v, mask_by_blocks(starts)),
                               plain_attention(q, k, v, visible_from(starts)))


def test_document_mask_keeps_documents_apart():
    x = torch.tensor([[5, 6, 0, 7, 8, 0, 9]])
    assert document_starts(x, 0).tolist() == [[0, 0, 0, 3, 3, 3, 6]]
    mask = visible_from(document_starts(x, 0))[0, 0]
    document = [0, 0, 0, 1, 1, 1, 2]
    assert mask.tolist() == [[j <= i and document[i] == document[j] for j in range(7)] for i in range(7)]
    model = scrambled(GPTConfig(**{**LLAMA, "document_mask": True, "end_of_text": 0}))
    alone = model(x[:, 3:6])  # rotary positions are relative: a document is the same wherever it stands
    torch.testing.assert_close(model(x)[:, 3:6], alone, atol=1e-5, rtol=1e-5)


def test_initialisation_and_first_loss():
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**GPT2, "n_embd": 128, "n_layer": 4, "vocab_size": 1000}))
    block = model.transformer["h"][0]
    assert block.mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert block.mlp.c_proj.weight.std().item() == pytest.approx(0.02 / math.sqrt(8), rel=0.03)
    assert (block.mlp.c_fc.bias == 0).all()
    assert (block.ln_1.weight == 1).all()
    loss = model(torch.randint(1000, (4, 32)), torch.randint(1000, (4, 32)))
    assert loss.item() == pytest.approx(math.log(1000), abs=0.1)
    assert (GPT(GPTConfig(**{**GPT2, "zero_init": True})).transformer["h"][1].attn.c_proj.weight == 0).all()


def test_published_sizes():
    sizes = {"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200}
    for name, expected in sizes.items():
        with torch.device("meta"):
            model = GPT(PRESETS[name].model)
        padding = (model.config.padded_vocab - model.config.vocab_size) * model.config.n_embd
        assert model.parameter_count() - padding == expected


def test_flops_equal_pytorchs_counter(monkeypatch):
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr("model.attention", plain_attention)  # the counter does not know the CPU's fused kernel
    model = GPT(GPTConfig(**{**GPT2, "vocab_size": 128, "bias": False}))
    with FlopCounterMode(display=False) as counter:
        model(torch.randint(128, (2, 32)), torch.randint(128, (2, 32))).backward()
    assert counter.get_total_flops() / 64 == pytest.approx(model.flops_per_token(32), rel=0.01)


def test_impossible_settings_are_refused():
    for values, message in (({"n_embd": 30}, "--n_embd 30"), ({"n_kv_head": 3}, "--n_kv_head 3"),
                            ({"position": "rope", "head_size": 5}, "even head size")):
        with pytest.raises(InputError, match=message):
            GPTConfig(**{**GPT2, **values})
    with pytest.raises(InputError, match="33 positions"):
        GPT(GPTConfig(**GPT2))(torch.zeros(1, 33, dtype=torch.long))


def test_dropout_falls_where_gpt2_has_it_and_only_in_train_mode():
    model = GPT(GPTConfig(**GPT2), dropout=0.3)
    theirs, x = gpt2_reference(model, 0.3), tokens()
    logits = {}
    for mode in (True, False):
        for name, each in (("ours", model), ("theirs", theirs)):
            torch.manual_seed(5)
            out = each.train(mode)(x)
            logits[name, mode] = out if name == "ours" else out.logits
        torch.testing.assert_close(logits["ours", mode], logits["theirs", mode], atol=1e-5, rtol=1e-4)
    assert (logits["ours", True] - logits["ours", False]).abs().max() > 0.01


def loss_and_numbers_kept(model: GPT, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The loss after its backward pass, and how many numbers autograd kept for it."""
    sizes = {}

    def keep(tensor):
        sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(x[:, :-1], x[:, 1:])
    loss.backward()
    return loss, sum(sizes.values())


@pytest.mark.slow
@pytest.mark.parametrize("document_mask", [False, True])
def test_compiled_blocks_equal_eager(document_mask):
    model = GPT(GPTConfig(**LLAMA, document_mask=document_mask, end_of_text=5), torch.bfloat16)
    x = tokens(length=T + 1)
    plain = model(x[:, :-1], x[:, 1:])
    model.compile_blocks()
    torch.testing.assert_close(model(x[:, :-1], x[:, 1:]), plain, atol=1e-2, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "most"), [(1.0, 1.0), (0.3, 0.5)])
def test_compiled_blocks_keep_less_when_told_and_have_the_same_gradients(keep, most, monkeypatch):
    layers_of_pytorch(monkeypatch)
    torch._dynamo.reset()
    plain, compiled = scrambled(GPTConfig(**LLAMA)), scrambled(GPTConfig(**LLAMA))
    compiled.compile_blocks(keep)
    x = tokens(length=T + 1)
    loss, kept = loss_and_numbers_kept(plain, x)
    same, fewer = loss_and_numbers_kept(compiled, x)
    torch._functorch.config.activation_memory_budget = 1.0
    torch.testing.assert_close(same, loss)
    for p, q in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, atol=1e-5, rtol=1e-4)
    assert fewer < most * kept


def test_a_compiled_block_is_one_graph_for_all_layers_under_ddp_too(monkeypatch, tmp_path):
    """DDP's own optimizer would cut it where a bucket of gradients is full."""
    graphs, compile_ = [], torch.nn.Module.compile

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compile_(self, backend=backend, **options))
    torch._dynamo.reset()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        model = GPT(GPTConfig(**{**GPT2, "n_embd": 256}))  # its first bucket is full after mlp.c_proj's megabyte
        model.compile_blocks()
        torch.nn.parallel.DistributedDataParallel(model)(tokens(), tokens()).backward()
    finally:
        torch.distributed.destroy_process_group()
    assert len(graphs) == 1


def test_blocks_can_be_compiled_in_a_new_process():
    """What compiling needs is imported by then, not by chance before."""
    code = "from model import GPT, GPTConfig; GPT(GPTConfig(n_layer=1, n_head=2, n_embd=8)).compile_blocks(0.5)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2] / "pretrain", check=True)
