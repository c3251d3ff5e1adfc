"""`python bpe/run.py compare` and `show`: the same text under several tokenizers, as a table, coloured, as a page."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import text_files
import token_display
import tokenizer_folder
import tyro
from folder_swap import replacing_file
from token_display import Tokenized
from vocabulary import InputError

SAMPLE = Path(__file__).resolve().parent / "sample"
PARAGRAPHS = (SAMPLE / "paragraph_en.txt", SAMPLE / "paragraph_zh.txt")


@dataclass
class Compare:
    """Compare any number of tokenizers: number of tokens, bytes per token, and the tokens themselves.

    python bpe/run.py compare gpt2 data/tokenizer/stories --text "The same text for both. 同样的文字。"
    """

    tokenizers: tyro.conf.Positional[tuple[str, ...]] = ("gpt2",)  # gpt2, folders, or files such as a tokenizer.json
    files: tuple[Path, ...] = ()  # texts to compare on; an English and a Chinese paragraph if neither these nor --text
    text: str | None = None  # this text
    tokens: int = 400  # tokens of each that are shown; 0 for the table alone
    html: Path | None = None  # also write a page with all tokens, side by side
    json: Path | None = None  # also write the numbers: {text: {tokenizer: {"bytes": ..., "tokens": ...}}}
    pattern: str | None = None  # split of tokenizer files that do not hold it (rank file, vocab.json)
    special_tokens: tuple[str, ...] = ()  # special tokens of a rank file: in order of the ids left free, or TEXT=ID
    missing_bytes: bool = False  # take a tokenizer.json without tokens for some bytes, which no text may hold (SmolLM2)


@dataclass
class Show:
    """Show the tokens of a text, coloured; with --html as a page that needs nothing else, ids on hover.

    python bpe/run.py show --text "Show me" --tokenizer gpt2 --html tokens.html
    """

    files: tyro.conf.Positional[tuple[Path, ...]] = ()  # texts; two paragraphs if neither these nor --text
    text: str | None = None  # this text
    tokenizer: tuple[str, ...] = ("gpt2",)  # gpt2, folders, or files such as a tokenizer.json
    html: Path | None = None  # page to write, instead of showing the tokens here
    ids: bool = False  # print the ids as well
    limit: int = 20_000  # bytes of each file that are shown
    pattern: str | None = None  # as for compare
    special_tokens: tuple[str, ...] = ()  # as for compare
    missing_bytes: bool = False  # as for compare


def run(settings: Compare | Show) -> None:
    """Tokenize every text with every tokenizer and show the result as the settings say."""
    show = isinstance(settings, Show)
    if not show and settings.tokens < 0:
        raise InputError(f"--tokens {settings.tokens}: must be at least 0")
    if show and settings.limit < 1:
        raise InputError(f"--limit {settings.limit}: must be at least 1")
    names = settings.tokenizer if show else settings.tokenizers
    inputs = [*settings.files, *map(Path, names)]
    texts = _texts(settings.files, settings.text, settings.limit if show else None)
    results = tokenized(texts, names, settings.pattern, settings.special_tokens, settings.missing_bytes)
    if settings.html:
        with replacing_file(settings.html, inputs) as beside:
            beside.write_text(token_display.page(results), encoding="utf-8", errors="backslashreplace")
    if show and settings.html:
        print(f"wrote {settings.html}")
        return
    if not show and settings.json:
        numbers = {name: {result.tokenizer: {"bytes": len(result.text), "tokens": len(result.ids)} for result in row}
                   for name, row in results.items()}
        with replacing_file(settings.json, [*inputs, *([settings.html] if settings.html else [])]) as beside:
            beside.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for name, row in results.items():
        print(f"## {name}\n")
        if not show:
            print(token_display.table(row) + "\n")
        for result in row:
            shown = len(result.ids) if show else settings.tokens
            part = Tokenized(result.tokenizer, result.vocabulary, result.text, result.ids[:shown])
            if shown:
                more = f" ... and {len(result.ids) - shown:,} more" if len(result.ids) > shown else ""
                count = f"{len(result.ids):,} token{'s' * (len(result.ids) != 1)}"
                print(f"{result.tokenizer}: {count}\n{token_display.terminal(part, colour)}{more}\n")
            if show and settings.ids:
                print(" ".join(map(str, result.ids)) + "\n")
    if settings.html:
        print(f"wrote {settings.html}")


def _texts(files: tuple[Path, ...], text: str | None, limit: int | None) -> dict[str, bytes]:
    """The texts to show by name, each of at most `limit` bytes, cut between characters."""
    if files and text is not None:
        raise InputError(f"give either files or --text, not both; {files[0]} is taken for a file (quote a text as one)")
    if text is not None:
        return {"text": text.encode("utf-8", "surrogateescape")}
    texts = {}
    for path in files or PARAGRAPHS:
        reading = text_files.Reading("replace")
        blocks = text_files.text_blocks(path, reading, limit or text_files.BLOCK)
        texts[str(path)] = text = next(blocks, b"") if limit else b"".join(blocks)
        if reading.replaced:
            print(f"{path}: {reading.replaced:,} sequences that are not UTF-8 are shown as U+FFFD", file=sys.stderr)
        if limit and len(text) > limit - 4:  # a character may have come in between
            print(f"{path}: its first {len(text):,} bytes; --limit shows more", file=sys.stderr)
    names = _distinct(texts, lambda path: Path(path).name)
    return {names[path]: content for path, content in texts.items()}


def tokenized(
    texts: dict[str, bytes], names: tuple[str, ...], pattern: str | None = None, special_tokens: tuple[str, ...] = (),
    missing_bytes: bool = False,
) -> dict[str, list[Tokenized]]:  # fmt: skip
    """Every text under every tokenizer; special tokens in the text are taken as such."""
    vocabularies = {name: tokenizer_folder.load(name, pattern, special_tokens, missing_bytes) for name in names}
    from encoder import Tokenizer  # compiled: only once the arguments are in order

    tokenizers = {name: Tokenizer(vocabulary) for name, vocabulary in vocabularies.items()}
    titles = _distinct(vocabularies, _short)
    return {
        title: [
            Tokenized(titles[name], vocabularies[name], text, tokenizer.encode(text, allowed_special="all"))
            for name, tokenizer in tokenizers.items()
        ]
        for title, text in texts.items()
    }


def _distinct(paths: Iterable[str], short: Callable[[str], str]) -> dict[str, str]:
    """Each path's short name, or the path itself where several have the same."""
    names = {path: short(path) for path in paths}
    taken = Counter(names.values())
    return {path: name if taken[name] == 1 else path for path, name in names.items()}


def _short(name: str) -> str:
    """data/tokenizer/stories -> stories; of "." the name of the folder where we stand."""
    path = Path(os.path.abspath(name))
    return path.parent.name if path.name == "tokenizer.json" and path.parent.name else path.name
