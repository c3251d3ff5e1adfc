"""Answers the same prompts with a base model, a fully fine-tuned one and any number of LoRA adapters, side by side.

    python lora/generate.py                                       # what `bash train.sh` made, a few prompts
    python lora/generate.py --prompt "Write a story about a fox." --adapters data/adapters/stories-lora
    python lora/generate.py --base gpt2 --prompts seed --adapters data/adapters/alpaca-r8 data/adapters/alpaca-r32
    python lora/generate.py --records data/instructions/stories_val.json --replies replies.jsonl   # to be scored

The base is loaded once; adapters are switched on it. Every model gets the same random numbers (--seed), so that replies
differ through the models alone. In a terminal the replies stand in columns and more prompts may be typed afterwards;
elsewhere they follow each other. With --records every model answers every record (greedily, in batches), for
`python data/checkers.py REPLIES` to score.
"""

import json
import shlex
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from finetune_settings import ROOT, TEMPLATES, InputError, run_command
from prompts import SEED_INSTRUCTIONS, SENTIMENT, question, schema_of

PROMPTS = {
    "seed": SEED_INSTRUCTIONS,
    "stories": (
        "Tell me a story about a kind girl named Mia who finds a key.",
        "Name three animals.",
        "What is the opposite of big?",
        "How do you say moon in Chinese?",
    ),
}


@dataclass
class Settings:
    """Which models answer what, and how."""

    base: str = str(ROOT / "data" / "models" / "stories")
    """base model: a folder, or a name on the Hugging Face hub"""
    full: tuple[str, ...] = ()
    """fully fine-tuned models to show beside it: folders or names on the hub"""
    adapters: tuple[str, ...] = ()
    """adapter folders (PEFT's format) or folders of LoRA runs, each shown beside the base"""
    template: Literal["saved", *TEMPLATES] = "saved"
    """the prompt's form; saved: as in each model's training; where unknown, the base's chat template, else seed"""
    prompt: tuple[str, ...] = ()
    """instructions of your own"""
    input: str = ""
    """the input that belongs to --prompt"""
    prompts: str = "stories"
    """without --prompt: stories, seed (the seed's four instructions) or a file (one per line, or records)"""
    interactive: bool = False
    """ask for more prompts afterwards; on by itself in a terminal without --prompt"""
    max_new_tokens: int = 256
    """longest reply, in tokens"""
    temperature: float = 0.7
    """0: always the most probable token; higher: more varied"""
    top_p: float = 0.92
    """sample from the most probable tokens that have this probability together"""
    seed: int = 42
    """of the random numbers, the same for every model"""
    records: str = ""
    """instructions, chats or labelled reviews (.json, .jsonl) for all models to answer greedily; needs --replies"""
    replies: str = ""
    """JSONL file to write those replies to"""
    limit: int = 0
    """answer the first so many records; 0: all"""
    max_length: int = 0
    """longest prompt, tokens; longer ones lose their beginning; 0: none is cut, what fills the context is refused"""
    batch_size: int = 64
    """replies made at once"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda"""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """arithmetic; auto: bf16 on a GPU that has it, fp32 on a CPU"""
    trust_remote_code: bool = False
    """run Python code that comes with the model; only for sources you trust"""
    web: bool = False
    """show a page in the browser instead (needs: pip install gradio)"""
    port: int = 7860
    """of that page, on this machine only"""


def chosen_prompts(settings):
    """Records from --prompt or --prompts."""
    if settings.prompt:
        return [{"instruction": prompt, "input": settings.input} for prompt in settings.prompt]
    if settings.prompts in PROMPTS:
        return [{"instruction": prompt} for prompt in PROMPTS[settings.prompts]]
    path = Path(settings.prompts)
    if not path.exists():
        raise InputError(f"--prompts {settings.prompts}: neither stories nor seed nor a file")
    if path.name.removesuffix(".gz").endswith((".json", ".jsonl")):
        return asking_records(path)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"--prompts {path}: not UTF-8 at byte {error.start}") from None
    if not lines:
        raise InputError(f"--prompts {path}: the file is empty")
    return [{"instruction": line} for line in lines]


def asking_records(path):
    """The records of a file; those of {"text", "label"} ask for the sentiment, and get a check of the reply."""
    from instructions import read_records

    records = read_records(path)
    for number, record in enumerate(records, 1):
        if schema_of(record) != "text":
            continue
        if record.get("label") not in (0, 1):
            raise InputError(f"{path}, record {number}: has no instruction to answer")
        answers = [SENTIMENT[int(label)].strip() for label in (record["label"], 1 - record["label"])]
        record |= {"family": "sentiment", "check": {"kind": "answer", "answers": answers[:1], "wrong": answers[1:]}}
    return records


def show(panel, records, seed):
    """Prints every model's reply to each record."""
    from side_by_side import side_by_side

    width, terminal = shutil.get_terminal_size().columns, sys.stdout.isatty()
    replies = panel.answer(records, panel.settings.temperature, seed)
    for i, record in enumerate(records):
        of_one = {name: texts[i] for name, texts in replies.items()}
        print(side_by_side(question(record), of_one, width, terminal), flush=True)


def converse(panel):
    """Asks for prompts until the end of input."""
    with suppress(ImportError):
        import readline  # noqa: F401  arrow keys and history for input()
    print("Your prompt (an empty line or Ctrl-D ends):")
    while True:
        try:
            prompt = input("> ").strip()
        except EOFError:
            print()
            return
        except UnicodeDecodeError:
            print("error: that was not UTF-8")
            continue
        if not prompt:
            return
        try:
            show(panel, [{"instruction": prompt}], panel.settings.seed)
        except InputError as error:
            print(f"error: {error}")


def write_replies(panel, records, settings):
    """Every model's greedy reply to every record, as JSONL in the file --replies (whole or not at all)."""
    from atomic_file import write_atomically
    from finetune_output import writable_parent

    path, kept = Path(settings.replies), ("family", "instruction", "input", "output", "messages", "check")
    writable_parent(path, "--replies")
    replies = panel.answer(records, temperature=0.0, seed=settings.seed, progress=True)
    asked = [{"instruction": question(record), **record} for record in records]
    lines = [{"model": name, **{key: record[key] for key in kept if key in record}, "reply": reply}
             for name, texts in replies.items() for record, reply in zip(asked, texts, strict=True)]
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    print(f"{len(replies)} models x {len(records):,} replies in {path}")


def serve(panel):
    """A page with a prompt and one box per model."""
    try:
        import gradio
    except ImportError:
        python = shlex.quote(sys.executable)  # a pip of its own would be another environment's
        raise InputError(f"--web needs gradio, which is not installed: {python} -m pip install gradio") from None

    first = chosen_prompts(panel.settings)[0]

    def answer(instruction, extra, temperature, seed):
        try:
            replies = panel.answer([{"instruction": instruction, "input": extra}], temperature, int(seed))
        except InputError as error:
            raise gradio.Error(str(error), print_exception=False) from None
        return [texts[0] for texts in replies.values()]

    with gradio.Blocks(title="Side by side") as page:
        instruction = gradio.Textbox(label="Instruction", value=first.get("instruction", question(first)))
        extra = gradio.Textbox(label="Input (may be empty)")
        with gradio.Row():
            temperature = gradio.Slider(0, 1.5, panel.settings.temperature, label="Temperature")
            seed = gradio.Number(panel.settings.seed, label="Seed", precision=0)
            button = gradio.Button("Answer", variant="primary")
        with gradio.Row():
            boxes = [gradio.Textbox(label=name, lines=12) for name in panel.names]
        for event in (button.click, instruction.submit):
            event(answer, [instruction, extra, temperature, seed], boxes)
    page.launch(server_name="127.0.0.1", server_port=panel.settings.port)


def main(settings):
    """Checks the settings, loads the models, answers."""
    for name, low in (("max_new_tokens", 1), ("temperature", 0), ("batch_size", 1), ("limit", 0), ("max_length", 0),
                      ("seed", 0)):
        if not low <= getattr(settings, name) < 2**63:
            raise InputError(f"--{name} is {getattr(settings, name)}; it must be a number from {low} on, below 2^63")
    if not 0 < settings.top_p <= 1:
        raise InputError(f"--top_p is {settings.top_p}; it must be above 0 and at most 1")
    if bool(settings.records) != bool(settings.replies):
        raise InputError("--records and --replies belong together: the file to answer and the file to write")
    if settings.replies and (Path(settings.replies).is_dir()
                             or Path(settings.replies).resolve() == Path(settings.records).resolve()):
        raise InputError(f"--replies {settings.replies} is a folder, or the records themselves; name another file")
    if settings.input and not settings.prompt:
        raise InputError("--input belongs to --prompt")
    if settings.records and not Path(settings.records).exists():
        raise InputError(f"--records {settings.records} does not exist; make it with: python data/prepare.py stories")
    records = asking_records(settings.records) if settings.records else chosen_prompts(settings)
    for name, folder in (("base", settings.base), *(("full", folder) for folder in settings.full)):
        if folder.startswith((str(ROOT), "data/")) and not Path(folder, "config.json").exists():
            raise InputError(f"--{name}: there is no model {folder} yet; make it with: bash train.sh")
    from model_panel import Panel

    panel = Panel(settings)
    if settings.records:
        write_replies(panel, records[: settings.limit or None], settings)
    elif settings.web:
        serve(panel)
    else:
        show(panel, records, settings.seed)
        if settings.interactive or (not settings.prompt and sys.stdin.isatty() and sys.stdout.isatty()):
            converse(panel)


if __name__ == "__main__":
    options = {"description": __doc__, "config": (tyro.conf.AvoidSubcommands,), "use_underscores": True}
    run_command(main, lambda: tyro.cli(Settings, **options))
