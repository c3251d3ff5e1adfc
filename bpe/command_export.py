"""`python bpe/run.py export`: a tokenizer of any format in every format."""

from dataclasses import dataclass
from pathlib import Path

import tokenizer_folder
import tyro
from formats import named_id
from pattern import check_flag
from vocabulary import InputError


@dataclass
class Export:
    """Write a tokenizer, read from any format, as a folder with all of them: Hugging Face's, GPT-2's, tiktoken's.

    python bpe/run.py export gpt2 --out data/tokenizer/gpt2

    python bpe/run.py export gpt2 --special_tokens "<|im_start|>" "<|im_end|>" --out data/tokenizer/chat

    python bpe/run.py export cl100k_base.tiktoken --pattern gpt4 --special_tokens "<|endoftext|>=100257"
    "<|endofprompt|>=100276" --out data/tokenizer/cl100k     (ids in between become <|unused_100256|> and so on)
    """

    tokenizer: tyro.conf.Positional[str]  # gpt2, a tokenizer's folder, or its file (tokenizer.json, vocab.json, ranks)
    out: Path  # folder to write
    pattern: str | None = None  # split of a tokenizer file that does not hold it (rank file, vocab.json)
    # special tokens of a rank file: in order of the ids left free, or TEXT=ID; of any other: more, behind its ids
    special_tokens: tuple[str, ...] = ()
    missing_bytes: bool = False  # take a tokenizer.json without tokens for some bytes, which no text may hold (SmolLM2)


def run(settings: Export) -> None:
    """Read one, write the others. Raises InputError for anything the user can mend."""
    s = settings
    vocabulary = tokenizer_folder.load(s.tokenizer, s.pattern, s.special_tokens, s.missing_bytes)
    check_flag(s.pattern, s.tokenizer, vocabulary.pattern)
    given = more = [named_id(text) for text in s.special_tokens]
    if not tokenizer_folder.names_special_tokens(s.tokenizer):  # then some were needed to read it
        more = [(text, n) for text, n in more if text not in vocabulary.special_tokens]
    for text, n in more:
        if n is not None:
            raise InputError(f"--special_tokens {text}={n}: only a rank file leaves ids to choose; leave ={n} out")
    vocabulary = vocabulary.with_special_tokens([text for text, _ in more])
    names = tokenizer_folder.save(vocabulary, settings.out)
    if given:
        ids = sorted((vocabulary.special_tokens[text], text) for text, _ in given)
        print(f"special tokens: {', '.join(f'{text} {n}' for n, text in ids)}")
    print(f"wrote {len(vocabulary):,} tokens to {settings.out}: {', '.join(names)}")
