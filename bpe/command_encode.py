"""`python bpe/run.py encode` and `decode`: text to ids and back, in bounded memory."""

import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import formats
import text_files
import token_shards
import tokenizer_folder
import tyro
from folder_swap import replacing_file
from pattern import check_flag
from text_files import END_OF_TEXT
from vocabulary import InputError, SpecialTokenInText, Vocabulary

DATA = Path(__file__).resolve().parents[1] / "data"


@dataclass
class Encode:
    """Turn text into ids: on standard output, into one .npy file, or into the shards that pretraining reads.

    python bpe/run.py encode --text "Hello world" --tokenizer gpt2

    python bpe/run.py encode data/text/stories --tokenizer data/tokenizer/stories --out data/tokens/stories

    A folder with train.* and val.* files keeps that split; of single files every k-th document goes to val.
    """

    files: tyro.conf.Positional[tuple[Path, ...]] = ()  # text files or one folder; - is standard input
    tokenizer: str = "gpt2"  # gpt2, a tokenizer's folder, or its file (tokenizer.json, vocab.json, rank file)
    text: str | None = None  # encode this text instead of files
    out: Path | None = None  # FILE.npy: ids of files as they are, .jsonl too; else a folder of shards. Default: print
    allowed_special: tuple[str, ...] = ()  # special tokens that text may contain, or all; others are an error
    ordinary: bool = False  # encode special tokens in the text as ordinary text
    val_fraction: float | None = None  # shards of single files: part of the documents for val, 0 to 0.5; else 0.01
    shard_tokens: int = 100_000_000  # tokens in one shard
    end_of_text: str = END_OF_TEXT  # special token that ends every document in shards
    threads: int = 0  # 0: all cores
    errors: Literal["strict", "replace"] = "strict"  # text that is not UTF-8: stop, or U+FFFD in its place
    pattern: str | None = None  # split of a tokenizer file that does not hold it (rank file, vocab.json)
    special_tokens: tuple[str, ...] = ()  # special tokens of a rank file: in order of the ids left free, or TEXT=ID
    missing_bytes: bool = False  # take a tokenizer.json without tokens for some bytes, which no text may hold (SmolLM2)


@dataclass
class Decode:
    """Turn ids back into the bytes they were made from.

    python bpe/run.py decode 15496 995 --tokenizer gpt2

    python bpe/run.py decode ids.npy --tokenizer data/tokenizer/stories --out text.txt
    """

    ids: tyro.conf.Positional[tuple[str, ...]] = ()  # ids, or .npy files; nothing: from standard input
    tokenizer: str = "gpt2"  # gpt2, a tokenizer's folder, or its file (tokenizer.json, vocab.json, rank file)
    out: Path | None = None  # file for the bytes; standard output if left out
    pattern: str | None = None  # as for encode
    special_tokens: tuple[str, ...] = ()  # as for encode
    missing_bytes: bool = False  # as for encode


def run(settings: Encode | Decode) -> None:
    """Encode or decode as the settings say. Raises InputError for anything the user can mend."""
    try:
        (_encode if isinstance(settings, Encode) else _decode)(settings)
    except SpecialTokenInText as error:  # which speaks of the encoder's parameters; a user has flags
        raise InputError(
            f"the text contains the special token {error.token!r}: --allowed_special all takes it as one id,"
            " --ordinary as text"
        ) from None


def _vocabulary(settings: Encode | Decode) -> Vocabulary:
    """The tokenizer's; InputError for flags that its file contradicts."""
    given = settings.pattern, settings.special_tokens, settings.missing_bytes
    vocabulary = tokenizer_folder.load(settings.tokenizer, *given)
    check_flag(settings.pattern, settings.tokenizer, vocabulary.pattern)
    with_ids = {f"{text}={n}" for text, n in vocabulary.special_tokens.items()}
    for text in settings.special_tokens:
        if text not in vocabulary.special_tokens and text not in with_ids:
            known = ", ".join(vocabulary.special_tokens) or "none"
            raise InputError(f"--special_tokens {text!r}: {settings.tokenizer} has the special tokens: {known}")
    return vocabulary


def _encode(settings: Encode) -> None:
    if settings.text is None and not settings.files:
        text_files.refuse_swallowed("--allowed_special", settings.allowed_special)
        text_files.refuse_swallowed("--special_tokens", settings.special_tokens)
    if (settings.text is None) == (not settings.files):
        raise InputError("give either files (- for standard input) or --text to encode")
    if settings.ordinary and settings.allowed_special:
        raise InputError("--ordinary and --allowed_special contradict each other")
    if settings.threads < 0:
        raise InputError(f"--threads {settings.threads}: must be at least 1, or 0 for all cores")
    if settings.shard_tokens < 1:
        raise InputError(f"--shard_tokens {settings.shard_tokens}: must be at least 1")
    vocabulary = _vocabulary(settings)
    unknown = [text for text in settings.allowed_special if text not in (*vocabulary.special_tokens, "all")]
    if unknown:
        known = ", ".join(vocabulary.special_tokens) or "none"
        raise InputError(f"--allowed_special {unknown[0]!r}: {settings.tokenizer} has the special tokens: {known}")
    shards = settings.out and settings.out.suffix != ".npy"
    if shards:
        if settings.text is not None:
            raise InputError("--text goes to standard output or a .npy file, not into shards")
        if settings.val_fraction is not None and settings.files[0].is_dir():
            raise InputError("--val_fraction: a folder has its own val.* files; leave the flag out, or name files")
        val_fraction = 0.01 if settings.val_fraction is None else settings.val_fraction
        splits = token_shards.sources(list(settings.files), val_fraction)
    from counting import cores
    from encoder import Tokenizer  # compiled: only once the arguments are in order

    tokenizer = Tokenizer(vocabulary, settings.threads or cores())
    if shards:
        return _to_shards(settings, vocabulary, tokenizer, splits)
    allowed = "all" if "all" in settings.allowed_special else set(settings.allowed_special)
    disallowed = () if settings.ordinary else "all"
    reading = text_files.Reading(settings.errors)

    def ids_of(path: Path | None) -> Iterator["numpy.ndarray"]:  # noqa: F821
        if path is None:  # a shell's bytes that are not UTF-8 come as lone surrogates
            data = settings.text.encode("utf-8", "surrogateescape")
            blocks = [text_files.checked_utf8(data, "--text: byte", 0, reading)]
        else:
            blocks = text_files.blocks(path, reading)
        return tokenizer.encode_stream(blocks, allowed_special=allowed, disallowed_special=disallowed)

    paths = settings.files or (None,)
    if settings.out:
        with replacing_file(settings.out, settings.files) as beside:
            file = token_shards.TokenFile(beside, token_shards.id_type(vocabulary))
            for path in paths:
                for ids in ids_of(path):
                    file.append(ids)
            file.close()
        print(f"wrote {file.tokens:,} ids ({file.dtype}) to {settings.out}")
    else:
        for path in paths:
            between = ""
            for ids in ids_of(path):
                if len(ids):
                    sys.stdout.write(between + " ".join(map(str, ids.tolist())))
                    between = " "
            print()
    if reading.replaced:
        print(f"replaced {reading.replaced:,} sequences that were not UTF-8 by U+FFFD", file=sys.stderr)


def _to_shards(settings: Encode, vocabulary: Vocabulary, tokenizer, splits: dict) -> None:
    from tqdm import tqdm

    described = _described(settings, vocabulary)
    start = time.perf_counter()
    files = {path: None for source in splits.values() for path in source.files}
    passes = sum(len(source.files) for source in splits.values()) // len(files)  # single files are read once a split
    with tqdm(
        total=passes * text_files.file_bytes(list(files)) or None, desc="encoding", unit="B", unit_scale=True,
        leave=False, disable=None,
    ) as bar:  # fmt: skip

        def encode(blocks):
            def counted():
                for block in blocks:
                    bar.update(len(block))
                    yield block

            allowed = "all" if "all" in settings.allowed_special else {*settings.allowed_special, settings.end_of_text}
            disallowed = () if settings.ordinary else "all"
            return tokenizer.encode_stream(counted(), allowed_special=allowed, disallowed_special=disallowed)

        written = token_shards.write(
            settings.out, splits, encode, vocabulary, described, settings.end_of_text,
            settings.shard_tokens, settings.errors,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    for split, w in written.items():
        ratio = w.size / max(1, w.tokens - w.documents)
        print(
            f"{split}: {w.documents:,} documents, {w.size:,} bytes, {w.tokens:,} tokens with {settings.end_of_text} "
            f"({ratio:.2f} bytes per token) in {w.shards} shard{'s' * (w.shards != 1)}"
        )
    replaced = sum(w.replaced for w in written.values()) // passes
    if replaced:
        print(f"replaced {replaced:,} sequences that were not UTF-8 by U+FFFD", file=sys.stderr)
    total = sum(w.size for w in written.values())
    print(f"wrote {settings.out}/ in {seconds:.2f} s ({total / 1e6 / seconds:.1f} MB/s)")
    if settings.tokenizer == "gpt2" and not (DATA / "tokenizer/gpt2/tokenizer.json").exists():
        print("pretrain/ will look for this tokenizer in data/tokenizer/gpt2; "
              "python bpe/run.py export gpt2 --out data/tokenizer/gpt2 writes it", file=sys.stderr)
    elif settings.tokenizer != "gpt2" and not (DATA / described["tokenizer"] / "tokenizer.json").exists():
        print(f"pretrain/ will miss a tokenizer.json for its samples and scores; python bpe/run.py export "
              f"{settings.tokenizer} --out FOLDER writes one, then encode with --tokenizer FOLDER", file=sys.stderr)


def _described(settings: Encode, vocabulary: Vocabulary) -> dict[str, str]:
    """The manifest's entries for the tokenizer: its path from data/ (or the built-in name) and its hash."""
    path, built_in = Path(settings.tokenizer), settings.tokenizer == "gpt2"
    file = path / "tokenizer.json" if path.is_dir() else path
    exact = not built_in and file.name == "tokenizer.json" and file.is_file()
    content = file.read_bytes() if exact else formats.tokenizer_json(vocabulary).encode()
    folder = (file.parent if exact else path).resolve()
    name = settings.tokenizer if built_in else os.path.relpath(folder, DATA)
    return {"tokenizer": name, "tokenizer_sha256": hashlib.sha256(content).hexdigest()}


def _decode(settings: Decode) -> None:
    import numpy as np

    vocabulary = _vocabulary(settings)
    if not settings.ids and sys.stdin.isatty():
        raise InputError("give ids, or .npy files of ids, to decode")
    if not settings.ids or settings.ids == ("-",):
        parts = [("", _numbers(_words(sys.stdin.read()), "standard input"))]
    elif all(name.endswith(".npy") for name in settings.ids):
        parts = [(f"{name}: ", _array(Path(name))) for name in settings.ids]
    else:
        words = [word for name in settings.ids for word in ([name] if name.endswith(".npy") else _words(name))]
        parts = [("", _numbers(words, "argument"))]
    from encoder import Tokenizer

    tokenizer = Tokenizer(vocabulary)

    def write(out: BinaryIO) -> None:
        for name, array in parts:
            for start in range(0, len(array), 1 << 22):
                ids = np.asarray(array[start : start + (1 << 22)], np.int64)
                outside = np.flatnonzero((ids < 0) | (ids >= len(vocabulary)))
                if len(outside):
                    bad = f"{name}id {ids[outside[0]]} at position {start + outside[0]:,}"
                    raise InputError(f"{bad}: the vocabulary has {len(vocabulary):,} tokens")
                out.write(tokenizer.decode_bytes(ids))

    if settings.out:
        with replacing_file(settings.out, map(Path, settings.ids)) as beside, open(beside, "wb") as file:
            write(file)
    else:
        write(sys.stdout.buffer)


def _words(text: str) -> list[str]:
    """"[15496, 995]" -> ["15496", "995"], as Python and JSON write lists."""
    return re.sub(r"[\[\],]", " ", text).split()


def _numbers(words: list[str], place: str):
    import numpy as np

    for position, word in enumerate(words):
        if not word.isascii() or not word.isdecimal() or len(word) > 9:
            what = "files of ids and ids do not mix" if word.endswith(".npy") else "not an id, nor a .npy file of ids"
            raise InputError(f"{place} {position + 1}, {word!r}: {what}")
    return np.array(words, np.int64)


def _array(path: Path):
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        array = None
    if not isinstance(array, np.ndarray):  # an .npz under a wrong name is something else again
        raise InputError(f"{path}: not a .npy file of numbers, or damaged")
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise InputError(f"{path}: holds {array.ndim}-d {array.dtype}; ids are a 1-d array of integers")
    return array
