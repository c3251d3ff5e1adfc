"""The files that pass between the folders: made by one folder's commands, read by the next one and by other tools.

One tiny run of the real pipeline, in a path with a space; every test checks one file against the tool it is for.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--n_layer", "2", "--n_head", "2", "--n_embd", "32", "--block_size", "64", "--max_steps", "4", "--total_batch",
        "512", "--micro_batch", "8", "--eval_tokens", "2048", "--choices_limit", "8", "--threads", "1"]
TEXT = "Lily's 3 cats don't know 北京大学.\n\n  Ben said: \"I'm 12!\"<|endoftext|>"


def command(*words):
    """Run a script of the project as a user would, from elsewhere."""
    done = subprocess.run([sys.executable, ROOT / words[0], *map(str, words[1:])], cwd=Path.home(),
                          capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with everything that `bash train.sh` makes, in small."""
    folder = tmp_path_factory.mktemp("all stages")
    command("data/prepare.py", "stories", "--mb", "0.4", "--out", folder)
    command("bpe/run.py", "train", folder / "text/stories/train.txt", "--vocab_size", "600",
            "--special_tokens", "<|endoftext|>", "--out", folder / "tokenizer")
    command("bpe/run.py", "encode", folder / "text/stories", "--tokenizer", folder / "tokenizer",
            "--out", folder / "tokens")
    command("pretrain/model.py", "--preset", "stories", "--data", folder / "tokens", "--out", folder / "run",
            "--export", folder / "base", "--choices", folder / "choices/stories.jsonl", *TINY)
    records = json.loads((folder / "instructions/stories_train.json").read_text("utf-8"))
    (folder / "records.json").write_text(json.dumps(records[:40]), "utf-8")
    command("lora/train.py", "--model_name_or_path", folder / "base", "--data_path", folder / "records.json",
            "--template", "plain", "--lora_dim", "4", "--lr", "0.05", "--max_steps", "3", "--eval_ratio", "0.1",
            "--train_batch_size", "8", "--gradient_accumulation_steps", "1", "--response_tokens", "0",
            "--output_dir_name", folder / "tuned", "--adapter_out", folder / "adapter",
            "--model_out", folder / "merged")
    return folder


def logits(model, ids):
    """Logits of a list of ids, fp32 (T, V)."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float()


def test_tokenizer_json_gives_our_ids_elsewhere(made):
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    ours = [int(word) for word in command("bpe/run.py", "encode", "--text", TEXT, "--tokenizer", made / "tokenizer",
                                          "--allowed_special", "all").split()]
    assert Tokenizer.from_file(str(made / "tokenizer/tokenizer.json")).encode(TEXT).ids == ours
    for folder in ("tokenizer", "base", "merged"):
        tokenizer = AutoTokenizer.from_pretrained(made / folder)
        assert tokenizer.encode(TEXT, add_special_tokens=False) == ours
        assert tokenizer.decode(ours) == TEXT
        assert tokenizer.eos_token == "<|endoftext|>" and tokenizer.eos_token_id == ours[-1]


@pytest.mark.parametrize("split", ["train", "val"])
def test_shards_hold_the_documents(made, split):
    from tokenizers import Tokenizer

    manifest = json.loads((made / "tokens/manifest.json").read_text())
    (entry,) = manifest["shards"][split]
    ids = np.load(made / "tokens" / entry["file"], mmap_mode="r")
    assert ids.dtype == manifest["dtype"] and len(ids) == entry["tokens"]
    tokenizer = Tokenizer.from_file(str(made / "tokenizer/tokenizer.json"))
    documents = (made / f"text/stories/{split}.txt").read_text("utf-8").split("\n<|endoftext|>\n")[:-1]
    ends = np.flatnonzero(ids == manifest["end_of_text"])
    decoded = [tokenizer.decode(list(part[:-1])) for part in np.split(ids[: ends[-1] + 1], ends[:-1] + 1)]
    assert decoded == documents
    assert entry["bytes"] == sum(len(document.encode()) for document in documents)


def test_the_exported_model_is_the_trained_one(made, tmp_path):
    from transformers import AutoModelForCausalLM

    code = """
import json, sys, torch
from pathlib import Path
from convert import load_run
model, _ = load_run(Path(sys.argv[1]))
print(json.dumps(model(torch.tensor([json.loads(sys.argv[2])])).float()[0].tolist()))
"""
    ids = list(range(5, 45))
    done = subprocess.run([sys.executable, "-c", code, made / "run", json.dumps(ids)], capture_output=True, text=True,
                          check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "pretrain")})
    model = AutoModelForCausalLM.from_pretrained(made / "base", dtype=torch.float32)
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), logits(model, ids), atol=1e-4, rtol=0)


def test_the_adapter_loads_in_peft_and_equals_the_merged_model(made):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids = list(range(5, 45))
    base = AutoModelForCausalLM.from_pretrained(made / "base", dtype=torch.float32)
    before = logits(base, ids)
    adapted = logits(PeftModel.from_pretrained(base, made / "adapter"), ids)
    merged = logits(AutoModelForCausalLM.from_pretrained(made / "merged", dtype=torch.float32), ids)
    assert (adapted - before).abs().max() > 1e-3  # three steps have changed something
    torch.testing.assert_close(adapted, merged, atol=1e-4, rtol=0)


def test_replies_of_every_model_are_scored(made):
    records = json.loads((made / "instructions/stories_val.json").read_text("utf-8"))[:4]
    (made / "questions.json").write_text(json.dumps(records), "utf-8")
    command("lora/generate.py", "--base", made / "base", "--full", made / "merged", "--adapters", made / "adapter",
            "--template", "plain", "--records", made / "questions.json", "--replies", made / "replies.jsonl",
            "--max_new_tokens", "5")
    command("data/checkers.py", made / "replies.jsonl", "--json", made / "scores.json")
    replies = [json.loads(line) for line in (made / "replies.jsonl").read_text("utf-8").splitlines()]
    assert len(replies) == 3 * len(records)
    assert len({reply["model"] for reply in replies}) == 3
    assert json.loads((made / "scores.json").read_text())
