"""perplexity.py: the loss of any model on any text, by hand, on shards, in several processes; what it refuses."""

import gzip
import hashlib
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from convert import export
from model import GPT
from perplexity import Settings, check, encoded, main, read_documents
from presets import GPTConfig, InputError
from pretrain_tiny import ROOT
from shards import Split
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = "One day a fox met a crow.\nThe crow sang. 好\n<|endoftext|>\nA fox ran away.\n<|endoftext|>\n"
DOCUMENTS = ["One day a fox met a crow.\nThe crow sang. 好", "A fox ran away."]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two models with tokenizers of 300 and 280 tokens, the text, and shards of it for the first."""
    place = tmp_path_factory.mktemp("texts and models")
    (place / "text.txt").write_text(TEXT, encoding="utf-8")
    for name, size in (("large", 300), ("small", 280)):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train_from_iterator(DOCUMENTS, trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>"],
            show_progress=False))
        (place / f"{name} words").mkdir()
        tokenizer.save(str(place / f"{name} words" / "tokenizer.json"))
        torch.manual_seed(0)
        model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=12, end_of_text=0,
                              vocab_size=tokenizer.get_vocab_size()))
        for p in model.parameters():
            p.data.add_(torch.randn_like(p) * 0.2)
        export(model, place / f"{name} words", place / name)
    tokenizer = Tokenizer.from_file(str(place / "large words" / "tokenizer.json"))
    ids = np.array([token for text in DOCUMENTS for token in [*tokenizer.encode(text).ids, 0]], np.uint16)
    (place / "shards").mkdir()
    np.save(place / "shards" / "val_000000.npy", ids)
    entry = {"file": "val_000000.npy", "tokens": len(ids), "bytes": sum(len(text.encode()) for text in DOCUMENTS),
             "sha256": hashlib.sha256((place / "shards" / "val_000000.npy").read_bytes()).hexdigest()}
    words = place / "large words"
    manifest = {"format": 1, "dtype": "uint16", "vocab_size": tokenizer.get_vocab_size(), "end_of_text": 0,
                "tokenizer": str(words), "shards": {"val": [entry]},
                "tokenizer_sha256": hashlib.sha256((words / "tokenizer.json").read_bytes()).hexdigest()}
    (place / "shards" / "manifest.json").write_text(json.dumps(manifest))
    return place


def command(*words, processes=1):
    """The command's lines of numbers, by model."""
    head = [sys.executable] if processes == 1 else [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run([*head, str(ROOT / "pretrain" / "perplexity.py"), *map(str, words)], capture_output=True,
                          text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["model", "nats/token", "perplexity", "bits/byte", "tokens"]
    return [line.split()[-4:] for line in lines]


def by_hand(place, name):
    """Nats per token, bits per byte and targets in windows of 12, with transformers."""
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.from_file(str(place / name / "tokenizer.json"))
    ids = torch.tensor([token for text in DOCUMENTS for token in [*tokenizer.encode(text).ids, 0]])
    model, nats = AutoModelForCausalLM.from_pretrained(place / name), 0.0
    for at in range(0, len(ids) - 1, 12):
        x, y = ids[at:at + 12][: len(ids) - 1 - at], ids[at + 1:at + 13]
        with torch.no_grad():
            nats += float(torch.nn.functional.cross_entropy(model(x[None]).logits[0], y, reduction="sum"))
    targets, size = len(ids) - 1, sum(len(text.encode()) for text in DOCUMENTS)
    return nats / targets, nats / targets / math.log(2) * len(ids) / size, targets


def test_two_models_on_one_text_as_counted_by_hand(place):
    lines = command(place / "large", place / "small", "--text", place / "text.txt")
    for name, line in zip(("large", "small"), lines, strict=True):
        nats, bits, targets = by_hand(place, name)
        assert float(line[0]) == pytest.approx(nats, abs=1e-4)
        assert float(line[1]) == pytest.approx(math.exp(nats), rel=1e-3)
        assert float(line[2]) == pytest.approx(bits, abs=1e-4)
        assert int(line[3]) == targets


def test_shards_give_what_the_text_gives_also_in_two_processes(place):
    expected = command(place / "large", "--text", place / "text.txt", "--micro_batch", 1)
    assert command(place / "large", "--data", place / "shards") == expected
    assert command(place / "large", "--data", place / "shards", "--micro_batch", 1, processes=2) == expected


def test_documents_are_told_apart_as_bpe_does(place, tmp_path):
    assert read_documents(place / "text.txt") == DOCUMENTS
    with gzip.open(tmp_path / "x.txt.gz", "wb") as file:
        file.write(TEXT.replace("\n", "\r\n").encode())
    assert read_documents(tmp_path / "x.txt.gz") == [text.replace("\n", "\r\n") for text in DOCUMENTS]
    (tmp_path / "one.txt").write_text("\nno end\n")
    assert read_documents(tmp_path / "one.txt") == ["\nno end\n"]


def test_a_model_reads_its_own_end_where_its_tokenizer_lacks_the_usual_one(place):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<end>": 1, "b": 2}, "a"))
    for end, expected in ((1, [0, 1, 2, 1]), (None, [0, 2])):
        split = encoded(["a", "b"], tokenizer, end, place)
        assert split.read(0, split.tokens).tolist() == expected and split.bytes == 2


@pytest.mark.parametrize(("words", "message"), [
    ({"sources": ()}, "name one model or several"),
    ({"text": None}, "give either --text FILE or --data FOLDER"),
    ({"data": "shards"}, "give either --text FILE or --data FOLDER"),
    ({"micro_batch": 0}, "--micro_batch 0: 1 or more"),
    ({"tokens": -1}, "--tokens -1: 0 or more"),
])
def test_what_cannot_be_measured_is_refused(place, words, message):
    with pytest.raises(InputError, match=message):
        check(Settings(**{"sources": ("x",), "text": place / "text.txt", **words}))


def test_unreadable_texts_and_other_tokenizers_are_refused(place, tmp_path):
    for name, content, message in (("latin.txt", "caf\xe9".encode("latin-1"), "is not UTF-8 text"),
                                   ("cut.txt.gz", gzip.compress(b"x" * 99)[:20], "is damaged"),
                                   ("empty.txt", b"\n<|endoftext|>\n", "has no text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_documents(tmp_path / name)
    with pytest.raises(InputError, match="was encoded by another tokenizer than"):
        main(Settings((str(place / "small"),), data=place / "shards"))


def test_bits_per_byte_are_those_of_the_part_that_is_read(place):
    """Also where it has fewer bytes in a token than the rest."""
    split = Split(place / "shards", "val")
    tokenizer = Tokenizer.from_file(str(place / "large words" / "tokenizer.json"))
    for count in (1, 5, 20):
        text = tokenizer.decode(split.read(0, count).tolist())
        assert split.bytes_of_first(count) == len(text.encode())
    split = Split(place / "shards", "val")
    split.end_of_text = None  # a special token that is text, as those of a chat are
    assert split.bytes_of_first(split.tokens - 1) == split.bytes + len("<|endoftext|>")
    split = Split(place / "shards", "val")
    assert split.bytes_of_first(split.tokens) == split.bytes
    lost = Split(place / "shards", "val")
    lost.manifest["tokenizer"] = "tokenizer/of-no-folder"
    assert lost.bytes_of_first(20) == round(split.bytes * 20 / split.tokens)
