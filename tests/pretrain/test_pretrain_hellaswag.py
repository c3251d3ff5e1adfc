"""hellaswag.py against a loop without padding, against lm-evaluation-harness, and over several processes."""

import copy
import gzip
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import hellaswag
import pytest
import torch
from convert import export
from hellaswag import evaluate, harness_text, read_items
from model import GPT
from presets import GPTConfig, InputError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

WORDS = ["man", "woman", "roof", "cake", "knife", "water", "runs", "cuts", "jumps", "slowly", "then", "the", "a", "on"]


def questions(count: int, harness: bool) -> list[dict]:
    """Made-up questions with HellaSwag's traps: brackets, titles, capitals, double spaces, endings of many lengths."""
    draw = random.Random(5)

    def text(low, high):
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high))) + draw.choice([".", "", " [title] How", "  é."])

    items = []
    for i in range(count):
        item = {"ind": i, "ctx": text(3, 30), "endings": [text(1, 12) for _ in range(4)], "label": draw.randrange(4)}
        if harness:
            item |= {"activity_label": "Baking", "ctx_a": text(2, 12), "ctx_b": text(1, 3)}
            item["ctx"] = f"{item['ctx_a']} {item['ctx_b']}"
        items.append(item)
    return items


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose random weights are large enough to prefer some endings, its tokenizer, and two question files."""
    path = tmp_path_factory.mktemp("choices")
    for name, harness in (("plain", False), ("harness", True)):
        lines = [json.dumps(item) + "\n" for item in questions(60, harness)]
        (path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator([" ".join(WORDS * 2)], trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>"],
        show_progress=False))
    (path / "tokenizer").mkdir()
    tokenizer.save(str(path / "tokenizer" / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=64, end_of_text=0,
                          vocab_size=tokenizer.get_vocab_size()))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    export(model, path / "tokenizer", path / "model")
    return path, model, tokenizer


@torch.no_grad()
def log_probability(model, tokens: list[int], count: int) -> float:
    """Of the last `count` tokens; one sequence, no padding, full logits. What is too long loses its beginning."""
    tokens = tokens[-model.config.block_size - 1:]
    log_p = model(torch.tensor([tokens[:-1]]))[0].double().log_softmax(-1)
    return sum(float(log_p[i - 1, tokens[i]]) for i in range(len(tokens) - count, len(tokens)))


def plain_loop(model, tokenizer, items) -> dict:
    """Every ending by itself."""
    def encode(text):
        return tokenizer.encode(text).ids

    right = {"acc": 0, "acc_norm": 0, "acc_token_mean": 0}
    for item in items:
        query, endings = harness_text(item)
        sums, means = [], []
        for ending, raw in zip(endings, item["endings"], strict=True):
            whole, context = encode(f"{query} {ending}"), encode(query.rstrip())
            sums.append(log_probability(model, whole, len(whole) - len(context)))
            context, continuation = encode(item["ctx"]), encode(f" {raw}")
            means.append(log_probability(model, context + continuation, len(continuation)) / len(continuation))
        norms = [s / len(ending) for s, ending in zip(sums, endings, strict=True)]
        for name, values in (("acc", sums), ("acc_norm", norms), ("acc_token_mean", means)):
            right[name] += values.index(max(values)) == item["label"]
    return {name: count / len(items) for name, count in right.items()} | {"n": len(items)}


@pytest.mark.parametrize("name", ["plain", "harness"])
def test_equals_a_loop_without_padding(folder, name, monkeypatch):
    path, model, tokenizer = folder
    expected = plain_loop(model, tokenizer, read_items(path / f"{name}.jsonl"))
    assert len(set(expected.values())) > 2
    assert evaluate(model, tokenizer, read_items(path / f"{name}.jsonl"), "cpu") == expected
    monkeypatch.setattr(hellaswag, "BATCH_POSITIONS", 300)  # many small batches, heads in pieces
    monkeypatch.setattr(hellaswag, "HEAD_ROWS", 7)
    assert evaluate(model, tokenizer, read_items(path / f"{name}.jsonl"), "cpu") == expected


def test_scores_of_sequences_are_exact(folder):
    """Also of an ending that leaves no room for its context, and of a text longer than the model."""
    _, model, _ = folder
    draw = random.Random(1)
    sequences = [(tuple(draw.choices(range(300), k=a)), tuple(draw.choices(range(300), k=b)))
                 for a, b in [(3, 2), (1, 1), (40, 24), (40, 25), (90, 10), (5, 64), (17, 9)]]
    scores = hellaswag.score(model, sequences, "cpu", 0, 1).tolist()
    for got, (context, ending) in zip(scores, sequences, strict=True):
        assert math.isclose(got, log_probability(model, [*context, *ending], len(ending)), abs_tol=2e-4)


def test_ranks_share_the_work(folder):
    _, model, _ = folder
    sequences = [((1, 2, i), (3,) * (1 + i % 5)) for i in range(40)]
    whole = hellaswag.score(model, sequences, "cpu", 0, 1)
    parts = [hellaswag.score(model, sequences, "cpu", rank, 3) for rank in range(3)]
    assert torch.allclose(sum(parts), whole)
    assert sum(map(torch.count_nonzero, parts)) == 40


def test_equals_lm_evaluation_harness(folder, monkeypatch):
    """acc and acc_norm of the harness's own HellaSwag task, on our exported folder."""
    pytest.importorskip("lm_eval", reason="lm-eval is an optional extra (requirements-dev.txt)")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import lm_eval
    import yaml
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks.hellaswag.utils import process_docs

    path, model, tokenizer = folder
    task_file = Path(lm_eval.__file__).parent / "tasks" / "hellaswag" / "hellaswag.yaml"
    lines = [line for line in task_file.read_text().splitlines() if "!function" not in line]
    config = yaml.safe_load("\n".join(lines)) | {
        "dataset_path": "json", "dataset_kwargs": {"data_files": {"validation": str(path / "harness.jsonl")}},
        "training_split": None, "process_docs": process_docs}
    monkeypatch.setenv("HF_DATASETS_CACHE", str(path / "cache"))
    harness = HFLM(pretrained=str(path / "model"), device="cpu", dtype="float32", batch_size=8)
    result = lm_eval.simple_evaluate(model=harness, tasks=[ConfigurableTask(config=config)], bootstrap_iters=0,
                                     log_samples=False)["results"]["hellaswag"]
    ours = evaluate(model, tokenizer, read_items(path / "harness.jsonl"), "cpu")
    assert (ours["acc"], ours["acc_norm"]) == (result["acc,none"], result["acc_norm,none"])


def test_a_token_that_begins_every_text(folder, monkeypatch):
    """Before each context, as the harness has it where the tokenizer adds one; not before an ending."""
    path, model, tokenizer = folder
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.post_processor = processors.TemplateProcessing(single="!! $A", special_tokens=[("!!", 1000)])
    seen = []
    monkeypatch.setattr(hellaswag, "score", lambda _, pairs, *__: seen.extend(pairs) or torch.zeros(len(pairs)))
    monkeypatch.setattr(model.config, "vocab_size", 1001)
    evaluate(model, tokenizer, read_items(path / "harness.jsonl", 3), "cpu")
    assert seen
    assert all(context[0] == 1000 and 1000 not in (*context[1:], *ending) for context, ending in seen)


def test_limit_and_bad_lines(folder, tmp_path):
    path, model, tokenizer = folder
    assert evaluate(model, tokenizer, read_items(path / "plain.jsonl", 7), "cpu")["n"] == 7
    good = json.dumps(questions(1, False)[0])
    for bad, message in [("{", "line 2: needs ctx"), ('{"ctx": "a", "endings": ["b"]}', "line 2: needs ctx"),
                         ('{"ctx": "a", "endings": ["b", "c"], "label": 2}', "label 2 is none of 2 endings"),
                         ('{"ctx": "a", "endings": ["b", ""], "label": 0}', "not empty"),
                         ('{"ctx": "a", "endings": ["b", "[header]"], "label": 0}', "line 2: .* not empty, also with"),
                         ('{"ctx": "[header]", "endings": ["b", "c"], "label": 0}', "line 2: .* not empty, also with"),
                         ('{"ctx": "a", "ctx_a": null, "ctx_b": "b", "endings": ["b"], "label": 0}', "2: .* be texts"),
                         ('{"ctx": "a", "endings": ["b", "c"], "label": 0.9}', "line 2: label 0.9 is none of 2"),
                         ('{"ctx": "a", "endings": ["b", "c"], "label": null}', "line 2: label None is none of 2"),
                         ('{"ctx": "a", "endings": ["b\\udcff"], "label": 0}', "line 2: has half a character"),
                         ("[" * 100_000, "line 2: needs ctx"),
                         ('{"ctx": "\xe9", "endings": ["b", "c"], "label": 0}', "line 2: .*'utf-8' codec")]:
        (tmp_path / "bad.jsonl").write_text(f"{good}\n{bad}\n", encoding="latin-1")
        with pytest.raises(InputError, match=message):
            evaluate(model, tokenizer, read_items(tmp_path / "bad.jsonl"), "cpu")
    (tmp_path / "hub.jsonl").write_text(f'{good}\n{{"ctx": "a", "endings": ["b", "c"], "label": "1"}}\n')
    assert read_items(tmp_path / "hub.jsonl")[1]["label"] == 1
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="has no questions"):
        evaluate(model, tokenizer, read_items(tmp_path / "empty.jsonl"), "cpu")


def test_scores_without_a_meaning_are_refused(folder):
    path, model, tokenizer = folder
    wide = Tokenizer(models.WordLevel({word: 10_000 + i for i, word in enumerate([*WORDS, "?"])}, "?"))
    with pytest.raises(InputError, match=r"outside 0.*another model's tokenizer"):
        evaluate(model, wide, read_items(path / "plain.jsonl", 1), "cpu")
    lost = copy.deepcopy(model)
    lost.transformer["wte"].weight.data[:] = math.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        evaluate(lost, tokenizer, read_items(path / "plain.jsonl", 1), "cpu")
    with pytest.raises(InputError, match="--limit -5"):
        hellaswag.main(hellaswag.Settings(str(path / "model"), path / "plain.jsonl", limit=-5))


def test_command_line(folder):
    path, model, tokenizer = folder
    script = Path(__file__).parents[2] / "pretrain" / "hellaswag.py"
    done = subprocess.run([sys.executable, script, path / "model", path / "plain.jsonl"], stdout=subprocess.PIPE,
                          text=True)
    expected = evaluate(model, tokenizer, read_items(path / "plain.jsonl"), "cpu")
    assert done.stdout.split() == [x for name, value in expected.items()
                                   for x in (name, f"{value:.4f}" if isinstance(value, float) else str(value))]


def test_packed_questions_are_read(folder, tmp_path):
    path, _, _ = folder
    (tmp_path / "plain.jsonl.gz").write_bytes(gzip.compress((path / "plain.jsonl").read_bytes()))
    assert read_items(tmp_path / "plain.jsonl.gz") == read_items(path / "plain.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes((tmp_path / "plain.jsonl.gz").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"cut\.jsonl\.gz is damaged"):
        read_items(tmp_path / "cut.jsonl.gz")
