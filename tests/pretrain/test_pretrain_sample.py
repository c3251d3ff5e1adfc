"""sample.py against transformers' generate (greedy), a plain reference of the filters, and itself in other batches."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from convert import export
from cpu_decoder import CPUDecoder
from decoder import Decoder, KVCache, make_decoder
from model import GPT
from presets import GPTConfig, InputError, read_settings, run_command
from sample import Settings, choose, generate, main, stream

LLAMA = {"norm": "rmsnorm", "position": "rope", "mlp": "swiglu", "bias": False}
CASES = {
    "gpt2": {},
    "llama-grouped": LLAMA | {"n_kv_head": 2},
    "qwen3-mqa": LLAMA | {"qk_norm": True, "n_kv_head": 1, "head_size": 16, "tied": False},
    "post-norm": {"norm_place": "post", "bias": False},  # from here on: no counterpart in transformers
    "none": {"norm": "none", "position": "none", "mlp": "relu2"},
    "silu": {"mlp": "silu"},
}
PROMPTS = [[5, 6, 7], [1], [9, 8, 7, 6, 5, 4, 3, 2], [100, 3]]


def random_model(**switches) -> GPT:
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 40, "vocab_size": 101, "end_of_text": 7}
    model = GPT(GPTConfig(**shape | switches))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(torch.randn_like(p) * (0.3 if "wte" in name or "lm_head" in name else 0.1))
    return model


@torch.no_grad()
def plain_greedy(model, prompt, count):
    """The whole text through the whole model for every token."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt):]


@pytest.mark.parametrize("name", CASES)
def test_cache_and_batches_change_nothing(name):
    model = random_model(**CASES[name])
    expected = [plain_greedy(model, prompt, 20) for prompt in PROMPTS]
    assert len({tuple(row) for row in expected}) == len(PROMPTS)  # else this would show little
    assert generate(model, PROMPTS, 20, temperature=0) == expected
    assert [generate(model, [prompt], 20, temperature=0)[0] for prompt in PROMPTS] == expected


@pytest.mark.parametrize("kind", [Decoder, CPUDecoder])
@pytest.mark.parametrize("name", ["gpt2", "llama-grouped"])
def test_document_mask_holds_in_generation(name, kind, monkeypatch):
    """Prompts of several documents, one that ends, and generation across end-of-text: as the whole text at once."""
    model = random_model(**CASES[name], document_mask=True)
    monkeypatch.setattr("decoder.make_decoder", kind)
    end = model.config.end_of_text = plain_greedy(model, [1, 2], 4)[-1]  # one that the model comes to by itself
    prompts = [[5, 6, end, 8, 9], [end], [5, 6, end], [1, 2], [end, 3, end, 4, end, 100, 3]]
    expected = [plain_greedy(model, prompt, 20) for prompt in prompts]
    assert end in expected[3]
    assert generate(model, prompts, 20, temperature=0) == expected
    assert [generate(model, [prompt], 20, temperature=0)[0] for prompt in prompts] == expected


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_text_that_fills_the_block_goes_on_from_its_last_half(name, documents):
    model = random_model(**CASES[name], document_mask=documents)
    model.config.end_of_text = plain_greedy(model, [1, 2], 4)[-1]
    prompts, expected = [[1, 2], list(range(40)), [5, 6, 8] * 12], []
    for prompt in prompts:
        text, window = list(prompt), list(prompt)
        for _ in range(90):
            token = int(model(torch.tensor([window]))[0, -1].argmax())
            text, window = [*text, token], [*window, token]
            if len(window) > 40:
                window = window[-20:]
        expected.append(text[len(prompt):])
    assert generate(model, prompts, 90, temperature=0) == expected
    assert [generate(model, [prompt], 90, temperature=0)[0] for prompt in prompts] == expected


@pytest.mark.parametrize("kind", [Decoder, CPUDecoder])
@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1]], ids=["padded", "one row"])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_steps_give_the_logits_of_the_whole(name, prompts, kind, monkeypatch):
    model = random_model(**CASES[name])
    if kind is Decoder:  # a GPU's: flash attention lays its result out as (B, T, H, D)
        attend = F.scaled_dot_product_attention
        monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *inputs, **options: attend(
            *inputs, **options).transpose(1, 2).contiguous().transpose(1, 2))
    texts = [[*prompt, 11, 12, 13] for prompt in prompts]
    T = max(map(len, prompts))
    padding = torch.tensor([T - len(prompt) for prompt in prompts])
    cache = KVCache(model.config, len(prompts), T + 3, torch.float32)
    decoder = kind(model, cache, padding if padding.any() else None)
    pieces = [torch.tensor([[0] * (T - len(prompt)) + prompt for prompt in prompts]),
              *(torch.full((len(prompts), 1), token) for token in (11, 12, 13))]
    for i, piece in enumerate(pieces):
        positions = (torch.arange(piece.shape[1]) + cache.length - padding[:, None]).clamp(min=0)
        logits = decoder.step(piece, positions)
        expected = [model(torch.tensor([text[: len(text) - 3 + i]]))[0, -1] for text in texts]
        torch.testing.assert_close(logits, torch.stack(expected), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=f"{T + 3} positions, {T + 4}"):
        decoder.step(pieces[-1], positions)


def test_a_gpu_s_step_makes_no_kernel_for_each_length(monkeypatch):
    """Seen on the device without numbers, for a prompt and the token behind it: cuDNN is off."""
    model, attend, seen = random_model().to("meta"), F.scaled_dot_product_attention, []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *inputs, **options: seen.append(
        torch.backends.cuda.cudnn_sdp_enabled()) or attend(*inputs, **options))
    decoder = make_decoder(model, KVCache(model.config, 1, 4, torch.float32, "meta"))
    for count in (3, 1):
        tokens = torch.zeros(1, count, dtype=torch.long, device="meta")
        assert decoder.step(tokens, tokens).shape == (1, 101)
    assert seen == 4 * [False]  # two layers


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("name", ["gpt2", "llama-grouped", "qwen3-mqa"])
@torch.no_grad()
def test_bfloat16_is_as_near_to_float32_as_the_plain_model(name, rows):
    exact = random_model(**CASES[name])
    prompts = torch.randint(101, (rows, 12), generator=torch.Generator().manual_seed(1))
    expected = exact(prompts)[:, -1]
    exact.dtype = torch.bfloat16
    plain = exact(prompts)[:, -1].float()
    decoder = make_decoder(exact, KVCache(exact.config, rows, 12, torch.bfloat16))
    decoder.step(prompts[:, :8], torch.arange(8).expand(rows, 8))
    for i in range(8, 12):
        logits = decoder.step(prompts[:, i:i + 1], torch.full((rows, 1), i))
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).norm() < 1.5 * (plain - expected).norm()


@pytest.mark.parametrize("name", ["gpt2", "llama-grouped", "qwen3-mqa"])
def test_greedy_tokens_equal_transformers(name, tmp_path):
    from transformers import AutoModelForCausalLM

    model = random_model(**CASES[name])
    export(model, None, tmp_path / "m")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    length = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (length - len(p)) + p for p in PROMPTS])
    attention_mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in PROMPTS])
    expected = reference.generate(ids, attention_mask=attention_mask, max_new_tokens=20, min_new_tokens=20,
                                  do_sample=False, pad_token_id=0)[:, length:]
    # min_new_tokens forbids the end token, as a penalised logit would; ours must not meet it either
    ours = generate(model, PROMPTS, 20, temperature=0)
    same = [row[:i] == list(e[:i]) for row, e in zip(ours, expected.tolist(), strict=True)
            for i in [row.index(7) if 7 in row else 20]]
    assert all(same)
    assert sum(7 not in row for row in ours) >= 3


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_repetition_penalty_equals_transformers(penalty, tmp_path):
    from transformers import AutoModelForCausalLM

    model = random_model()
    export(model, None, tmp_path / "m")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    prompt = [9, 8, 7, 6, 5]
    expected = reference.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=0,
                                  eos_token_id=None, repetition_penalty=penalty)[0, 5:]
    assert generate(model, [prompt], 20, temperature=0, repetition_penalty=penalty)[0] == expected.tolist()


def reference_distribution(logits, temperature, top_k, top_p, min_p):
    """Token by token, in Python floats."""
    p = (logits.double() / temperature).softmax(-1).tolist()
    order = sorted(range(len(p)), key=lambda i: -p[i])
    if top_k:
        order = order[:top_k]
    total = sum(p[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if kept and mass >= top_p:
            break
        kept.append(i)
        mass += p[i] / total
    kept = [i for i in kept if p[i] >= min_p * p[kept[0]]]
    total = sum(p[i] for i in kept)
    return {i: p[i] / total for i in kept}


@pytest.mark.parametrize("V", [12, 600])
@pytest.mark.parametrize("filters", [(1.0, 0, 1.0, 0.0), (0.7, 0, 1.0, 0.0), (1.5, 5, 1.0, 0.0), (1.0, 0, 0.6, 0.0),
                                     (1.0, 8, 0.7, 0.0), (1.0, 0, 1.0, 0.2), (1.3, 0, 0.95, 0.05), (1.0, 0, 1e-9, 0.0)])
def test_choices_follow_the_filtered_distribution(V, filters):
    torch.manual_seed(2)
    logits = torch.randn(V) * (2 if V == 12 else 0.5)  # 600 flat ones: more than 256 candidates are needed for top_p
    expected = reference_distribution(logits, *filters)
    n = 10_000
    chance = torch.rand(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    drawn = choose(logits.expand(n, V), *filters, 1.0, None, chance)
    counts = torch.bincount(drawn, minlength=V)
    assert set(counts.nonzero()[:, 0].tolist()) <= set(expected)
    for i, p in expected.items():
        assert abs(counts[i] / n - p) < 5 * (p * (1 - p) / n) ** 0.5 + 3 / n


def test_seed_decides_and_the_global_state_is_untouched():
    model = random_model()
    before = torch.get_rng_state()
    draw = [generate(model, PROMPTS, 10, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert draw[0] == draw[1] != draw[2]
    assert generate(model, PROMPTS, 10) == generate(model, PROMPTS, 10)
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_one_by_one_draw_as_in_a_batch():
    """What --stream does: one generator, a call per row; also where a row ends early."""
    model = random_model()
    for stop_id in (None, generate(model, PROMPTS, 10)[0][3]):
        generator = torch.Generator().manual_seed(0)
        rows = [generate(model, [prompt], 10, stop_ids={stop_id}, generator=generator)[0] for prompt in PROMPTS]
        assert rows == generate(model, PROMPTS, 10, stop_ids={stop_id})


def test_stops_at_the_end_token_row_by_row():
    model = random_model()
    full = generate(model, PROMPTS, 20, temperature=0)
    stop = full[0][4]
    stopped = generate(model, PROMPTS, 20, temperature=0, stop_ids={stop})
    assert stopped == [row[: row.index(stop)] if stop in row else row for row in full]
    assert len(stopped[0]) <= 4
    steps = list(stream(model, PROMPTS[:1], 20, temperature=0, stop_ids={stop}))
    assert steps[-1] == [None]


def test_a_model_that_has_diverged_is_refused():
    model = random_model()
    with torch.no_grad():
        model.transformer["h"][0].mlp.c_proj.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        generate(model, PROMPTS, 4)


def test_refusals():
    model = random_model()
    for prompts, count, message in [([[]], 5, "no token"), ([[1] * 41], 1, "41 tokens, the model only 40"),
                                    ([[101]], 5, "outside 0..100"), ([], 5, "no token")]:
        with pytest.raises(InputError, match=message):
            generate(model, prompts, count)


@pytest.mark.parametrize("flag", [
    "top_p 0", "top_p -1", "top_p 1.1", "top_p nan", "min_p 2", "min_p -0.1", "temperature -1", "temperature nan",
    "temperature inf", "repetition_penalty 0", "repetition_penalty nan", "num_samples 0", "num_samples -1",
    "max_new_tokens -5", "max_new_tokens 0", "top_k -1", "seed -1", f"seed {2**70}", "prompt", "device cuda"])
def test_nonsense_is_refused_before_the_model_is_loaded(flag, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["sample.py", "/no/model", *f"--{flag}".split()])
    with pytest.raises(SystemExit) as ended:
        run_command(main, lambda: read_settings(Settings, "test"))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --{flag}")
    assert error.count("\n") == 1


def test_too_little_memory_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sample.py"])
    with pytest.raises(SystemExit) as ended:
        run_command(torch.empty, lambda: 10**15)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: out of memory: ")
    assert error.count("\n") == 1
    with pytest.raises(RuntimeError, match="another"):  # only errors of memory are the user's
        run_command(lambda _: (_ for _ in ()).throw(RuntimeError("another")), lambda: 0)


def test_command_line(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.train_from_iterator(["the cat and the dog 你好 sat on the mat"] * 4, trainer)
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=32, end_of_text=0,
                          vocab_size=tokenizer.get_vocab_size()))
    export(model, tmp_path / "tokenizer", tmp_path / "a model")
    script = Path(__file__).parents[2] / "pretrain" / "sample.py"

    def run(*flags):
        return subprocess.run([sys.executable, script, tmp_path / "a model", "--max_new_tokens", "20", *flags],
                              capture_output=True, text=True, encoding="utf-8", cwd=tmp_path)

    first = run("--prompt", "the cat", "你好", "--num_samples", "2", "--dtype", "float32")
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("the cat") >= 2
    assert first.stdout.count("你好") >= 2
    greedy = run("--prompt", "the cat", "--temperature", "0", "--dtype", "float32")
    streamed = run("--prompt", "the cat", "--temperature", "0", "--dtype", "float32", "--stream")
    assert greedy.stdout == streamed.stdout
    drawn = ("--prompt", "the cat", "你好", "--num_samples", "2", "--dtype", "float32", "--stream")
    assert run(*drawn).stdout == first.stdout
    (tmp_path / "p.txt").write_text("the cat")
    assert run("--prompt_file", "p.txt", "--temperature", "0", "--dtype", "float32").stdout == greedy.stdout
    assert run("--prompt_file", "p.txt", "--prompt", "x").stderr == "error: give either --prompt or --prompt_file\n"
    assert run("--device", "foo").returncode == 2
    failed = run("--prompt", "the cat " * 20)
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith("error: ")


def test_a_prompt_that_is_not_utf_8_is_refused():
    with pytest.raises(InputError, match=r"--prompt .*in UTF-8"):
        main(Settings("/no/model", prompt=("a\udcff",)))


@pytest.mark.parametrize("flags", [(), ("--stream",)])
def test_llamas_tokens_keep_their_spaces(flags, tmp_path, monkeypatch, capsys):
    """Their decoder takes the space off the first token of a text, and the continuation is none."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "▁the": 1, "▁cat": 2}, "</s>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=32, end_of_text=0, vocab_size=3))
    monkeypatch.setattr("convert.locate", lambda *_: tmp_path)
    monkeypatch.setattr("convert.load_any", lambda *_: (model, tmp_path))
    monkeypatch.setattr("sample.choose", lambda logits, *_: torch.full((len(logits),), 2))
    main(read_settings(Settings, "", argv=["x", "--prompt", "the", "--max_new_tokens", "2", *flags]))
    assert capsys.readouterr().out == "the cat cat\n\n"


def test_a_token_that_begins_every_text_and_several_that_end_it(tmp_path, monkeypatch):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "a": 1, "b": 2, "c": 3, "d": 4}, "a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=32, end_of_text=3, vocab_size=5))
    export(model, tmp_path, tmp_path / "model", generation={"bos_token_id": 0, "eos_token_id": [3, 4]})
    asked = []
    monkeypatch.setattr("sample.generate", lambda _, prompts, **options: asked.append((prompts, options)) or [[2]])
    main(Settings(str(tmp_path / "model"), prompt=("b",)))
    (prompts, options), = asked
    assert prompts == [[0, 2]]  # as transformers has it
    assert options["stop_ids"] == {3, 4}


def test_a_model_without_an_end_needs_a_prompt(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0}, "a")).save(str(tmp_path / "tokenizer.json"))
    export(GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=32, end_of_text=None, vocab_size=5)), tmp_path,
           tmp_path / "model")
    with pytest.raises(InputError, match="an empty --prompt begins a document by the end-of-text, which this"):
        main(Settings(str(tmp_path / "model")))


def test_a_tiny_temperature_or_top_p_takes_the_likeliest():
    logits = torch.tensor([[1.0, 2.0, -1.0]])
    for temperature, top_p in ((1e-300, 0.95), (1e-45, 0.95), (1e-7, 0.95), (1.0, 1e-300)):
        assert choose(logits, temperature, 0, top_p, 0.0, 1.0, None, torch.tensor([[0.9]], dtype=torch.float64)) == 1


@pytest.mark.parametrize("rows", [1, 3])
def test_weights_changed_between_calls_are_seen(rows):
    torch.manual_seed(1)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=32, vocab_size=50))
    first = generate(model, [[1, 2]] * rows, 8, temperature=0)
    kept = model.laid_out[1]
    assert generate(model, [[1, 2]] * rows, 8, temperature=0) == first
    assert model.laid_out[1] is kept
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    changed = generate(model, [[1, 2]] * rows, 8, temperature=0)
    model.laid_out = None
    assert generate(model, [[1, 2]] * rows, 8, temperature=0) == changed != first
