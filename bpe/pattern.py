r"""A user's pattern, made such that `regex` here and Oniguruma, the engine inside `tokenizers`, read it alike.

Known splits get their name.

    >>> portable(r" ?\p{L}{1,8}+|\s")
    ' ?(?>\\p{L}{1,8})|\\s'
"""

import re

from formats import NAMED_REGEXES
from split import PATTERN_OF, compile_pattern
from vocabulary import PATTERNS, InputError

# GPT-2's and GPT-4's as tiktoken spells them, and as our files do: they have scanners, a hundred times faster
NAMES = NAMED_REGEXES | {regex: name for name, regex in PATTERN_OF.items()}

ATOM = r"""\\(?:[pPN]\{[^}]*\}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|\d+|.)  # an escape
    |\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]                                              # a set
    |."""
POSSESSIVE = re.compile(rf"(?P<atom>{ATOM})(?P<times>\{{(?:\d+,?\d*|,\d+)\}}\+)?", re.DOTALL | re.VERBOSE)


def portable(pattern: str | None) -> str | None:
    """The name of a known split, else an expression that means the same to `regex` and Oniguruma; None as it is.

    `x{1,3}+` is possessive for `regex` and tiktoken, but to Oniguruma it is `x{1,3}` again and again.
    InputError where no such expression is easily made, and for what is no regular expression.
    """
    if pattern is None or pattern in PATTERNS:
        return pattern
    if pattern in NAMES:
        return NAMES[pattern]
    if re.fullmatch(r"[\w-]+", pattern):
        raise InputError(f"pattern: {pattern!r} is none of gpt2, gpt4 and none, and no expression that cuts text")
    compile_pattern(pattern)

    def rewritten(match: re.Match) -> str:
        atom, times = match["atom"], match["times"]
        if atom == "(" and re.match(r"\?\w*V1", pattern[match.end() :]):
            raise InputError(f"pattern: {pattern!r}: (?V1) means nothing to Hugging Face's tokenizers; leave it out")
        if not times:
            return match[0]
        if atom == ")":
            raise InputError(f"pattern: {pattern!r}: write the group before {times} as (?>(...){times[:-1]})")
        return f"(?>{atom}{times[:-1]})"

    return POSSESSIVE.sub(rewritten, pattern)
