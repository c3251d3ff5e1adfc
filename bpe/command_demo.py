"""`python bpe/run.py` without a command: train, verify, compare with GPT-2, sweep vocabulary sizes, time trainers."""

import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import text_files
import token_display
import tokenizer_folder
from command_compare import PARAGRAPHS, SAMPLE, tokenized
from text_files import END_OF_TEXT
from vocabulary import InputError, Vocabulary, check_size

ROOT = Path(__file__).resolve().parents[1]
STORIES = ROOT / "data" / "text" / "stories" / "train.txt"


@dataclass
class Demo:
    """Train on a default text, verify the round trip, compare with GPT-2, sweep vocabulary sizes, time the trainers.

    This is what runs without a command. Real text: python bpe/run.py demo --text my.txt --vocab_size 8192
    """

    text: Path | None = None  # training text; without it data/text/stories if there is one, else bpe/sample/text.txt
    vocab_size: int = 4096  # tokens of the tokenizer, and the largest of the sweep
    timing_bytes: int = 40_000  # bytes of text on which the trainers are timed; the naive one needs seconds
    timing_vocab_size: int = 512  # vocabulary size for these timings, without splitting
    out: Path = ROOT / "data" / "tokenizer" / "demo"  # folder for the tokenizer
    results: Path = ROOT / "data" / "runs" / "bpe" / "demo.json"  # all numbers
    figure: Path = ROOT / "imgs" / "bpe.png"  # compression against vocabulary size, and times of the trainers


def run(settings: Demo) -> None:
    """Run the tour and save its numbers and figure."""
    path, origin = settings.text, "as asked"
    if path is None and STORIES.exists():
        path, origin = STORIES, "the generated stories"
    elif path is None:
        path = SAMPLE / "text.txt"
        origin = "the small text that comes with the code; `python data/prepare.py stories` makes a larger one"
    check_size(settings.vocab_size, [END_OF_TEXT], "--vocab_size")
    check_size(settings.timing_vocab_size, name="--timing_vocab_size")
    if settings.timing_bytes < 1:
        raise InputError(f"--timing_bytes {settings.timing_bytes}: must be at least 1")
    text = b"".join(text_files.text_blocks(path, text_files.Reading()))
    if not text:
        raise InputError(f"{path}: is empty; give a --text to learn from")
    import fast  # compiled: only once the arguments are in order
    from encoder import Tokenizer

    print(f"text: {_short(path)} ({origin}), {len(text):,} bytes, {len(text.decode()):,} characters")
    start = time.perf_counter()
    vocabulary = fast.train([text], settings.vocab_size, special_tokens=[END_OF_TEXT], texts=True)
    names = tokenizer_folder.save(vocabulary, settings.out)
    seconds = time.perf_counter() - start
    print(f"trained: {len(vocabulary):,} tokens in {seconds:.2f} s; saved {_short(settings.out)}/ ({', '.join(names)})")

    if len(vocabulary) < settings.vocab_size:
        print(f"note: no pair is left to merge, so there are {len(vocabulary):,} tokens, not {settings.vocab_size:,}")

    tokenizer = Tokenizer(vocabulary)
    start = time.perf_counter()
    ids = tokenizer.encode_array(text, allowed_special="all")
    back = tokenizer.decode_bytes(ids)
    if back != text:
        raise AssertionError("decode(encode(text)) differs from text")
    print(f"round trip: decode(encode(text)) == text, {len(ids):,} tokens, {time.perf_counter() - start:.2f} s\n")

    comparison = _compare(settings)
    sweep = _sweep(vocabulary, text)
    timed = text[: settings.timing_bytes].decode("utf-8", "ignore")
    times = _times(timed, settings.timing_vocab_size)
    settings.results.parent.mkdir(parents=True, exist_ok=True)
    numbers = {"text": path.name, "bytes": len(text), "comparison": comparison, "sweep": sweep, "trainers": times}
    settings.results.write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    title = f"Trainers, {len(timed.encode()) / 1000:.0f} kB, vocabulary {settings.timing_vocab_size}"
    _draw(settings.figure, title, sweep, times, comparison)
    print(f"\nnumbers: {_short(settings.results)}\nfigure: {_short(settings.figure)}")


def _short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _compare(settings: Demo) -> list[dict]:
    """Our tokenizer and GPT-2's on an English and a Chinese paragraph: table and tokens."""
    texts = {path.stem: path.read_bytes() for path in PARAGRAPHS}
    results = tokenized(texts, (str(settings.out), "gpt2"))
    rows = []
    for name, row in results.items():
        print(f"## {name}\n\n{token_display.table(row)}\n")
        for result in row:
            colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
            print(f"{result.tokenizer}: {token_display.terminal(result, colour)}\n")
            rows.append({
                "text": name, "tokenizer": result.tokenizer, "bytes": len(result.text), "tokens": len(result.ids),
                "bytes_per_token": round(result.bytes_per_token, 3), "ids": list(map(int, result.ids)),
                "pieces": result.tokens(),
            })  # fmt: skip
    return rows


def _sweep(vocabulary: Vocabulary, text: bytes) -> list[dict]:
    """Bytes per token of ever larger vocabularies. The first merges of a large one are those of a small one."""
    from encoder import Tokenizer

    most = len(vocabulary.merges)
    sizes = sorted({0, *(2**k for k in range(8, 20) if 2**k < most), most})
    texts = {"training text": text[:4_000_000], **{path.stem: path.read_bytes() for path in PARAGRAPHS}}
    rows = []
    print("| merges | " + " | ".join(f"bytes per token, {name}" for name in texts) + " |\n|--:|" + "--:|" * len(texts))
    for merges in sizes:
        tokenizer = Tokenizer(shortened(vocabulary, merges))
        row = {name: len(t) / len(tokenizer.encode_array(t, allowed_special="all")) for name, t in texts.items()}
        print(f"| {merges:,} | " + " | ".join(f"{ratio:.2f}" for ratio in row.values()) + " |")
        rows.append({"merges": merges, "vocab_size": len(tokenizer.vocabulary), **row})
    return rows


def shortened(vocabulary: Vocabulary, merges: int) -> Vocabulary:
    """The same tokenizer after its first `merges` merges (ids in their order, special tokens first)."""
    size = len(vocabulary) - len(vocabulary.merges) + merges
    return dataclasses.replace(
        vocabulary,
        token_bytes=vocabulary.token_bytes[:size],
        merges=vocabulary.merges[:merges],
        merged_ids=vocabulary.merged_ids[:merges],
    )


def _times(text: str, vocab_size: int) -> list[dict]:
    """Seconds of the three trainers on the same text without splitting; their merges must agree."""
    import fast
    from basic import BasicTokenizer
    from linked_list import LinkedListTokenizer

    def naive() -> Vocabulary:
        tokenizer = BasicTokenizer()
        tokenizer.train(text, vocab_size)
        return tokenizer.vocabulary

    def linked() -> Vocabulary:
        tokenizer = LinkedListTokenizer()
        tokenizer.train(text, vocab_size)
        return tokenizer.vocabulary

    def compiled() -> Vocabulary:
        return fast.train([text], vocab_size, pattern="none", ties="ids", texts=True)

    print(f"\nthe three trainers, {len(text.encode()):,} bytes without splitting, vocabulary {vocab_size}:")
    rows, merges = [], []
    for name, train in {"naive": naive, "heap + linked list": linked, "compiled": compiled}.items():
        start = time.perf_counter()
        merges.append(train().merges)
        rows.append({"trainer": name, "seconds": time.perf_counter() - start})
        print(f"  {name:<20}{rows[-1]['seconds']:>9.3f} s{rows[0]['seconds'] / rows[-1]['seconds']:>8.0f}x")
    if merges[0] != merges[1] or merges[0] != merges[2]:
        raise AssertionError("the trainers disagree")
    print(f"  all three made the same {len(merges[0])} merges")
    return rows


def _draw(path: Path, title: str, sweep: list[dict], times: list[dict], comparison: list[dict]) -> None:
    """Two panels: compression against vocabulary size with GPT-2's as points, and the trainers' times."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(3, 2), layout="constrained")
    sizes = [row["vocab_size"] for row in sweep]
    names = ("training text", "English paragraph", "Chinese paragraph")
    labels = dict(zip(("training text", "paragraph_en", "paragraph_zh"), names, strict=True))
    colours = ("#555555", "#3a7bd5", "#d9822b")
    for (key, label), colour in zip(labels.items(), colours, strict=True):
        left.plot(sizes, [row[key] for row in sweep], "o-", color=colour, markersize=4, label=label)
        for row in comparison:
            if row["text"] == key and row["tokenizer"] == "gpt2":
                style = {"color": colour, "markerfacecolor": "none", "label": f"{label}, GPT-2"}
                left.plot(50257, row["bytes_per_token"], "D", **style)
    left.set(xscale="log", xlabel="vocabulary size (tokens)", ylabel="UTF-8 bytes per token", ylim=(0, None),
             title="Compression against vocabulary size")  # fmt: skip
    ticks = {256: "256", 512: "512", 1024: "1k", 2048: "2k", 4096: "4k", 8192: "8k", 16384: "16k", 50257: "50k"}
    left.set_xticks(list(ticks), list(ticks.values()))
    left.minorticks_off()
    left.grid(alpha=0.3)
    left.legend(fontsize=8)
    names, seconds = [row["trainer"] for row in times], [row["seconds"] for row in times]
    right.barh(names[::-1], seconds[::-1], color=colours[::-1])
    for position, value in enumerate(seconds[::-1]):
        right.text(value * 1.15, position, f"{value:.3f} s", va="center", fontsize=9)
    right.set(xscale="log", xlabel="seconds (log scale)", title=title)
    right.margins(x=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
