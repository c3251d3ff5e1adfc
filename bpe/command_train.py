"""`python bpe/run.py train`: count the pieces of the text, merge pairs, write the tokenizer in every format."""

import dataclasses
import hashlib
import json
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import text_files
import tokenizer_folder
import tyro
from folder_swap import refuse_unwritable
from formats import BYTES
from pattern import portable
from text_files import SEPARATORS
from vocabulary import InputError, Ties, Vocabulary, check_size

KEEP_COUNTS_AFTER = 5  # seconds of counting that are worth keeping on disk until the merges are done


@dataclass
class Train:
    """Train a tokenizer on text files (.txt, .jsonl with a field "text", either with .gz) and save it in every format.

    python bpe/run.py train corpus.txt --vocab_size 4096 --special_tokens "<|endoftext|>" --out data/tokenizer/mine

    Tiny: python bpe/run.py train bpe/sample/text.txt --vocab_size 512 --out /tmp/tiny
    """

    files: tyro.conf.Positional[tuple[Path, ...]] = ()  # text files
    out: Path | None = None  # folder for the tokenizer; its last name is the tokenizer's
    vocab_size: int = 4096  # tokens in all: 256 bytes, special tokens, merges
    pattern: str | None = None  # how text is split: gpt2 (the default), gpt4, none, or a regular expression
    ties: Ties = "hf"  # tie rule as in Hugging Face, rustbpe, minbpe, CS336
    special_tokens: tuple[str, ...] = ()  # texts that are one token each, never counted and never split
    threads: int = 0  # for counting; 0: all cores
    errors: Literal["strict", "replace"] = "strict"  # text that is not UTF-8: stop, or U+FFFD in its place
    shard: str = ""  # i/n, from 0/n to n-1/n: count only this part of the text, for --save_counts
    save_counts: Path | None = None  # file (.npz) for the counts, to be merged later by --counts
    counts: tuple[Path, ...] = ()  # files of counts to train on, instead of text
    extend: str | None = None  # tokenizer to add merges to; its ids stay as they are; give the --ties of its training


def run(settings: Train) -> None:
    """Train as the settings say. Raises InputError for anything the user can mend."""
    settings = dataclasses.replace(settings, pattern=portable(settings.pattern))
    known = None
    if settings.extend:
        known = tokenizer_folder.load(settings.extend, settings.pattern, settings.special_tokens)
    _check(settings, known)
    import fast  # compiled: only once the arguments are in order

    kept = None
    if settings.counts:
        counts = fast.Counts.merged([fast.Counts.load(path) for path in settings.counts])
        _same("--pattern", settings.pattern, counts.pattern, "the counts")
        _same("--special_tokens", settings.special_tokens or None, counts.special_tokens, "the counts")
        print(f"read {_n(len(counts), 'distinct piece')} from {_n(len(settings.counts), 'file')} of counts")
    else:
        pattern = known.pattern if known else settings.pattern or "gpt2"
        specials = tuple(known.special_tokens) if known else settings.special_tokens
        counts, kept = _counted(settings, pattern, specials)
    if settings.save_counts:
        counts.save(settings.save_counts)
        print(f"saved the counts of {_n(len(counts), 'distinct piece')} in {settings.save_counts}")
    if settings.out is None:
        return

    start = time.perf_counter()
    with _bar(settings.vocab_size - 256, "merging", " merges") as bar:
        if known:
            vocabulary = fast.extend(known, counts, settings.vocab_size, settings.ties, bar.update)
        else:
            vocabulary = fast.merge(counts, settings.vocab_size, settings.ties, bar.update)
    if known:  # no file says under which rule it was trained
        print(f"the new merges follow the tie rule {settings.ties}: --ties must be the rule of the first training for"
              " the result to equal training at once")
    made = len(vocabulary.merges) - (len(known.merges) if known else 0)
    print(f"made {_n(made, 'merge')} in {time.perf_counter() - start:.2f} s")
    names = tokenizer_folder.save(vocabulary, settings.out)
    if kept:
        (settings.out / kept.name).unlink(missing_ok=True)
    _summary(settings, vocabulary, names)


def _check(settings: Train, known: Vocabulary | None) -> None:
    """Refuse what cannot work, before anything slow begins."""
    if settings.out is None and settings.save_counts is None:
        raise InputError("--out FOLDER: where shall the tokenizer go?")
    if not settings.files and not settings.counts:
        text_files.refuse_swallowed("--special_tokens", settings.special_tokens)
    if bool(settings.files) == bool(settings.counts):
        raise InputError("give either text files or --counts FILES to train on")
    if settings.threads < 0:
        raise InputError(f"--threads {settings.threads}: must be at least 1, or 0 for all cores")
    if settings.out:
        tokenizer_folder.check(settings.out)
    _check_counts(settings)
    if len(set(settings.special_tokens)) < len(settings.special_tokens):
        raise InputError(f"--special_tokens {' '.join(settings.special_tokens)}: one is there twice")
    for text in settings.special_tokens:
        if not text.strip() or not text.isprintable():  # also lone surrogates, which a shell makes of bad UTF-8
            raise InputError(f"--special_tokens {text!r}: must be printable text, and not only spaces")
        if len(text) == 1 and text in BYTES:
            raise InputError(f"--special_tokens {text!r}: is a byte of its own already; choose a longer text")
    specials = len(settings.special_tokens)
    least = len(known) if known else 256 + specials
    if settings.out:
        if settings.vocab_size < least:
            what = f"{settings.extend} has already" if known else f"256 bytes + {specials} special tokens need"
            raise InputError(f"--vocab_size {settings.vocab_size}: {what} {least}; give {least} or more")
        check_size(settings.vocab_size, settings.special_tokens, "--vocab_size")
    if known:
        _same("--pattern", settings.pattern, known.pattern, settings.extend)
        _same("--special_tokens", settings.special_tokens or None, tuple(known.special_tokens), settings.extend)
    if settings.shard:
        _check_shard(settings)
    for path in settings.files:
        if not text_files.is_stream(path):  # a pipe that is closed again is lost
            with text_files.opened(path):
                pass


def _check_shard(settings: Train) -> None:
    """Refuse a --shard that is no part of a text, or whose counts would go nowhere."""
    _shard(settings.shard)
    if settings.counts:
        raise InputError(f"--shard {settings.shard}: is a part of text files; --counts are counted, so leave it out")
    if not settings.save_counts:
        raise InputError(f"--shard {settings.shard}: counts a part only; say where it goes with --save_counts FILE")
    if settings.out:
        raise InputError("--shard counts a part of the text; train afterwards with --counts FILES --out FOLDER")


def _check_counts(settings: Train) -> None:
    """Refuse counts that would be added up twice, or replace what is no file of counts."""
    resolved = [path.resolve() for path in settings.counts]
    for n, path in enumerate(settings.counts):
        if resolved[n] in resolved[:n]:
            raise InputError(f"--counts {path}: is there twice")
    save = settings.save_counts
    if save and save.resolve() in (*resolved, *(path.resolve() for path in settings.files)):
        raise InputError(f"--save_counts {save}: is one of the inputs; choose another file")
    if save and save.exists() and not _holds_counts(save):
        raise InputError(f"--save_counts {save}: exists and is no file of counts; choose another file")
    if save:
        refuse_unwritable(save)


def _holds_counts(path: Path) -> bool:
    """Whether it looks like what Counts.save writes; without numba and without reading it all."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return {"format.npy", "text_sizes.npy", "counts.npy"} <= set(file.namelist())


def _same(flag: str, given: object, known: object, owner: object) -> None:
    if given is not None and given != known:
        raise InputError(f"{flag} {given!r} contradicts {known!r} of {owner}; leave the flag out")


def _shard(text: str) -> tuple[int, int]:
    """'2/8' -> (2, 8)."""
    try:
        index, total = (int(part) for part in text.split("/"))
        if 0 <= index < total:
            return index, total
    except ValueError:
        pass
    raise InputError(f"--shard {text}: give i/n with i from 0 to n - 1, for example 0/8")


def _counted(settings: Train, pattern: str, specials: tuple[str, ...]) -> tuple["fast.Counts", Path | None]:  # noqa: F821
    """Counts of the text files, and the file that keeps them until the tokenizer is saved.

    Counting cuts at `<|endoftext|>`, special token or not, so its letters are never learned and no piece joins two
    documents. Its line's newlines are not counted, as encoding leaves them out.
    """
    import fast

    shard = _shard(settings.shard) if settings.shard else (0, 1)
    kept = None
    streams = [path for path in settings.files if text_files.is_stream(path)]
    if settings.out and not streams:  # nobody knows whether a stream will be the same again
        stats = [(path.resolve(), path.stat()) for path in settings.files]
        stamps = [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]
        key = json.dumps([stamps, pattern, specials, settings.errors])
        kept = settings.out / f"counts-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
        if kept.exists():
            counts = fast.Counts.load(kept)
            print(f"took up the counts of an interrupted run: {_n(len(counts), 'distinct piece')} ({kept})")
            return counts, kept
    start = time.perf_counter()
    cuts = tuple(dict.fromkeys((*specials, *SEPARATORS)))
    with _bar(text_files.file_bytes(settings.files) // shard[1], "counting", "B") as bar:
        counts = fast.count(
            settings.files, pattern, cuts, settings.threads or None, shard, settings.errors, progress=bar.update
        )
    counts = dataclasses.replace(counts, special_tokens=specials)
    seconds = time.perf_counter() - start
    pieces = int(counts.counts.sum())
    print(f"counted {_n(pieces, 'piece')}, {len(counts):,} distinct, in {seconds:.2f} s")
    if counts.replaced:
        print(f"replaced {_n(counts.replaced, 'sequence')} that were not UTF-8 by U+FFFD")
    if not len(counts) and not settings.shard:
        raise InputError(f"{', '.join(map(str, settings.files))}: no text to learn from")
    if kept and seconds > KEEP_COUNTS_AFTER:
        counts.save(kept)
        return counts, kept
    return counts, None


def _summary(settings: Train, vocabulary: Vocabulary, names: list[str]) -> None:
    """What was made, and how well it compresses the beginning of the text it was trained on."""
    size = f"{len(vocabulary):,}"
    if len(vocabulary) < settings.vocab_size:
        print(f"note: no pair is left to merge; the vocabulary has {size} tokens, not {settings.vocab_size:,}")
    special_ids = set(vocabulary.special_tokens.values())
    longest = max((token for n, token in enumerate(vocabulary.token_bytes) if n not in special_ids), key=len)
    shown = repr(longest[:60].decode("utf-8", "backslashreplace"))
    print(f"vocabulary: {size} tokens, the longest {shown}" + f"… ({_n(len(longest), 'byte')})" * (len(longest) > 60))
    files = [path for path in settings.files if not text_files.is_stream(path)]
    if files:
        from encoder import Tokenizer

        tokenizer, size, tokens = Tokenizer(vocabulary), 0, 0
        reading = text_files.Reading("replace")
        for part, _ in (document for path in files for document in text_files.documents(path, reading)):
            size += len(part)
            tokens += len(tokenizer.encode_array(part, disallowed_special=()))
            if size > 1_000_000:
                break
        if size:
            print(f"compression: {size / tokens:.2f} bytes per token on the first {size:,} bytes")
    print(f"saved {settings.out}/: {', '.join(names)}")


def _n(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _bar(total: int, what: str, unit: str):
    """Progress on standard error with an estimate; silent where that is no terminal."""
    from tqdm import tqdm

    return tqdm(total=total or None, desc=what, unit=unit, unit_scale=True, leave=False, disable=None)
