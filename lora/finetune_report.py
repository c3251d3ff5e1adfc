"""What a run leaves behind: metrics.jsonl, TensorBoard, train_log.txt, then train_data.json, learning_curve.png,
response.txt.
"""

import json
import sys
import threading
import time
from pathlib import Path

from atomic_file import write_atomically
from curves import plot_run
from decoding import complete, end_tokens
from finetune_settings import Settings
from packed_attention import own_attention
from prompts import SEED_INSTRUCTIONS, last_tokens, render, tokenize_prompts
from torch.utils.tensorboard import SummaryWriter


class Journal:
    """Appends to the run's logs; lines of updates that a resumed run does again are removed first."""

    def __init__(self, folder: Path, step: int, quiet: bool = False):
        self.folder, self.quiet, self.terminal = folder, quiet, sys.stderr.isatty()
        if quiet:
            return
        path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(path) if line["step"] <= step] if step and path.exists() else []
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.metrics = open(path, "a", encoding="utf-8")  # noqa: SIM115
        self.log = open(folder / "train_log.txt", "a" if step else "w", encoding="utf-8")  # noqa: SIM115
        threading.excepthook = told_later
        self.board = SummaryWriter(str(folder), purge_step=step + 1)
        self.last = 0.0

    def say(self, text: str):
        """A line on the terminal and in train_log.txt."""
        if not self.quiet:
            print(text, flush=True)
            self.log.write(text + "\n")

    def write(self, step: int, **values):
        """One line of metrics."""
        if self.quiet:
            return
        line = {
            "step": step,
            **{key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in values.items()},
        }
        self.metrics.write(json.dumps(line) + "\n")
        self.log.write("  ".join(f"{key} {value:.6g}" for key, value in line.items()) + "\n")
        for key, value in values.items():
            if key != "time":
                self.board.add_scalar(key, value, step)
        if "eval_loss" in values or time.monotonic() - self.last > 5:
            self.last = time.monotonic()
            self.flush()

    def flush(self):
        """What was written is readable now; OSError names the folder."""
        if self.quiet:
            return
        try:
            self.metrics.flush()
            self.log.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder)) from None

    def close(self):
        """Ends all files."""
        if not self.quiet:
            self.metrics.close()
            self.log.close()
            self.board.close()


def told_later(failure):
    """Says nothing of an OSError in TensorBoard's thread, as of a full disk: its next call here raises it again."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def read_metrics(path: Path) -> list[dict]:
    """metrics.jsonl, without a last line that a crash cut short."""
    lines = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def write_report(s: Settings, model, tokenizer, data, folder: Path):
    """train_data.json, learning_curve.png and, unless response_tokens is 0, response.txt."""
    lines = read_metrics(folder / "metrics.jsonl")
    train = [line for line in lines if "loss" in line]
    evaluation = [line for line in lines if "eval_loss" in line]
    curves = {
        "train": {key: [line[key] for line in train] for key in ("step", "epoch", "loss", "lr")},
        "eval": {"step": [line["step"] for line in evaluation], "loss": [line["eval_loss"] for line in evaluation]},
    }
    write_atomically(folder / "train_data.json", json.dumps(curves).encode())
    plot_run(folder, folder / "learning_curve.png")
    if s.response_tokens:
        write_atomically(folder / "response.txt", answers(s, model, tokenizer, data).encode())


def answers(s: Settings, model, tokenizer, data) -> str:
    """The model's answers to the seed's prompts and to the first evaluation records, at temperature 0.7 and top-p
    0.92.
    """
    asked = [(instruction, "", None) for instruction in SEED_INSTRUCTIONS]
    asked += [(record["instruction"], record.get("input", ""), record["output"]) for record in data.show]
    texts = [render(data.template, instruction, extra, "", tokenizer)[0] for instruction, extra, _ in asked]
    context = getattr(model.config, "max_position_embeddings", None) or 1 << 30
    room = max(context - s.response_tokens, 1)  # a longer prompt loses its beginning
    asked_ids = tokenize_prompts(texts, tokenizer, data.template)
    prompts = [last_tokens(ids, room, tokenizer.bos_token_id) for ids in asked_ids]
    model.eval()
    with own_attention(model):
        ends = end_tokens(model, tokenizer, data.template)
        replies = complete(model, prompts, ends, s.response_tokens, 0.7, 0.92, s.seed)
    model.train()
    parts = []
    for (instruction, extra, reference), reply in zip(asked, replies, strict=True):
        answer = tokenizer.decode(reply, skip_special_tokens=True).strip()
        parts.append(
            f"### {instruction}{' ' + extra if extra else ''}\n{answer}\n"
            + (f"--- reference: {reference}\n" if reference is not None else "")
        )
    return "\n".join(parts)
