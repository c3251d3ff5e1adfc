r"""A user's pattern, made such that `regex` here and Oniguruma, the engine inside `tokenizers`, read it alike.

Known splits get their name.

    >>> portable(r" ?\p{L}{1,8}+|\s")
    ' ?(?>\\p{L}{1,8})|\\s'
"""

import re

import regex
from split import PATTERN_OF, compile_pattern
from vocabulary import PATTERNS, InputError

# The splits as a file spells them out. GPT-4's is rewritten for Oniguruma, the regex engine inside `tokenizers`, where
# `{1,3}+` is no possessive quantifier but a repetition, and `$` also matches before a newline. Same pieces as tiktoken.
GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4_REGEX = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s+(?![\s\S])|\s*[\r\n]|\s+(?!\S)|\s"
)
NAMED_REGEXES = {GPT2_REGEX: "gpt2", GPT4_REGEX: "gpt4"}

# GPT-2's and GPT-4's as tiktoken spells them, and as our files do: they have scanners, a hundred times faster
NAMES = NAMED_REGEXES | {expression: name for name, expression in PATTERN_OF.items()}

ATOM = r"""\\(?:[pPN]\{[^}]*\}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|\d+|.)  # an escape
    |\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]                                              # a set
    |."""
REPEATED = re.compile(rf"(?P<atom>{ATOM})(?P<times>\{{(?:\d+,?\d*|,\d+)\}}[+?]?)?", re.DOTALL | re.VERBOSE)
IN_SET = re.compile(r"\\(?:[pP]\{[^}]*\}|x[0-9a-fA-F]{2}|.)|\[:\^?\w+:\]|&&|.", re.DOTALL)
FLAGS = re.compile(r"\?([\w-]+)[:)]")
FUZZY = re.compile(r"\{\s*(?:\d+\s*<=?\s*)?(?:[dise]|\d+[dis])\s*[<+,:}][^}]*\}?")  # `{e<=1}`: with one error or none
GROUP = re.compile(r"\?(?![:>]|<?[=!]|<\w|[\w-]+[:)])")  # what only one of them knows: (?P<name>...), (?|...), (?&name)
# Without regard to case: letters of more than two forms, or whose other form only one of them knows
FOLDS = re.compile(r"[iI]|[^\x00-\x7f]|\\[pPN]|\w-\w")
LIGATURES = {"ss", "st", "ff", "fl"}  # which one letter is to Oniguruma, as ß is ss (those with i are in FOLDS)
# Properties that both know under the same name
ALIKE = re.compile(r"\\[pP]\{\^?(?!(?i:word|xdigit|is\w+|in(?!herited|scriptional)\w+)\})[\w ]+\}")

# What Oniguruma reads otherwise than `regex`, and what both read alike
BOUNDARY, END = r"a look-around such as (?<!\p{L})(?=\p{L})", r"(?![\s\S])"
INSTEAD = {
    r"\w": r"[\p{L}\p{M}\p{N}_]", r"\W": r"[^\p{L}\p{M}\p{N}_]", r"\h": r"[\t\p{Zs}]", r"\H": r"[^\t\p{Zs}]",
    r"\b": BOUNDARY, r"\B": BOUNDARY, r"\m": BOUNDARY, r"\M": BOUNDARY, r"\X": r"\P{M}\p{M}*", r"\Z": END,
    r"\N": r"[^\n]", r"\U": "the character itself", r"\g": "the group itself",
} | dict.fromkeys(("[:word:]", "[:alnum:]", "[:digit:]", "[:punct:]"), r"categories such as \p{L}\p{Nd}")  # fmt: skip
IN_TEXT = INSTEAD | {"^": r"\A", "$": END}
IN_SETS = INSTEAD | {"&&": "a look-ahead such as (?![aeiou])[a-z], or &", "[": r"\[, or one set without another in it"}


def check_flag(pattern: str | None, source: str, own: str) -> None:
    """InputError where --pattern asks the tokenizer `source`, which splits by its `own` pattern, for another."""
    if pattern and portable(pattern) != own:
        raise InputError(f"--pattern {pattern!r}: {source} splits by {own!r}")


def portable(pattern: str | None) -> str | None:
    """The name of a known split, else an expression that means the same to `regex` and Oniguruma; None as it is.

    `x{1,3}+` is possessive for `regex` and tiktoken, but to Oniguruma it is `x{1,3}` again and again.
    InputError where no such expression is easily made, and for what is no regular expression.
    """
    if pattern is None or pattern in PATTERNS:
        return pattern
    if pattern in NAMES:
        return NAMES[pattern]
    compile_pattern(pattern)

    def rewritten(match: re.Match) -> str:
        atom, times = match["atom"], match["times"]
        if not times or not times.endswith("+"):
            return match[0]
        if atom == ")":
            raise InputError(f"pattern: {pattern!r}: write the group before {times} as (?>(...){times[:-1]})")
        return f"(?>{atom}{times[:-1]})"

    pattern = REPEATED.sub(rewritten, pattern)
    check(pattern)
    return pattern


def check(pattern: str) -> None:
    """InputError, with what to write instead, for the first thing that Oniguruma reads otherwise than `regex`."""
    compiled = compile_pattern(pattern)
    if compiled and compiled.fullmatch(""):
        raise InputError(
            f"pattern: {pattern!r}: may match nothing, and Hugging Face's tokenizers cut there, but we do not; write"
            " + for a *, or leave the ? or the empty alternative out"
        )
    for match in REPEATED.finditer(pattern):
        atom, times = match["atom"], match["times"] or ""
        fuzzy = FUZZY.match(pattern, match.start()) if atom == "{" else None
        if fuzzy:
            _refuse(pattern, fuzzy[0], r"\{ for the character, and name every spelling otherwise")
        flags = FLAGS.match(pattern, match.end()) if atom == "(" else None
        if atom == "(" and GROUP.match(pattern, match.end()):
            _refuse(pattern, pattern[match.start() : match.end() + 2], "(?:...) for a group")
        if flags and set(flags[1]) - set("ix-"):
            _refuse(pattern, f"(?{flags[1]}", r"it without; [\s\S] is any character")
        is_set = atom[0] == "[" and len(atom) > 1
        instead = IN_SETS if is_set else IN_TEXT
        for part in IN_SET.findall(atom[1:-1].removeprefix("^")) if is_set else [atom]:
            if part[:2] == r"\x" and int(part[2:], 16) > 0x7F:
                _refuse(pattern, part, "the character itself")
            if part[:2] in (r"\p", r"\P") and not ALIKE.fullmatch(part):
                _refuse(pattern, part, r"\p{...} with the name of a category or script: \p{Lu}, \p{Greek}")
            key = part[:2] if part[0] == "\\" else part.replace("[:^", "[:")
            if key in instead:
                _refuse(pattern, part, instead[key])
        if times.endswith("+"):
            _refuse(pattern, times, f"(?:...){times} to repeat it, (?>...{times[:-1]}) to be possessive")
        if re.fullmatch(r"\{\d+\}\?", times):
            _refuse(pattern, times, times[:-1])
    check_folding(pattern)


def matches_everything(pattern: str) -> bool:
    """Whether a pattern surely leaves out no character of any text: each is matched by itself, whatever is around.

    Possessive and atomic parts may take what a match needs, so of them nothing is sure.
    """
    def unsure(match: re.Match) -> str:
        looks = match["atom"] in ("^", "$", r"\A", r"\G") or re.match(r"\(\?<?[=!]", pattern[match.start() :])
        return f"(?!){match[0]}" if looks else match[0]

    compile_pattern(pattern)
    if re.search(r"[?*+]\+|\(\?>", pattern) or any((m["times"] or "")[-1:] == "+" for m in REPEATED.finditer(pattern)):
        return False
    alone = regex.compile(REPEATED.sub(unsure, pattern))
    return all(map(alone.fullmatch, map(chr, range(0x110000))))


def check_folding(pattern: str) -> None:
    """InputError where (?i:...) holds letters whose other forms `regex` and Oniguruma do not agree on."""
    folding, text_from, letters = [False], 0, set()  # of each open group; the end of its flags; of the atom before
    for match in REPEATED.finditer(pattern):
        atom, times = match["atom"], match["times"]
        if atom == "(":
            flags = FLAGS.match(pattern, match.end())
            on, _, off = flags[1].partition("-") if flags else ("", "", "")
            inside = ("i" in on or folding[-1]) and "i" not in off
            if flags and flags[0].endswith(")"):  # (?i), for the rest of the group that it stands in
                folding[-1] = inside
            folding.append(inside)
            text_from = flags.end() if flags else text_from
        elif atom == ")" and len(folding) > 1:
            folding.pop()
        elif folding[-1] and match.start() >= text_from:
            before, letters = letters, set(re.findall("[a-z]", atom.lower())) if atom[0] != "\\" else set()
            if atom in "+*" or times:
                letters = letters or before
                before = before | letters
            if FOLDS.search(atom) or LIGATURES & {a + b for a in before for b in letters}:
                _refuse(pattern, f"{atom} within (?i...)", "both cases, like [iI]")


def _refuse(pattern: str, part: str, instead: str) -> None:
    raise InputError(f"pattern: {pattern!r}: {part} means something else to Hugging Face's tokenizers; write {instead}")
