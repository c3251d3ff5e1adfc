"""A tokenizer on disk: one folder with every format, replaced as a whole, and anything that others wrote, read.

The folder data/tokenizer/NAME/ holds
    tokenizer.json          everything, in Hugging Face's format: the one that is read back
    tokenizer_config.json   so that transformers.AutoTokenizer loads the folder
    vocab.json, merges.txt  GPT-2's format
    ranks.tiktoken          tiktoken's
    NAME.vocab              for people
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import formats
from folder_swap import refuse_unwritable, replacing
from gpt2_files import gpt2_paths
from pattern import check as check_pattern
from pattern import portable
from text_files import END_OF_TEXT
from vocabulary import InputError, Vocabulary, check_several

NAMES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "ranks.tiktoken")
GPT2_NAMES = ("vocab.json", "encoder.json", "merges.txt", "vocab.bpe")


def load(
    source: str | Path, pattern: str | None = None, special_tokens: Sequence[str] = (), missing_bytes: bool = False
) -> Vocabulary:
    """Vocabulary from "gpt2" (by name, no network), a folder, tokenizer.json, vocab.json, merges.txt or a rank file.

    `missing_bytes` also takes a tokenizer.json without tokens for some bytes, as SmolLM2's.
    `pattern` and `special_tokens` add what vocab.json + merges.txt (the split, else GPT-2's; special tokens that do not
    look like it) and rank files (the split; the special tokens, as "TEXT" or "TEXT=ID") do not hold. Raises InputError,
    naming file and field.
    """
    check_several("special_tokens", special_tokens)
    path = Path(source)
    pattern = portable(pattern)
    if source == "gpt2":  # a folder of that name is ./gpt2
        return _parsed(*gpt2_paths(), "gpt2", special_tokens)
    path = _file_of(path)
    if not path.is_file():
        raise InputError(f"{path}: no such tokenizer; give a folder, a tokenizer.json, vocab.json, rank file or gpt2")
    if path.name.endswith(GPT2_NAMES):
        return _parsed(*_vocab_and_merges(path), pattern or "gpt2", special_tokens)
    text = _read(path)
    try:
        if text.lstrip().startswith("{"):
            vocabulary = formats.parse_tokenizer_json(text, missing_bytes)
            check_pattern(vocabulary.pattern)
            return vocabulary
        if path.suffix == ".vocab":
            raise InputError("a .vocab listing is for reading; load the tokenizer.json beside it")
        if pattern is None:
            raise InputError("a rank file does not say how text is split: give --pattern gpt2, gpt4, none or a REGEX")
        return formats.parse_rank_file(text, pattern, special_tokens)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _file_of(path: Path) -> Path:
    """The file that is read: in a folder tokenizer.json, else GPT-2's."""
    names = ("tokenizer.json", "vocab.json", "encoder.json")
    return next((path / name for name in names if (path / name).is_file()), path / names[0]) if path.is_dir() else path


def names_special_tokens(source: str | Path) -> bool:
    """Whether what `load` would read holds all its special tokens, as tokenizer.json and gpt2 do."""
    path = _file_of(Path(source))
    if source == "gpt2" or path.name.endswith(GPT2_NAMES):
        return source == "gpt2"
    return _read(path).lstrip().startswith("{")


def _vocab_and_merges(path: Path) -> tuple[Path, Path]:
    """The two files of GPT-2's format, given either, under OpenAI's or Hugging Face's names."""
    names = {"vocab.json": "merges.txt", "encoder.json": "vocab.bpe"}
    for vocab, merges in names.items():
        for ending in (vocab, merges):
            if path.name.endswith(ending):
                prefix = path.name.removesuffix(ending)
                pair = path.with_name(prefix + vocab), path.with_name(prefix + merges)
                missing = [str(p) for p in pair if not p.is_file()]
                if missing:
                    raise InputError(f"{missing[0]}: missing; it belongs with {path.name}")
                return pair
    raise AssertionError(path)


def _parsed(vocab_path: Path, merges_path: Path, pattern: str, special_tokens: Sequence[str]) -> Vocabulary:
    try:
        return formats.parse_vocab_merges(_read(vocab_path), _read(merges_path), pattern, special_tokens)
    except InputError as error:
        raise InputError(f"{vocab_path} + {merges_path.name}: {error}") from None


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")  # Windows begins files with a mark
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8: no tokenizer file, or a damaged one") from None


def files(vocabulary: Vocabulary, name: str) -> dict[str, str]:
    """Text of each file of the folder, by file name. The same vocabulary gives the same bytes."""
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if END_OF_TEXT in vocabulary.special_tokens:
        config |= {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    contents = {
        "tokenizer.json": formats.tokenizer_json(vocabulary),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "vocab.json": formats.vocab_json(vocabulary),
        "merges.txt": formats.merges_txt(vocabulary),
        f"{name}.vocab": formats.listing(vocabulary),
    }
    if vocabulary.merged_ids == sorted(vocabulary.merged_ids):  # else tiktoken could not give the same ids
        contents["ranks.tiktoken"] = formats.rank_file(vocabulary)
    return contents


def check(folder: str | Path) -> None:
    """InputError if a tokenizer cannot go there: a file, the folder of a model, whose tokenizer it would replace, or a
    place that cannot be written to.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; a folder is needed")
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry.name == "config.json" or entry.suffix in (".safetensors", ".bin"):
            raise InputError(f"{folder}: holds a model ({entry.name}); choose another folder for the tokenizer")
    refuse_unwritable(folder)


def save(vocabulary: Vocabulary, folder: str | Path) -> list[str]:
    """Write the folder; the names of its files. A kill at any moment leaves the old tokenizer or the new, never a mix
    (but in the folder where we stand, or one with subfolders: see folder_swap.py).

    Whatever else the user keeps in the folder stays there; InputError as of `check`, and for a pattern that `load` and
    Hugging Face's tokenizers would not read as we do: it names what to put in its place.
    """
    check(folder)
    vocabulary = replace(vocabulary, pattern=portable(vocabulary.pattern))
    folder = Path(folder)
    name = folder.resolve().name
    contents = files(vocabulary, name)
    with replacing(folder, {*NAMES, f"{name}.vocab"}.__contains__, last="tokenizer.json") as beside:
        for name, text in contents.items():
            (beside / name).write_text(text, encoding="utf-8", newline="")
    return list(contents)
