"""generate.py with a tiny base, a full model and adapters: sections, files of replies, and its refusals."""

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import adapters
import model_panel
import pytest
import torch
from adapter_files import save_adapter
from adapters import adapter_of
from finetune_output import save_template
from finetune_settings import InputError
from instructions import encode_records
from model_panel import Panel, can_chat, choose_templates, labels
from prompts import question, render
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lora import convert_linear_layer_to_lora

ROOT = Path(__file__).resolve().parents[2]
GENERATE = ROOT / "lora" / "generate.py"
spec = importlib.util.spec_from_file_location("lora_generate", GENERATE)
generate = importlib.util.module_from_spec(spec)
sys.modules["lora_generate"] = generate
spec.loader.exec_module(generate)


def byte_tokenizer():
    """<|endoftext|> is 0, then the 256 bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"<|endoftext|>": 0, **{c: i for i, c in enumerate(alphabet, 1)}}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def save_model(folder, seed):
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                         num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
                                         eos_token_id=0, bos_token_id=0, initializer_range=0.3))
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("models with spaces")
    save_model(root / "base", 1)
    save_model(root / "full", 2)
    for name, seed in (("one", 3), ("two", 4)):
        model = AutoModelForCausalLM.from_pretrained(root / "base")
        torch.manual_seed(seed)
        convert_linear_layer_to_lora(model, lora_dim=2, lora_scaling=4)
        for parameter_name, parameter in model.named_parameters():
            if "lora_left" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.3)
        save_adapter(adapter_of(model, "base"), root / name, model)
    return root


def run(folder, *flags):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, str(GENERATE), *map(str, flags)], capture_output=True, text=True, cwd=folder,
                          env=environment, stdin=subprocess.DEVNULL, check=False)


def models_of(folder):
    return {"base": str(folder / "base"), "full": (str(folder / "full"),),
            "adapters": (str(folder / "one"), str(folder / "two"))}


def test_replies_to_records_are_those_of_peft(folder, tmp_path, capsys):
    from peft import PeftModel

    records = [{"instruction": "Add" * n, "input": "1 2", "output": "3", "family": "sum",
                "check": {"kind": "exact", "answers": ["3"]}} for n in range(1, 6)]
    (tmp_path / "records.json").write_text(json.dumps(records))
    generate.main(generate.Settings(
        **models_of(folder), records=str(tmp_path / "records.json"), replies=str(tmp_path / "out" / "r.jsonl"), limit=4,
        batch_size=3, max_new_tokens=20))
    assert "4 models x 4 replies" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "out" / "r.jsonl").read_text("utf-8").splitlines()]
    assert [line["model"] for line in lines] == [m for m in ("base", "full", "one", "two") for _ in range(4)]
    assert all({"family", "instruction", "input", "check", "reply"} <= line.keys() for line in lines)
    tokenizer = byte_tokenizer()
    for name in ("base", "full", "one", "two"):
        model = AutoModelForCausalLM.from_pretrained(folder / ("full" if name == "full" else "base"))
        if name in ("one", "two"):
            model = PeftModel.from_pretrained(model, folder / name)
        for line in (line for line in lines if line["model"] == name):
            prompt, _ = render("seed", line["instruction"], line["input"], "", tokenizer)
            ids = tokenizer(prompt, return_tensors="pt").input_ids
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False,
                                 pad_token_id=0)
            assert line["reply"] == tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True).strip()
    assert len({line["reply"] for line in lines}) > 4  # the models differ


def test_sections_without_a_terminal_and_the_same_reply_whatever_stands_beside(folder, capsys):
    flags = ("--prompt", "Tell me a story.", "--max_new_tokens", 12)
    everything = run(folder, "--base", "base", "--full", "full", "--adapters", "one", "two", *flags)
    assert everything.returncode == 0, everything.stderr
    assert [everything.stdout.count(f"[{name}]") for name in ("base", "full", "one", "two")] == [1, 1, 1, 1]
    assert "\x1b" not in everything.stdout
    generate.main(generate.Settings(base=str(folder / "base"), prompt=("Tell me a story.",), max_new_tokens=12))
    assert capsys.readouterr().out.strip().split("[base]\n")[1] in everything.stdout


def test_own_prompts_and_prompt_files(folder, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("First thing.\n\n写一个故事。\n", encoding="utf-8")

    def output(**options):
        generate.main(generate.Settings(base=str(folder / "base"), max_new_tokens=3, **options))
        return capsys.readouterr().out

    shown = output(prompts=str(tmp_path / "mine.txt"))
    assert "> First thing.\n" in shown and "> 写一个故事。\n" in shown
    (tmp_path / "latin1.txt").write_bytes("A café.\n".encode("latin1"))
    with pytest.raises(InputError, match=r"--prompts .*latin1\.txt: not UTF-8 at byte 5"):
        output(prompts=str(tmp_path / "latin1.txt"))
    shown = output(prompts="seed")
    assert "> Give three tips for a good meal.\n" in shown and shown.count("[base]") == 4
    shown = output(prompt=("One.", "Two."), input="three")
    assert "> One.\nthree\n" in shown and "> Two.\nthree\n" in shown


def test_every_model_has_a_label_of_its_own(folder, tmp_path):
    assert labels((), ("a/one", "a/two")) == ["one", "two"]
    assert labels(("a/x",), ("a/full",)) == ["a/x", "a/full"]
    assert labels(("a/x", "a/y"), ("b/x", "x", "base")) == ["a/x", "y", "b/x", "./x", "./base"]
    with pytest.raises(InputError, match="a/one is named twice"):
        labels((), ("a/one", "a/one"))
    for name in ("base", "full"):
        shutil.copytree(folder / "one", tmp_path / name)
    panel = Panel(generate.Settings(base=str(folder / "base"), full=(str(folder / "full"),), max_new_tokens=3,
                                             adapters=(str(tmp_path / "base"), str(tmp_path / "full"))))
    replies = panel.answer([{"instruction": "Add."}], 0.0, 1)
    paths = [str(folder / "full"), str(tmp_path / "base"), str(tmp_path / "full")]
    assert list(replies) == panel.names == ["base", *paths]
    assert replies[paths[1]] == replies[paths[2]] != replies["base"]


def test_a_full_model_with_other_tokens_is_refused(folder, tmp_path):
    def panel_of(tokenizer, name):
        shutil.copytree(folder / "full", tmp_path / name)
        for file in (tmp_path / name).glob("tokenizer*"):
            file.unlink()
        if tokenizer:
            tokenizer.save_pretrained(tmp_path / name)
        return Panel(generate.Settings(base=str(folder / "base"), full=(str(tmp_path / name),)))

    other = Tokenizer(models.BPE({"a": 0, "b": 1, "<|endoftext|>": 2}, []))
    with pytest.raises(InputError) as error:
        panel_of(PreTrainedTokenizerFast(tokenizer_object=other, eos_token="<|endoftext|>"), "other")
    assert str(tmp_path / "other") in str(error.value) and str(folder / "base") in str(error.value)
    larger = byte_tokenizer()
    larger.add_special_tokens({"pad_token": "<|pad|>"})
    assert panel_of(larger, "larger").names == panel_of(None, "none").names == ["base", "full"]


def test_a_runs_folder_stands_for_the_adapter_in_it(folder, tmp_path, capsys):
    shutil.copytree(folder / "one", tmp_path / "my-run" / "adapter")
    save_template(tmp_path / "my-run" / "adapter", "plain")
    given = {"base": str(folder / "base"), "adapters": (str(tmp_path / "my-run"),), "prompt": ("Add.",)}
    panel = Panel(generate.Settings(**given))
    assert panel.templates == {"base": "plain", "my-run": "plain"}
    generate.main(generate.Settings(**given, max_new_tokens=3))
    assert "[my-run]" in capsys.readouterr().out


def test_an_adapter_of_another_base_is_refused_before_anything_is_asked(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    convert_linear_layer_to_lora(model, lora_dim=2)
    save_adapter(adapter_of(model, "another", "0" * 64), tmp_path / "other")
    with pytest.raises(InputError, match="other was trained on 'another'"):
        Panel(generate.Settings(base=str(folder / "base"), adapters=(str(tmp_path / "other"),)))


def test_the_base_is_hashed_once(folder, monkeypatch):
    hashed, original = [], adapters.base_sha256
    for module in (adapters, model_panel):
        monkeypatch.setattr(module, "base_sha256", lambda model: hashed.append(model) or original(model))
    panel = Panel(generate.Settings(**models_of(folder), max_new_tokens=1))
    for prompt in ("Add.", "Go."):
        panel.answer([{"instruction": prompt}], 0.0, 1)
    assert len(hashed) == 1


def test_each_model_is_asked_in_the_template_it_was_trained_with(tmp_path, capsys):
    folders = {name: tmp_path / name for name in ("base", "plain", "alpaca", "older")}
    for name, folder in folders.items():
        folder.mkdir()
        if name in generate.TEMPLATES:
            save_template(folder, name)
    chosen = choose_templates("saved", folders)
    assert chosen == {"base": "plain", "plain": "plain", "alpaca": "alpaca", "older": "seed"}
    assert choose_templates("saved", {"base": folders["base"]}) == {"base": "seed"}
    assert capsys.readouterr().err == ""
    assert choose_templates("plain", folders) == dict.fromkeys(folders, "plain")
    said = capsys.readouterr().err
    assert said == "note: alpaca was trained with --template alpaca, and is asked with --template plain as given\n"
    (folders["plain"] / "prompt_template.json").write_text('{"template": "poem"}')
    with pytest.raises(InputError, match="names no template"):
        choose_templates("saved", folders)


def test_models_that_name_no_template_are_asked_by_the_bases_chat_template(folder, tmp_path, capsys):
    shutil.copytree(folder / "base", tmp_path / "base")
    given = {"base": str(tmp_path / "base"), "adapters": (str(folder / "one"),)}
    assert Panel(generate.Settings(**given)).templates == {"base": "seed", "one": "seed"}
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "base")
    assert capsys.readouterr().err == ""
    assert Panel(generate.Settings(**given)).templates == {"base": "chat", "one": "chat"}
    assert capsys.readouterr().err.startswith("note: base, one: no prompt_template.json says how to ask; asked by ")
    assert set(Panel(generate.Settings(**given, template="seed")).templates.values()) == {"seed"}
    shutil.copytree(folder / "one", tmp_path / "plain")
    save_template(tmp_path / "plain", "plain")
    given["adapters"] = (str(folder / "one"), str(tmp_path / "plain"))
    chosen = Panel(generate.Settings(**given)).templates
    assert chosen == {"base": "plain", "one": "chat", "plain": "plain"}
    tokenizer.chat_template = "{{ messages + 1 }}"
    assert not can_chat(tokenizer)


def test_prompts_with_completions_are_asked_as_they_are(folder, tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "Tom saw", "completion": " a cat."}\n')
    records = generate.asking_records(tmp_path / "pairs.jsonl")
    assert question(records[0]) == "Tom saw"
    panel = Panel(generate.Settings(base=str(folder / "base")))
    for template in ("raw", "seed"):
        assert panel.prompt_ids(records[0], template) == panel.tokenizer("Tom saw")["input_ids"]


def test_chats_are_asked_for_their_last_answer_as_in_training(folder, tmp_path, capsys, monkeypatch):
    shutil.copytree(folder / "base", tmp_path / "base")
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})
    tokenizer.chat_template = ("{% for m in messages %}{{ m.role }}: {{ m.content }}<end>\n{% endfor %}"
                               "{% if add_generation_prompt %}assistant: {% endif %}")
    tokenizer.save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path / "base")
    turns = [("user", "Hi."), ("assistant", "Yes?"), ("user", "Is <end> a word?"), ("assistant", "No."), ("user", "A.")]
    chat = {"messages": [{"role": role, "content": content} for role, content in turns], "family": "chat"}
    (tmp_path / "chats.json").write_text(json.dumps([chat]))
    given = {"base": str(tmp_path / "base"), "template": "seed", "max_new_tokens": 3}
    panel = Panel(generate.Settings(**given))
    prompt = "user: Hi.<end>\nassistant: Yes?<end>\nuser: Is <end> a word?<end>\nassistant: "
    (example,) = encode_records([chat], panel.tokenizer)
    asked = panel.prompt_ids(chat, "seed")
    assert panel.tokenizer.decode(asked) == prompt and asked == example.tolist()[: len(asked)]
    ends, complete = [], model_panel.complete
    monkeypatch.setattr(model_panel, "complete", lambda model, asked, *rest, **options:
                        ends.append(rest[0]) or complete(model, asked, *rest, **options))
    generate.main(generate.Settings(**given, prompts=str(tmp_path / "chats.json")))
    assert "> user: Hi.\nassistant: Yes?\nuser: Is <end> a word?\n" in capsys.readouterr().out
    assert ends == [{0, 257}], "a seed's adapter asked in a chat ends where the chat's answers do"
    files = {"records": str(tmp_path / "chats.json"), "replies": str(tmp_path / "replies.jsonl")}
    generate.main(generate.Settings(**given, **files))
    line = json.loads((tmp_path / "replies.jsonl").read_text())
    assert list(line) == ["model", "family", "instruction", "messages", "reply"]
    assert line["instruction"] == "user: Hi.\nassistant: Yes?\nuser: Is <end> a word?"


def test_texts_without_a_label_ask_nothing(tmp_path):
    (tmp_path / "texts.json").write_text('[{"text": "A film.", "label": 1}, {"text": "A film."}]')
    given = {"records": str(tmp_path / "texts.json"), "replies": str(tmp_path / "replies.jsonl")}
    with pytest.raises(InputError, match="record 2: has no instruction to answer"):  # before a base is looked for
        generate.main(generate.Settings(base=str(tmp_path / "none"), **given))


def test_instructions_are_asked_as_in_training(folder, tmp_path):
    more = {"prompt": 5, "text": "A film.", "label": 1}
    record = {"instruction": "Add.", "input": "<noinput>", "output": "3", **more}
    (tmp_path / "records.json").write_text(json.dumps([record]))
    (record,) = generate.asking_records(tmp_path / "records.json")
    panel = Panel(generate.Settings(base=str(folder / "base")))
    assert panel.tokenizer.decode(panel.prompt_ids(record, "plain")) == "Add.\n"


def test_the_saved_template_is_used(folder, tmp_path, capsys):
    shutil.copytree(folder / "one", tmp_path / "one")
    adapters = (str(tmp_path / "one"),)
    given = {"base": str(folder / "base"), "adapters": adapters, "prompt": ("Add.",), "max_new_tokens": 9}
    generate.main(generate.Settings(**given, template="plain"))
    expected = capsys.readouterr().out
    generate.main(generate.Settings(**given))
    assert capsys.readouterr().out != expected
    save_template(tmp_path / "one", "plain")
    generate.main(generate.Settings(**given))
    assert capsys.readouterr().out == expected


def test_a_conversation_ends_with_an_empty_line(folder, capsys, monkeypatch):
    said = iter(["What now?", "b" * 300, ""])
    monkeypatch.setattr("builtins.input", lambda _: next(said))
    generate.main(generate.Settings(base=str(folder / "base"), max_new_tokens=3, prompt=("Hi.",), interactive=True))
    shown = capsys.readouterr().out
    assert "> Hi." in shown and "> What now?" in shown and "error: record 1" in shown


def test_a_prompt_that_only_an_adapter_refuses_leaves_the_plain_base(folder, tmp_path):
    shutil.copytree(folder / "one", tmp_path / "one")
    save_template(tmp_path / "one", "alpaca")  # 150 bytes and more around the prompt
    panel = Panel(generate.Settings(base=str(folder / "base"), adapters=(str(tmp_path / "one"),)))
    panel.templates["base"] = "plain"
    weights = {name: value.clone() for name, value in panel.base.state_dict().items()}
    with pytest.raises(generate.InputError, match="model one: prompt of"):
        panel.answer([{"instruction": "b" * 200}], 0.0, 1)
    assert panel.base.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in panel.base.state_dict().items())


@pytest.mark.parametrize(("flags", "said"), [
    (["--base", "data/models/nothing"], "bash train.sh"),
    (["--adapters", "data/adapters/nothing"], "bash train.sh"),
    (["--top_p", "0"], "--top_p is 0"),
    (["--max_new_tokens", "0"], "--max_new_tokens is 0"),
    (["--records", "r.json"], "--replies"),
    (["--records", "r.json", "--replies", "o"], "r.json does not exist"),
    (["--input", "x"], "--input belongs to --prompt"),
    (["--prompts", "nowhere"], "--prompts nowhere"),
    (["--temperature", "nan"], "--temperature is nan"),
    (["--seed", str(2**64)], "--seed is 1844"),
    (["--records", "r.json", "--replies", "."], "--replies . is a folder"),
    (["--records", "r.json", "--replies", "./r.json"], "or the records themselves"),
])
def test_bad_usage_is_one_line_and_status_2(folder, flags, said):
    done = run(folder, *([] if "--base" in flags else ["--base", folder / "base"]), *flags)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") <= 2


@pytest.mark.parametrize(("prompt", "said"), [("", "record 1: its prompt is empty"), ("a\udcff", "character 2")])
def test_prompts_that_give_no_tokens_are_refused(folder, prompt, said):
    with pytest.raises(InputError, match=said):
        generate.main(generate.Settings(base=str(folder / "base"), prompt=(prompt,), template="raw"))


def test_a_reader_that_leaves_is_no_mistake():
    command = f'"{sys.executable}" "{GENERATE}" --help | head -n 1; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) in ((141, ""), (0, "")), "0: all of it went into the pipe before"


def test_web_page_without_gradio_says_what_to_install(folder):
    if importlib.util.find_spec("gradio"):
        pytest.skip("gradio is installed")
    with pytest.raises(generate.InputError, match="pip install gradio") as error:
        generate.main(generate.Settings(base=str(folder / "base"), web=True))
    assert shlex.split(str(error.value).split(": ")[1])[0] == sys.executable, "not another environment's pip"


def test_a_prompt_that_is_too_long_is_named(folder):
    with pytest.raises(generate.InputError, match=r"record 2, model base: prompt of 3\d\d tokens"):
        generate.main(generate.Settings(base=str(folder / "base"), prompt=("short", "a" * 300)))


def test_reviews_are_asked_for_their_sentiment(folder, tmp_path):
    (tmp_path / "imdb.json").write_text(json.dumps([{"text": "Great<br />film. " * 30, "label": 1},
                                                    {"text": "Bad film.", "label": 0}]))
    generate.main(generate.Settings(base=str(folder / "base"), records=str(tmp_path / "imdb.json"), max_new_tokens=2,
                                    replies=str(tmp_path / "out.jsonl"), max_length=100))
    first, second = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert first["family"] == "sentiment"
    assert first["check"] == {"kind": "answer", "answers": ["positive"], "wrong": ["negative"]}
    assert second["check"] == {"kind": "answer", "answers": ["negative"], "wrong": ["positive"]}
    panel = Panel(generate.Settings(base=str(folder / "base"), max_length=100))
    asked = generate.asking_records(tmp_path / "imdb.json")
    assert byte_tokenizer().decode(panel.prompt_ids(asked[1], "seed")) == "Review: Bad film.\nSentiment:"
    assert len(panel.prompt_ids(asked[0], "seed")) == 100
    panel.tokenizer.bos_token = "R"
    assert panel.prompt_ids(asked[0], "seed")[0] == panel.tokenizer.bos_token_id, "a beginning's token outlives a cut"
