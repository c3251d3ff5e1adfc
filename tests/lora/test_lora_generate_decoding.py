"""Batched decoding against transformers' own generate, and the rules of sampling."""

import copy

import pytest
import torch
import transformers
from decoding import PromptTooLongError, complete, end_tokens, next_tokens
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

END = 0


def tiny(family):
    torch.manual_seed(1)
    if family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_positions=64, n_embd=32, n_layer=2, n_head=2,
                                           eos_token_id=END, bos_token_id=END, initializer_range=0.4))
    elif family == "lfm2":  # convolutions beside attention, with a cache of their own
        model = Lfm2ForCausalLM(Lfm2Config(vocab_size=61, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                                           num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                                           full_attn_idxs=[1], block_multiple_of=8, eos_token_id=END, bos_token_id=END,
                                           initializer_range=0.4))
    else:
        model = LlamaForCausalLM(LlamaConfig(vocab_size=61, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                                             eos_token_id=END, bos_token_id=END, initializer_range=0.4))
    return model.eval()


def prompts_of_many_lengths():
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(1, 61, (n,), generator=generator).tolist() for n in (3, 17, 1, 9, 30, 4, 11)]


@pytest.mark.parametrize("family", ["gpt2", "llama", "lfm2"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_greedy_replies_are_those_of_transformers(family, batch_size):
    model, prompts = tiny(family), prompts_of_many_lengths()
    ours = complete(model, prompts, {END}, max_new_tokens=25, batch_size=batch_size)
    for prompt, reply in zip(prompts, ours, strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=25, do_sample=False,
                                eos_token_id=END, pad_token_id=END)[0, len(prompt):].tolist()
        assert reply == [t for t in theirs if t != END]


@pytest.mark.parametrize("family", ["llama", "lfm2"])
def test_a_reply_ends_at_an_end_token_and_the_others_go_on(family):
    model, prompts = tiny(family), prompts_of_many_lengths()
    free = complete(model, prompts, set(), max_new_tokens=20)
    stop = free[0][2]
    ended = complete(model, prompts, {stop}, max_new_tokens=20)
    for whole, cut in zip(free, ended, strict=True):
        assert cut == (whole[: whole.index(stop)] if stop in whole else whole)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_sampling_depends_on_the_seed_only(batch_size):
    model, prompts = tiny("gpt2"), prompts_of_many_lengths()

    def sample(seed):
        return complete(model, prompts, {END}, 12, temperature=0.7, top_p=0.92, seed=seed, batch_size=batch_size)

    first = sample(5)
    torch.rand(7)  # the global random state plays no part
    assert sample(5) == first
    assert sample(6) != first
    assert sample(5)[2] == complete(model, prompts[2:3], {END}, 12, temperature=0.7, top_p=0.92, seed=5)[0]


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    sets = {0.1: {0}, 0.49: {0}, 0.51: {0, 1}, 0.79: {0, 1}, 0.9: {0, 1, 2}, 1.0: {0, 1, 2, 3}}
    for top_p, kept in sets.items():
        assert {next_tokens(logits, 1.0, top_p, u / 100).item() for u in range(100)} == kept


def test_draws_follow_the_probabilities():
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]])
    draws = torch.stack([next_tokens(logits, 0.7, 1.0, (u + 0.5) / 4000) for u in range(4000)])  # (4000, 2)
    for row in range(2):
        seen = torch.bincount(draws[:, row], minlength=3) / 4000
        assert torch.allclose(seen, torch.softmax(logits[row] / 0.7, -1), atol=1e-3)


def test_a_prompt_that_fills_the_context_is_refused_and_replies_stop_at_its_end():
    model = tiny("gpt2")
    with pytest.raises(PromptTooLongError) as error:
        complete(model, [[1], [1] * 64], {END}, 5)
    assert error.value.index == 1
    assert len(complete(model, [[1] * 60], set(), 50)[0]) == 5  # positions 59..63 each predict one more token


def test_end_tokens_joins_tokenizer_and_generation_settings():
    model = tiny("llama")
    model.generation_config.eos_token_id = [4, 5]

    class Tokenizer:
        eos_token_id = 7

    assert end_tokens(model, Tokenizer()) == {4, 5, 7}
    model.generation_config.eos_token_id = None
    assert end_tokens(model, Tokenizer()) == {7}


def test_the_token_that_closes_an_answer_in_the_chat_template_ends_a_reply(tokenizer):
    chat = copy.deepcopy(tokenizer)
    chat.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    chat.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}" \
                         "{% if add_generation_prompt %}assistant: {% endif %}"
    model = tiny("llama")  # its settings name <|endoftext|> alone, as those of base models do
    assert end_tokens(model, chat, "chat") == {END, chat.convert_tokens_to_ids("<|im_end|>")}
    assert end_tokens(model, chat, "seed") == {END}


def test_a_tiny_temperature_takes_the_most_probable_token():
    logits = torch.tensor([[1.0, 2.0, -1.0], [3.0, 2.0, -30.0]])
    for temperature in (1e-300, 1e-45, 1e-7, 1e-5):
        assert next_tokens(logits, temperature, 1.0, 0.9).tolist() == [1, 0]
    assert next_tokens(logits, 1.0, 1e-300, 0.9).tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["Mamba", "FalconMamba", "Rwkv"])
def test_models_without_keys_and_values_continue_the_whole_text(kind):
    torch.manual_seed(1)
    options = {"state_size": 4, "initializer_range": 0.4} if kind != "Rwkv" else {"context_length": 64}
    config = getattr(transformers, f"{kind}Config")(vocab_size=61, hidden_size=32, num_hidden_layers=2, **options)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    prompts, expected = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8]], []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(6):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        expected.append(ids[len(prompt):])
    assert complete(model, prompts, set(), 6) == expected


def test_more_tokens_than_the_context_has_take_no_memory():
    model = tiny("llama")
    assert complete(model, [[1] * 60], set(), 10**13, 0.7) == complete(model, [[1] * 60], set(), 50, 0.7)
