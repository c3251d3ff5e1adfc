"""The file formats of a tokenizer, as text in and text out: Hugging Face's tokenizer.json, GPT-2's vocab.json +
merges.txt, tiktoken's rank file, and minbpe's readable .vocab listing (which is for people: it is never read back).

    >>> vocabulary = Vocabulary.build(byte_order("hf"), [(73, 74)], ["<|endoftext|>"])
    >>> parse_tokenizer_json(tokenizer_json(vocabulary)) == vocabulary
    True

tokenizer.json holds ids, merges, bytes and split exactly; vocab.json + merges.txt all but the split; a rank file ids
and bytes, from which merges are found again, perhaps more than were trained. Every parser raises InputError that names
the field at fault.
"""

import base64
import binascii
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from linked_list import LinkedListTokenizer
from pattern import GPT4_REGEX, NAMED_REGEXES, matches_everything
from vocabulary import (
    MOST_TOKENS,
    PATTERNS,
    InputError,
    Vocabulary,
    byte_order,  # noqa: F401  (doctest)
    mapped_code_points,
    to_bytes,
    without_token,
)

# Digits, then GPT-2's split of what lies between them, in one (SmolLM2): a space before a digit stands at an end there.
DIGITS_REGEX = r"|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"

CHARACTERS = [chr(point) for point in mapped_code_points()]  # byte -> the character that stands for it
BYTES = {character: byte for byte, character in enumerate(CHARACTERS)}
READABLE = 200  # bytes of a token that the listing shows


def to_mapped(token: bytes) -> str:
    """Bytes as GPT-2's files write them: b" hi" -> "Ġhi"."""
    return "".join(CHARACTERS[byte] for byte in token)


def from_mapped(text: str, field: str) -> bytes:
    """Inverse of to_mapped; raises InputError for a character that stands for no byte."""
    try:
        return bytes([BYTES[character] for character in text])
    except KeyError as error:
        raise InputError(
            f"{field}: {text!r} has {error.args[0]!r}, which stands for no byte (not a byte-level BPE file?)"
        ) from None


# ---- Hugging Face's tokenizer.json


def tokenizer_json(vocabulary: Vocabulary) -> str:
    """The whole tokenizer in one file, as `tokenizers` saves it (pretty): vocabulary, merges, specials and split."""
    added = [
        {"id": n, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": text in vocabulary.normalized, "special": text not in vocabulary.added}
        for text, n in sorted(vocabulary.special_tokens.items(), key=lambda item: item[1])
    ]  # fmt: skip
    spelled = spellings(vocabulary)
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {text: n for n, text in enumerate(spelled)},
        "merges": [[spelled[left], spelled[right]] for left, right in vocabulary.merges],
    }  # fmt: skip
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    document = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": vocabulary.normalizer} if vocabulary.normalizer else None,
        "pre_tokenizer": pre_tokenizer(vocabulary.pattern), "post_processor": None, "decoder": decoder, "model": model,
    }  # fmt: skip
    return json.dumps(document, ensure_ascii=False, indent=2)


def spellings(vocabulary: Vocabulary) -> list[str]:
    """Key of each id in a `vocab`: mapped characters, or a special token's own text; InputError where two collide."""
    specials = {n: text for text, n in vocabulary.special_tokens.items()}
    spelled = [specials[n] if n in specials else to_mapped(t) for n, t in enumerate(vocabulary.token_bytes)]
    if len(set(spelled)) < len(spelled):
        ids = {text: n for n, text in enumerate(spelled) if n not in specials}
        text, n = next((text, n) for n, text in specials.items() if text in ids)
        raise InputError(
            f"special token {text!r} (id {n}) is spelled like the ordinary token {ids[text]}: Hugging Face's and"
            " GPT-2's files cannot tell them apart; choose a longer special token"
        )
    return spelled


def pre_tokenizer(pattern: str) -> dict:
    """Hugging Face's description of a split; their ByteLevel step has GPT-2's pattern built in."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": pattern == "gpt2"}
    if pattern in ("gpt2", "none"):
        return byte_level
    regex = GPT4_REGEX if pattern == "gpt4" else pattern
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, byte_level]}


def parse_pre_tokenizer(step: dict) -> str:
    """Inverse of pre_tokenizer; also reads the ways in which other tools write the same splits."""
    steps = step.get("pretokenizers") if step.get("type") == "Sequence" else [step]
    known = "known are ByteLevel, Digits + ByteLevel, and one Split by a regular expression followed by ByteLevel"
    if not isinstance(steps, list) or not steps or not all(isinstance(s, dict) for s in steps):
        raise InputError("pre_tokenizer.pretokenizers: not a list of steps")
    kinds = [s.get("type") for s in steps]
    if kinds not in (["ByteLevel"], ["Digits", "ByteLevel"], ["Split", "ByteLevel"]):
        raise InputError(f"pre_tokenizer: {' + '.join(map(str, kinds))} is not supported; {known}")
    if steps[-1].get("add_prefix_space"):
        raise InputError("pre_tokenizer.add_prefix_space: true is not supported: text would not round-trip")
    own_split = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"]:
        return "gpt2" if own_split else "none"
    if kinds == ["Digits", "ByteLevel"] and own_split:
        return (r"\p{N}" if steps[0].get("individual_digits") else r"\p{N}+") + DIGITS_REGEX
    pattern, behavior = steps[0].get("pattern"), (steps[0].get("behavior"), steps[0].get("invert"))
    if own_split or not isinstance(pattern, dict) or not isinstance(pattern.get("Regex"), str):
        raise InputError(f"pre_tokenizer: this {kinds[0]} is not supported; {known} with use_regex false")
    expression = pattern["Regex"]
    if expression in PATTERNS:
        raise InputError(f"pre_tokenizer.pattern: {expression!r} is the name of a split here; write (?:{expression})")
    removed = behavior == ("Removed", True) and (expression in NAMED_REGEXES or matches_everything(expression))
    if behavior != ("Isolated", False) and not removed:
        raise InputError(
            f"pre_tokenizer: behavior {behavior[0]!r} with invert {behavior[1]!r} is not supported, only 'Isolated' and"
            " False, or 'Removed' and True of an expression that leaves nothing out"
        )
    return NAMED_REGEXES.get(expression, expression)


def parse_normalizer(step: object) -> str:
    """"NFC", or "" for none, which some files write as a sequence of no steps (DeepSeek's)."""
    steps = step.get("normalizers") if isinstance(step, dict) and step.get("type") == "Sequence" else [step]
    if not isinstance(steps, list) or any(step not in (None, {"type": "NFC"}) for step in steps):
        raise InputError(
            f"normalizer: {json.dumps(step)[:60]} is not supported, only NFC: it changes the text, so decoding"
            " would not give it back"
        )
    return "NFC" if any(steps) else ""


def parse_tokenizer_json(text: str, missing_bytes: bool = False) -> Vocabulary:
    """Vocabulary of a Hugging Face file, theirs or ours; `missing_bytes` also takes one that lacks bytes.

    Tokens that a post-processor adds (a leading <s>) are not added by us: ids are those of
    `encode(text, add_special_tokens=False)`.
    """
    document = _json_object(text)
    model = _field(document, "model", dict)
    refused = {
        "type": ("BPE", None), "dropout": (None, 0), "continuing_subword_prefix": (None, ""),
        "end_of_word_suffix": (None, ""), "byte_fallback": (None, False),
    }  # fmt: skip
    for name, accepted in refused.items():
        if model.get(name) not in accepted:
            raise InputError(f"model.{name}: {model.get(name)!r} is not supported: only byte-level BPE")
    normalizer = parse_normalizer(document.get("normalizer"))
    pattern = parse_pre_tokenizer(_field(document, "pre_tokenizer", dict))
    specials, not_special, normalized = {}, set(), set()
    added = [] if document.get("added_tokens") is None else _field(document, "added_tokens", list)
    for n, token in enumerate(added):
        field = f"added_tokens[{n}]"
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise InputError(f"{field}.content: not a string")
        if token["content"] in specials:
            raise InputError(f"{field}.content: {token['content']!r} is there twice")
        for flag in ("single_word", "lstrip", "rstrip"):
            if token.get(flag):
                raise InputError(f"{field}.{flag}: true is not supported")
        specials[token["content"]] = _token_id(token.get("id"), f"{field}.id")
        if token.get("special") is False:
            not_special.add(token["content"])
        if token.get("normalized"):
            normalized.add(token["content"])
    vocab = _field(model, "vocab", dict, "model.")
    _check_numbering(specials, vocab)
    merges = _field(model, "merges", list, "model.")
    vocabulary = _from_strings(
        vocab, merges, specials, pattern, "model.vocab", "model.merges", missing_bytes,
        added=frozenset(not_special), normalizer=normalizer, normalized=frozenset(normalized),
    )  # fmt: skip
    if model.get("ignore_merges"):
        _check_reachable(vocabulary)
    return vocabulary


def _check_numbering(specials: dict[str, int], vocab: dict[str, int]) -> None:
    """InputError unless added tokens that `vocab` lacks have the ids after its own, in order: tokenizers gives them
    these, whatever the file says.
    """
    new = [(text, n) for text, n in specials.items() if text not in vocab]
    for due, (text, n) in enumerate(new, len(vocab)):
        if n != due:
            raise InputError(
                f"added_tokens: {text!r} has id {n}, but Hugging Face's tokenizers number those that are not in"
                f" model.vocab anew, in the order of the file, and give it {due}"
            )


def _from_strings(
    vocab: dict[str, int], merges: Sequence, specials: dict[str, int], pattern: str, vocab_field: str,
    merges_field: str, missing_bytes: bool = False, **more: object,
) -> Vocabulary:  # fmt: skip
    """Vocabulary of spelled tokens and merges, and `more` fields; merges are "left right" or [left, right]."""
    ids = dict(vocab)
    for text, n in vocab.items():
        if type(n) is not int or n < 0:  # asked first: to spell every field takes longer than all the rest
            _token_id(n, f"{vocab_field}[{text!r}]")
    for text, n in specials.items():
        if ids.setdefault(text, n) != n:
            raise InputError(f"added_tokens: {text!r} has id {n}, but {ids[text]} in {vocab_field}")
    token_bytes: list[bytes | None] = [None] * len(ids)
    for text, n in ids.items():
        if n >= len(ids):
            raise InputError(f"{vocab_field}: {text!r} has id {n}, but there are only {len(ids)} tokens (one missing?)")
        if token_bytes[n] is not None:
            raise InputError(f"{vocab_field}: id {n} is given to two tokens, {token_bytes[n]!r} and {text!r}")
        token_bytes[n] = to_bytes(text) if text in specials else from_mapped(text, vocab_field)
    pairs, merged_ids = [], []
    for rank, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or set(map(type, parts)) != {str}:
            raise InputError(f"{merges_field}[{rank}]: {merge!r} is not a pair of tokens")
        left, right = parts
        try:
            pairs.append((ids[left], ids[right]))
            merged_ids.append(ids[left + right])
        except KeyError as error:
            needed = error.args[0]
            raise InputError(f"{merges_field}[{rank}]: {merge!r} needs {needed!r}, missing in {vocab_field}") from None
    missing = without_token({*token_bytes}) if missing_bytes else frozenset()
    return Vocabulary(token_bytes, pairs, merged_ids, specials, pattern, missing_bytes=missing, **more)


def _check_reachable(vocabulary: Vocabulary) -> None:
    """InputError unless merges lead to every token: only then may other tools take tokens whole (tiktoken, those that
    obey ignore_merges) and find the same ids.
    """
    merging, special_ids = LinkedListTokenizer(), set(vocabulary.special_tokens.values())
    merging.vocabulary = vocabulary
    for n, token in enumerate(vocabulary.token_bytes):
        if n not in special_ids and merging.encode_piece([vocabulary.byte_ids[byte] for byte in token]) != [n]:
            raise InputError(
                f"token {n}, {token!r}: no merges lead to it; a rank file, or model.ignore_merges: true, with such a"
                " token is not supported"
            )


# ---- GPT-2's vocab.json + merges.txt


def vocab_json(vocabulary: Vocabulary) -> str:
    """The ids, as `tokenizers` and OpenAI's encoder.json write them: one object, mapped token to id."""
    ids = {text: n for n, text in enumerate(spellings(vocabulary))}
    return json.dumps(ids, ensure_ascii=False, separators=(",", ":"))


def merges_txt(vocabulary: Vocabulary) -> str:
    """The merges in order, one `left right` a line, after a version line."""
    spelled = spellings(vocabulary)
    return "#version: 0.2\n" + "".join(f"{spelled[left]} {spelled[right]}\n" for left, right in vocabulary.merges)


def parse_vocab_merges(
    vocab_text: str, merges_text: str, pattern: str = "gpt2", special_tokens: Sequence[str] = ()
) -> Vocabulary:
    """Vocabulary of GPT-2's pair of files, which say neither the split nor which tokens are special.

    Special is what no merge makes and is no single byte: of GPT-2's own, `<|endoftext|>` alone. It has to look like
    that, <...> or [...], or to be one of `special_tokens`; any other is a sign of merges that are missing.
    """
    vocab = _json_object(vocab_text)
    lines = merges_text.replace("\r\n", "\n").split("\n")  # not splitlines(): U+0085 is a mapped byte, not a line end
    merges = [line for line in lines[lines[0].startswith("#version") :] if line]
    made = {"".join(merge.split(" ")) for merge in merges}
    specials = {text: n for text, n in vocab.items() if text not in made and not (len(text) == 1 and text in BYTES)}
    for text in specials:
        if text not in special_tokens and not re.fullmatch(r"<.+>|\[.+\]", text, re.DOTALL):
            raise InputError(
                f"merges.txt: no merge makes {text!r}; is it cut off? (or name a special token: --special_tokens)"
            )
    return _from_strings(vocab, merges, specials, pattern, "vocab.json", "merges.txt")


# ---- tiktoken's rank file


def rank_file(vocabulary: Vocabulary) -> str:
    """Lines `base64(token) id`, specials left out, as tiktoken.load.load_tiktoken_bpe reads them.

    tiktoken joins the pair whose result has the smallest id: InputError where ids are not in the order of the merges.
    """
    if vocabulary.merged_ids != sorted(vocabulary.merged_ids):
        raise InputError("a tiktoken rank file needs ids in the order of the merges; this tokenizer's are not")
    special_ids = set(vocabulary.special_tokens.values())
    tokens = [(n, token) for n, token in enumerate(vocabulary.token_bytes) if n not in special_ids]
    return "".join(f"{base64.b64encode(token).decode()} {n}\n" for n, token in tokens)


def parse_rank_file(text: str, pattern: str, special_tokens: Sequence[str] = ()) -> Vocabulary:
    """Vocabulary of a rank file. It holds neither split nor specials: these take the ids left free, in order, or the
    id that "TEXT=ID" names; what such ids leave free above the ranks becomes special tokens "<|unused_ID|>".

    tiktoken joins any two neighbours whose joined bytes are a token. So every way of cutting a token into two others
    becomes a merge, in the order of the tokens: the ids are tiktoken's on any text, not only those of training.
    InputError for a token that these do not lead to: tiktoken still takes a piece that is one token whole.
    """
    ids: dict[bytes, int] = {}
    for number, line in enumerate(text.rstrip().splitlines(), 1):
        fields = line.split()
        try:
            encoded, rank = fields
            token = base64.b64decode(encoded, validate=True)
            rank = int(rank) if rank.isdecimal() else rank  # ValueError beyond 4,300 digits
        except (ValueError, binascii.Error):
            raise InputError(f"line {number}: {line[:60]!r} is not `base64 rank`") from None
        if token in ids:
            raise InputError(f"line {number}: {token!r} is there twice")
        ids[token] = _token_id(rank, f"line {number}: rank")
    specials = _special_ids(special_tokens, set(ids.values()))
    last = max(ids.values(), default=-1)
    total = len(ids) + sum(n <= last for n in specials.values())
    token_bytes: list[bytes | None] = [None] * max(total, *(n + 1 for n in specials.values()), 0)
    for token, n in ids.items():
        if n >= total:
            raise InputError(
                f"rank {n}, {token!r}: there are only {total} tokens: a line is missing, or --special_tokens must name"
                " the tokens of the free ids, which a rank file leaves out"
            )
        if token_bytes[n] is not None:
            raise InputError(f"rank {n}: given to two tokens, {token_bytes[n]!r} and {token!r}")
        token_bytes[n] = token
    for name, n in specials.items():
        token_bytes[n] = to_bytes(name)
    merges, merged_ids, sizes = [], [], set(map(len, ids))
    for token, n in sorted(ids.items(), key=lambda item: item[1]):
        size = len(token)
        firsts = range(1, size) if size < len(sizes) else sizes
        cuts = [i for i in firsts if i < size and size - i in sizes and token[:i] in ids and token[i:] in ids]
        splits = [(ids[token[:i]], ids[token[i:]]) for i in cuts]
        if len(token) > 1 and not splits:
            raise InputError(f"rank {n}, {token!r}: no two other tokens make it")
        merges += sorted(splits)
        merged_ids += [n] * len(splits)
    vocabulary = Vocabulary(token_bytes, merges, merged_ids, specials, pattern)
    _check_reachable(vocabulary)
    return vocabulary


def named_id(special_token: str) -> tuple[str, int | None]:
    """"<|end|>=300" -> ("<|end|>", 300); without an id ("<|end|>", None)."""
    match = re.fullmatch(r"(.+)=([0-9]+)", special_token, re.DOTALL)
    return (match[1], int(match[2][:9])) if match else (special_token, None)


def _special_ids(special_tokens: Sequence[str], ranks: set[int]) -> dict[str, int]:
    """Ids of the special tokens of a rank file, and of those that fill what is free between them and the ranks."""
    ids = dict(map(named_id, special_tokens))
    if len(ids) < len(special_tokens):
        raise InputError(f"special_tokens: {' '.join(special_tokens)}: one is there twice")
    named = [n for n in ids.values() if n is not None]
    for text, n in ids.items():
        if n in ranks or named.count(n) > 1:
            raise InputError(f"special_tokens: {text}={n}: another token has the id {n}")
        if n is not None and n >= MOST_TOKENS:
            raise InputError(f"special_tokens: {text}={n}: ids are below {MOST_TOKENS:,}")
    free = (n for n in range(MOST_TOKENS + len(ids)) if n not in ranks and n not in named)
    ids = {text: next(free) if n is None else n for text, n in ids.items()}
    taken = {*ranks, *ids.values()}
    unused = [n for n in range(max(ranks, default=-1) + 1, max(taken, default=0)) if n not in taken]
    return ids | {f"<|unused_{n}|>": n for n in unused}


# ---- the listing for people


def listing(vocabulary: Vocabulary) -> str:
    """One line a token, as in minbpe's .vocab: `[in][g] -> [ing] 278`, leaves `[a] 65`; the invisible is escaped."""
    shown = [visible(token[:READABLE]) + "…" * (len(token) > READABLE) for token in vocabulary.token_bytes]
    parts = {}
    for pair, n in zip(vocabulary.merges, vocabulary.merged_ids, strict=True):
        parts.setdefault(n, pair)
    lines = []
    for n, text in enumerate(shown):
        made_of = f"[{shown[parts[n][0]]}][{shown[parts[n][1]]}] -> " if n in parts else ""
        lines.append(f"{made_of}[{text}] {n}\n")
    return "".join(lines)


def visible(token: bytes) -> str:
    r"""A token on one line: control and unassigned characters as \u000a, bytes that are no UTF-8 as \xe5."""
    text = token.decode("utf-8", "backslashreplace")
    hidden = ("C", "Zl", "Zp")  # control, format, private, unassigned; line and paragraph separators
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c).startswith(hidden) else c for c in text)


# ---- checks


def _json_object(text: str) -> dict:
    """A JSON object without repeated keys; InputError with the place where it breaks off."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        result = dict(pairs)
        if len(result) < len(pairs):
            (repeated, _), = Counter(key for key, _ in pairs).most_common(1)
            raise InputError(f"the key {repeated!r} is there twice")
        return result

    try:
        document = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{place}: not JSON ({error.msg}); is the file cut off?") from None
    except InputError:
        raise
    except (ValueError, RecursionError):
        raise InputError("not a tokenizer: JSON nested too deeply, or a number of thousands of digits") from None
    if not isinstance(document, dict):
        raise InputError(f"not a JSON object but a {type(document).__name__}")
    return document


def _field(document: dict, name: str, kind: type, prefix: str = ""):
    """document[name], or InputError where it is missing or of another type."""
    if not isinstance(document.get(name), kind):
        problem = "missing" if name not in document else f"a {type(document[name]).__name__}, not a {kind.__name__}"
        raise InputError(f"{prefix}{name}: {problem}")
    return document[name]


def _token_id(n: object, field: str) -> int:
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise InputError(f"{field}: {n!r} is not an id")
    return n
