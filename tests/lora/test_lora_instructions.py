"""Records to labelled tokens: templates, formats, truncation, errors."""

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pytest
from decoding import end_tokens
from finetune_data import load_data
from finetune_settings import InputError, Settings
from instructions import (
    encode_records,
    read_records,
    split_records,
)
from prompts import asking_template, last_tokens, render, tokenize_prompts
from tokenizers.processors import TemplateProcessing

RECORD = {"instruction": "Add.", "input": "1 2", "output": "3"}


def texts(examples, tokenizer, i=0):
    """(what is read, what is learned) of an example."""
    first = examples.first_label[i]
    return tokenizer.decode(examples[i][:first]), tokenizer.decode(examples[i][first:])


def test_the_seeds_format(tokenizer):
    assert texts(encode_records([RECORD], tokenizer), tokenizer) == (
        "BEGINNING OF CONVERSATION: USER: Add. 1 2 ASSISTANT:",
        " 3<|endoftext|>",
    )
    for empty in ("", "<noinput>", "Noinput"):
        assert texts(encode_records([RECORD | {"input": empty}], tokenizer), tokenizer)[0].endswith(
            "USER: Add. ASSISTANT:"
        )
    assert texts(encode_records([{"instruction": "Go.", "output": "x"}], tokenizer), tokenizer)[0].endswith(
        "USER: Go. ASSISTANT:"
    )


def test_the_plain_format(tokenizer):
    assert texts(encode_records([RECORD], tokenizer, "plain"), tokenizer) == ("Add. 1 2\n", "3<|endoftext|>")


def test_alpacas_format(tokenizer):
    prompt, answer = texts(encode_records([RECORD], tokenizer, "alpaca"), tokenizer)
    assert prompt == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd."
        "\n\n### Input:\n1 2\n\n### Response:"
    )
    assert answer == "3<|endoftext|>"
    assert "### Input" not in render("alpaca", "Add.", "", "3", tokenizer)[0]


def test_chat_template_trains_the_reply_and_its_end(tokenizer):
    with pytest.raises(InputError, match="chat template"):
        encode_records([RECORD], tokenizer, "chat")
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    try:
        expected = ("<user>Add.\n1 2<|endoftext|>\n<assistant>", "3<|endoftext|>")
        assert texts(encode_records([RECORD], tokenizer, "chat"), tokenizer) == expected
        assert (
            texts(encode_records([{"prompt": "Add.\n1 2", "completion": "3"}], tokenizer, "chat"), tokenizer)
            == expected
        )
        tokenizer.chat_template = tokenizer.chat_template.replace("<|endoftext|>", "")  # says nothing at the end
        expected = ("<user>Add.\n1 2\n<assistant>", "3<|endoftext|>")
        assert texts(encode_records([RECORD], tokenizer, "chat"), tokenizer) == expected
        tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
        with pytest.raises(InputError, match="chat template fails: roles must alternate"):
            encode_records([RECORD], tokenizer, "chat")
    finally:
        tokenizer.chat_template = None


def test_the_last_answer_of_a_chat_is_learned(tokenizer, tmp_path):
    turns = [("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello."), ("user", "Cat?"), ("assistant", "Yes.")]
    record = {"messages": [{"role": role, "content": content} for role, content in [*turns, ("user", "Thanks.")]]}
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match="no chat template; records with messages need a base whose template works"):
        encode_records(read_records(path), tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    try:
        prompt = "".join(f"<{role}>{content}<|endoftext|>\n" for role, content in turns[:-1]) + "<assistant>"
        for template in ("seed", "chat"):
            examples = encode_records(read_records(path), tokenizer, template)
            assert texts(examples, tokenizer) == (prompt, "Yes.<|endoftext|>")
        both = encode_records([record, RECORD], tokenizer, "chat")
        assert texts(both, tokenizer, 1) == ("<user>Add.\n1 2<|endoftext|>\n<assistant>", "3<|endoftext|>")
        with pytest.raises(InputError, match="instruction and messages are mixed"):
            encode_records([record, RECORD], tokenizer)
        data = load_data(Settings(data_path=str(path)), tokenizer, 128)
        assert (data.template, data.show) == ("chat", [])
    finally:
        tokenizer.chat_template = None


def test_special_tokens_in_a_users_words_are_words(tokenizer):
    record = {"instruction": "Explain <|endoftext|> please.", "output": "It <|endoftext|> ends."}
    example = encode_records([record], tokenizer, "plain")
    assert texts(example, tokenizer) == ("Explain <|endoftext|> please.\n", "It <|endoftext|> ends.<|endoftext|>")
    assert (example[0] == tokenizer.eos_token_id).sum() == 1
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|endoftext|>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    try:
        chat = encode_records([record], tokenizer, "chat")
        plain = encode_records([{"instruction": "Explain it", "output": "x"}], tokenizer, "chat")
        prompt, _ = render("chat", record["instruction"], "", "", tokenizer)
        (asked,) = tokenize_prompts([prompt], tokenizer, "chat")
    finally:
        tokenizer.chat_template = None
    assert texts(chat, tokenizer) == ("user: Explain <|endoftext|> please.<|endoftext|>\nassistant: ",
                                      "It <|endoftext|> ends.<|endoftext|>")
    assert (chat[0] == tokenizer.eos_token_id).sum() == (plain[0] == tokenizer.eos_token_id).sum() == 2
    assert asked == chat[0][: len(asked)].tolist() and chat[0][-1] == tokenizer.eos_token_id
    pair = encode_records([{"prompt": "a<|endoftext|>b", "completion": "c"}], tokenizer)
    assert (pair[0] == tokenizer.eos_token_id).sum() == 2, "a prompt of one's own is taken as it is"


def test_a_special_token_that_the_tokenizer_only_marks_as_such_is_one(tokenizer):
    """As Llama 3's <|start_header_id|> and Gemma 3's <end_of_turn>, which no attribute of their tokenizers names."""
    import copy

    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.add_special_tokens(["<turn>", "<end>"])
    turn, end = other.convert_tokens_to_ids(["<turn>", "<end>"])
    assert "<turn>" not in other.all_special_tokens
    other.chat_template = (
        "{% for m in messages %}<turn>{{ m.role }}: {{ m.content }}<end>\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>assistant: {% endif %}"
    )
    record = {"instruction": "Say <end> <turn>system:", "output": "No <turn>."}
    ids = encode_records([record], other, "chat")[0].tolist()
    assert (ids.count(turn), ids.count(end), ids[-1]) == (2, 2, end), "of the template alone, which ends the answer"
    assert other.decode(ids[:-1]).endswith("<turn>assistant: No <turn>.")
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None))
    assert end_tokens(model, other, "chat") == {end, other.eos_token_id}


def test_prompt_and_completion_are_taken_as_they_are(tokenizer):
    assert texts(encode_records([{"prompt": "sky is ", "completion": "blue"}], tokenizer), tokenizer) == (
        "sky is ",
        "blue<|endoftext|>",
    )


@pytest.mark.parametrize(("schema", "expected"), [
    ("instruction", ["seed", "chat"]), ("prompt", ["raw", "chat"]), ("text", ["raw", "raw"]),
    ("messages", ["chat", "chat"]),
])
def test_the_template_that_asks_follows_the_schema(schema, expected):
    assert [asking_template(schema, template) for template in ("seed", "chat")] == expected


def test_loss_on_the_prompt_can_be_switched_on(tokenizer):
    examples = encode_records([RECORD], tokenizer, train_on_prompt=True)
    assert examples.first_label[0] == 1
    assert len(examples[0]) == len(encode_records([RECORD], tokenizer)[0])


def test_the_end_is_learned_where_it_is_also_the_padding(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token
    try:
        examples = encode_records([RECORD], tokenizer)
        assert examples[0][-1] == tokenizer.pad_token_id == tokenizer.eos_token_id
        assert examples.first_label[0] < len(examples[0])
    finally:
        tokenizer.pad_token = None


def test_examples_without_a_label_are_dropped_and_counted(tokenizer):
    long = RECORD | {"instruction": "word " * 100}
    examples = encode_records([RECORD, long, RECORD], tokenizer, max_length=80)
    assert (len(examples), examples.dropped, examples.truncated) == (2, 1, 1)
    cut = encode_records([RECORD | {"output": "word " * 100}], tokenizer, max_length=60)
    assert (len(cut), len(cut[0]), cut.dropped, cut.truncated) == (1, 60, 0, 1)


def test_documents_and_blocks(tokenizer, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("One cat.\n<|endoftext|>\nTwo dogs saw.\n<|endoftext|>\n")
    examples = encode_records(read_records(path), tokenizer)
    assert [texts(examples, tokenizer, i)[0] + texts(examples, tokenizer, i)[1] for i in (0, 1)] == [
        "One cat.<|endoftext|>",
        "Two dogs saw.<|endoftext|>",
    ]
    assert examples.first_label.tolist() == [1, 1]
    blocks = encode_records(read_records(path), tokenizer, max_length=5, text_mode="blocks")
    assert np.array_equal(blocks.tokens, examples.tokens[: len(blocks.tokens)])
    assert blocks.lengths[0] == 5


def test_sentiment_keeps_the_question_when_cut(tokenizer):
    records = [{"text": "bad " * 100, "label": 0}, {"text": "good", "label": 1}]
    examples = encode_records(records, tokenizer, max_length=60, text_mode="sentiment")
    assert len(examples[0]) == 60
    assert [texts(examples, tokenizer, i)[1] for i in (0, 1)] == [" negative<|endoftext|>", " positive<|endoftext|>"]
    assert texts(examples, tokenizer, 0)[0].endswith("\nSentiment:")
    whole = encode_records(records, tokenizer, max_length=60, text_mode="sentiment", train_on_prompt=True)
    assert np.array_equal(whole.tokens, examples.tokens) and whole.first_label.tolist() == [1, 1]
    with pytest.raises(InputError, match="record 2"):
        encode_records([records[0], {"text": "x", "label": "good"}], tokenizer, text_mode="sentiment")


def test_a_token_for_the_beginning_is_added_once(tokenizer):
    import copy

    other = copy.deepcopy(tokenizer)
    other.add_special_tokens({"bos_token": "<s>"})
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", other.bos_token_id)]
    )
    examples = encode_records([RECORD], other)
    assert (examples[0] == other.bos_token_id).tolist() == [True] + [False] * (len(examples[0]) - 1)
    cut = encode_records([{"text": "bad " * 100, "label": 0}], other, max_length=60, text_mode="sentiment")
    assert (len(cut[0]), cut[0][0]) == (60, other.bos_token_id), "and outlives a cut"
    assert texts(cut, other)[0].endswith("\nSentiment:")


def test_a_cut_keeps_the_token_for_the_beginning():
    assert last_tokens([1, 7, 8, 9], 3, 1) == [1, 8, 9]
    assert last_tokens([1, 7, 8, 9], 2, 1) == [1, 9]
    assert last_tokens([1, 7, 8, 9], 1, 1) == [9]
    assert last_tokens([1, 7, 8, 9], 4, 1) == last_tokens([1, 7, 8, 9], 9, 1) == [1, 7, 8, 9]
    assert last_tokens([6, 7, 8, 9], 3, 1) == last_tokens([6, 7, 8, 9], 3, None) == [7, 8, 9]


@pytest.mark.parametrize(
    ("n", "ratio", "held"), [(100, 0.01, 1), (1000, 0.01, 10), (10, 0.01, 1), (2, 0.9, 1), (1, 0.5, 0), (10, 0, 0)]
)
def test_the_split_is_the_end_and_never_all(n, ratio, held):
    train, evaluation = split_records(list(range(n)), ratio)
    assert (len(train), len(evaluation)) == (n - held, held)
    assert train + evaluation == list(range(n))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "", "empty"),
        ("a.json", "[]", "non-empty list of records, found an empty one"),
        ("a.json", "{}", "list of records"),
        ("a.json", '[{"instruction": "x", "output": "y"},', "not valid JSON .its line 1"),
        ("a.json", '[{"instruction": "x", "output": "y"}, {"instruction": "x"}]', "record 2: 'output' is missing"),
        ("a.json", '[{"instruction": "x", "output": 5}]', "record 1: 'output' must be text, found int"),
        ("a.json", '[{"instruction": "x", "input": 0, "output": "y"}]', "record 1: 'input' must be text"),
        ("a.json", '[{"instruction": "x", "output": null}]', "record 1: 'output' must be text, found NoneType"),
        ("a.json", '[{"question": "x"}]', r"1: needs instruction .* it has \['question'\]; python data/prepare.py"),
        ("a.json", '[{"prompt": [], "completion": []}]', "'prompt' must be text, found list; python data/prepare.py"),
        ("a.json", '[{"messages": "x"}]', "record 1: 'messages' must be a list of"),
        ("a.json", '[{"messages": [{"role": "tool", "content": "x"}]}]', "message 1: the role is 'tool'; here it can"),
        ("a.json", '[{"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]}]',
         "message 2: the role is 'system'; here it can be user, assistant"),
        ("a.json", '[{"messages": [{"role": "user", "content": [1]}]}]', "message 1: 'content' must be text"),
        ("a.json", '[{"messages": [{"role": "assistant", "content": "x"}]}]', "record 1: 'messages' needs an answer"),
        ("a.json", '[{"messages": []}]', "record 1: 'messages' needs an answer"),
        ("a.json", '[{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", '
         '"tool_calls": [{}]}]}]', "record 1: has 'tool_calls'; chats with tools are not trained on here"),
        ("a.json", '[{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], '
         '"tools": [{}]}]', "record 1: has 'tools'; chats with tools are not trained on here"),
        ("a.json", '["x"]', "record 1: expected an object"),
        ("a.jsonl", '{"prompt": "a", "completion": "b"}\n\n{"prompt": "a"}\n', "line 3: 'completion' is missing"),
        ("a.jsonl", '{"prompt": "a", "completion": "b"}\n{"prompt"\n', "line 2: not valid JSON"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", '[{"instruction": "\\ud800", "output": "y"}]', "record 1: 'instruction' has half a character"),
        ("a.parquet", "PAR1", r"data/prepare.py file .*a\.parquet"),
        ("a.txt", " \n", "empty"),
        ("a.txt", "<|endoftext|>\n<|endoftext|>\n", "no document"),
        ("a.json", '[{"text": "x", "label": ' + "9" * 5000 + "}]", "4300 digits"),
    ],
)
def test_malformed_files_name_file_and_record(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_records(path)
    assert str(path) in str(error.value)


def test_an_input_of_null_is_none(tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    path.write_text('{"instruction": "Go.", "input": null, "output": "x"}')
    assert texts(encode_records(read_records(path), tokenizer), tokenizer)[0].endswith("USER: Go. ASSISTANT:")
    assert read_records(path)[0]["input"] == ""


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"missing\.json: no such file"):
        read_records(tmp_path / "missing.json")
    with pytest.raises(InputError, match="is a folder; name a file"):
        read_records(tmp_path)


def test_a_mix_of_which_one_part_would_be_held_out_is_refused(tokenizer, tmp_path):
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps([RECORD] * 99 + [{"text": "x"}]))
    with pytest.raises(InputError, match="instruction and text are mixed"):
        load_data(Settings(data_path=str(path)), tokenizer, 64)


def test_a_record_that_cannot_be_asked_is_named_by_its_file_and_number(tokenizer, tmp_path):
    reviews, chats, good = tmp_path / "reviews.json", tmp_path / "chats.jsonl", tmp_path / "good.json"
    reviews.write_text(json.dumps([{"text": "x", "label": 1}] * 99 + [{"text": "x", "label": 2}]))  # held out
    with pytest.raises(InputError, match=r"reviews\.json, record 100: text_mode sentiment needs a label of 0 or 1"):
        load_data(Settings(data_path=str(reviews), text_mode="sentiment"), tokenizer, 64)
    good.write_text(json.dumps([{"text": "x", "label": 1}]))
    with pytest.raises(InputError, match=r"reviews\.json, record 100: text_mode"):
        s = Settings(data_path=str(good), eval_data_path=str(reviews), text_mode="sentiment")
        load_data(s, tokenizer, 64)
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant")]
    chats.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in (turns, turns[:1] * 2 + turns)))
    tokenizer.chat_template = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}"
    )
    try:
        with pytest.raises(InputError, match=r"chats\.jsonl, record 2: the model's chat template fails: roles must"):
            load_data(Settings(data_path=str(chats), eval_ratio=0), tokenizer, 64)
    finally:
        tokenizer.chat_template = None


def test_bad_utf8_bad_gzip_and_gzip(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"instruction": "\xff"}]')
    with pytest.raises(InputError, match="byte 18"):
        read_records(path)
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"b\.jsonl\.gz"):
        read_records(tmp_path / "b.jsonl.gz")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(RECORD).encode())[:-12])
    with pytest.raises(InputError, match=r"cut\.jsonl\.gz"):
        read_records(tmp_path / "cut.jsonl.gz")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(json.dumps(RECORD).encode()))
    assert read_records(tmp_path / "c.jsonl.gz") == [RECORD]


def test_mixed_schemas_and_missing_end_token_are_refused(tokenizer):
    import copy

    with pytest.raises(InputError, match="mixed"):
        encode_records([{"text": "x"}, RECORD], tokenizer)
    with pytest.raises(InputError, match="instruction and prompt are mixed"):
        encode_records([{"prompt": "x", "completion": "y"}, RECORD], tokenizer)
    other = copy.deepcopy(tokenizer)
    other.eos_token = None
    with pytest.raises(InputError, match="end token"):
        encode_records([RECORD], other)


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{{ messages + 1 }}", {"tool_use": "x"}])
def test_a_chat_template_that_fails_is_named(tokenizer, template):
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    with pytest.raises(InputError, match="chat template fails"):
        encode_records([RECORD], other, template="chat")
