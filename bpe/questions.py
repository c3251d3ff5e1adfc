"""Questions that a course asks about tokenization and Unicode, each with an answer and evidence computed here.

python bpe/questions.py            (seconds; needs no network)
"""
# ruff: noqa: D400 (the first line of a docstring is the question, the rest is the answer)

import inspect
import json
import sys
from pathlib import Path

import tokenizer_folder
from command_compare import SAMPLE
from run import orderly
from text_files import END_OF_TEXT
from token_display import Tokenized
from vocabulary import InputError

SENTENCES = {  # one meaning, six languages
    "English": "The weather is very nice today, let us walk in the park.",
    "German": "Das Wetter ist heute sehr schön, gehen wir im Park spazieren.",
    "Chinese": "今天天气很好，我们去公园散步吧。",
    "Japanese": "今日はとても天気がいいので、公園を散歩しましょう。",
    "Korean": "오늘 날씨가 아주 좋으니 공원에서 산책합시다.",
    "Hindi": "आज मौसम बहुत अच्छा है, चलो पार्क में टहलते हैं।",
}
CODE = '''class Counter:
    def __init__(self):
        self.total = 0

    def add(self, values):
        for value in values:
            if value > 0:
                self.total += value
        return self.total
'''
RECORD = {
    "name": "Mei",
    "age": 17,
    "languages": ["Chinese", "English"],
    "address": {"city": "Beijing", "zip": "100871"},
}
RECORD_YAML = """name: Mei
age: 17
languages:
  - Chinese
  - English
address:
  city: Beijing
  zip: "100871"
"""


class Evidence:
    """GPT-2's tokenizer and small ones trained here."""

    def __init__(self):
        import fast
        from encoder import Tokenizer

        self.gpt2 = Tokenizer(tokenizer_folder.load("gpt2"))
        text = (SAMPLE / "text.txt").read_text(encoding="utf-8")
        self.ours = Tokenizer(fast.train([text], 1024, texts=True))
        self.code = Tokenizer(fast.train([CODE], 400, pattern="gpt4", texts=True))

    def tokens(self, text: str, tokenizer=None) -> list[str]:
        """The tokens of a text, readable; special tokens count as text."""
        tokenizer = tokenizer or self.gpt2
        ids = tokenizer.encode(text, disallowed_special=())
        return Tokenized("", tokenizer.vocabulary, text.encode(), ids).tokens()


def code_points(e: Evidence):
    """Which functions turn a character into its code point and back?

    `ord` and `chr`. A code point is a number of the Unicode standard; how it becomes bytes is the encoding's affair.
    """
    yield f"ord('北'), ord('大') = {ord('北')}, {ord('大')}"
    yield f"chr of 22823, 27169, 22411 = {''.join(map(chr, (22823, 27169, 22411)))}"


def vocabulary_size(e: Evidence):
    """What speaks for a large vocabulary, what for a small one?

    Large: fewer tokens for a text, so more of it fits a context and each step of a model covers more. Small: fewer
    rows in the embedding and the output layer, each of them seen often enough to be learned, a cheaper softmax.
    Compression grows ever more slowly with size (the figure of `python bpe/run.py`), the matrices grow in proportion.
    """
    for tokenizer, name in ((e.ours, "ours"), (e.gpt2, "gpt2")):
        size, text = len(tokenizer.vocabulary), SENTENCES["English"]
        ratio = len(text) / len(tokenizer.encode(text))
        yield f"{name}: {size:,} tokens, {ratio:.2f} bytes per token, {size * 768:,} weights in an embedding 768 wide"


def reversing(e: Evidence):
    """Why can a language model hardly reverse a string?

    It sees ids, not letters: which letters are in a token it must have learned by heart. Reversed, the word falls
    into other tokens, which share no id with the first ones. With spaces between the letters it becomes easy.
    """
    for text in ("lollipop", "lollipop"[::-1], "l o l l i p o p"):
        yield f"{text}: {' | '.join(e.tokens(text))}"


def other_languages(e: Evidence):
    """Why are models worse in languages other than English?

    Less text to learn from; and the tokenizer, trained on mostly English, cuts other scripts into single bytes: the
    same meaning costs several times the tokens, so context is shorter and every answer dearer.
    """
    for language, text in SENTENCES.items():
        count = len(e.gpt2.encode(text))
        yield f"{language}: {len(text)} characters, {len(text.encode())} bytes, {count} tokens of GPT-2"
    tokenizer, text = e.ours, SENTENCES["Chinese"]
    yield f"Chinese by our 1,024 tokens, half trained on Chinese: {len(tokenizer.encode(text))} tokens"


def arithmetic(e: Evidence):
    """Why is simple arithmetic hard?

    Digits are joined by how often they stood together in text, not by place value: one number is one token, its
    neighbour two, cut anywhere. Column by column the digits of two summands do not meet. GPT-4's split allows at
    most three digits in a token, from the left.
    """
    for text in ("127+677=804", "1275+6773=8048", "12756+67735=80491"):
        yield f"{text}: {' | '.join(e.tokens(text))}"
    single = set(e.gpt2.vocabulary.token_bytes)
    for digits in (2, 3, 4):
        numbers = range(10 ** (digits - 1), 10**digits)
        count = sum(str(number).encode() in single for number in numbers)
        yield f"of the {len(numbers):,} numbers of {digits} digits, {count:,} are one token of GPT-2"


def indentation(e: Evidence):
    """Why was GPT-2 worse at Python than expected?

    Every space of an indent but the last is a token of its own (its split joins only the last one to the next word),
    so that code fills the context with blanks. GPT-4's split keeps a run of spaces together and learns them as one.
    """
    for name, tokenizer in (("gpt2", e.gpt2), ("a tokenizer with GPT-4's split, trained on this code", e.code)):
        tokens = e.tokens(CODE, tokenizer)
        blank = sum(not token.strip() for token in tokens)
        yield f"{name}: {len(tokens)} tokens, {blank} of them nothing but spaces"


def end_of_text(e: Evidence):
    """Why does a model stop at the string `<|endoftext|>`?

    The text is only 13 characters; the trouble begins when an application encodes a user's text with special tokens
    allowed, for then it becomes the one id that ends a document. So special tokens in text are an error here unless
    allowed, as in tiktoken, and `--ordinary` encodes them as plain text.
    """
    text = f"a{END_OF_TEXT}b"
    yield f"allowed: {e.gpt2.encode(text, allowed_special='all')}"
    yield f"as text: {e.gpt2.encode(text, disallowed_special=())} = {' | '.join(e.tokens(text))}"
    try:
        e.gpt2.encode(text)
    except InputError as error:
        yield f"by default: error: {error}"


def magikarp(e: Evidence):
    """Why did models break on " SolidGoldMagikarp"?

    A user name so frequent in the tokenizer's text that it became one token, and so absent from the model's text that
    its embedding was never trained: it stayed near its random start, and whatever the model did with it was noise.
    Tokenizer and model should learn from the same data; tokens that the data never uses can be found by counting.
    """
    text = " SolidGoldMagikarp"
    yield f"{text!r}: ids {e.gpt2.encode(text)}; {text.lower()!r}: {' | '.join(e.tokens(text.lower()))}"
    longest = sorted(e.gpt2.vocabulary.token_bytes, key=len)[-400:]
    names = [token.decode("utf-8", "replace") for token in longest if token.isascii() and token.strip().isalpha()][-3:]
    yield f"the longest tokens made of letters: {', '.join(map(repr, names))}"


def yaml_or_json(e: Evidence):
    """Why is YAML preferable to JSON for a language model?

    Fewer tokens than JSON as it is usually written, with indents, braces and quotation marks, each of which costs a
    token or splits a word from its space. But it depends on the tokenizer: under GPT-2's the indents of YAML cost so
    much that JSON without any blanks is the shortest of the three. Count before you choose.
    """
    forms = {
        "JSON, indented": json.dumps(RECORD, indent=4),
        "JSON, dense": json.dumps(RECORD, separators=(",", ":")),
        "YAML": RECORD_YAML,
    }
    for name, text in forms.items():
        yield f"{name}: {len(text)} bytes, {len(e.gpt2.encode(text))} tokens"


def end_to_end(e: Evidence):
    """Why is a language model with a tokenizer not end to end?

    The tokenizer is trained before, on another objective (frequency), and no gradient of the model reaches it: what it
    cut badly, the model can only work around. The same word is other ids with another case or another space before it.
    """
    for text in ("egg", " egg", "Egg", " Egg", "EGG"):
        yield f"{text!r}: {e.gpt2.encode(text)}"


def null_character(e: Evidence):
    r"""What is chr(0), and how do its repr and its print differ?

    U+0000, NUL. `repr` escapes it, `print` writes the byte itself, which terminals show as nothing. In text it is an
    ordinary character, also for this tokenizer.
    """
    yield f"repr(chr(0)) = {chr(0)!r}"
    text = f"this is{chr(0)}a test"
    yield f"decode(encode({text!r})) is the same: {e.gpt2.decode(e.gpt2.encode(text)) == text}"


def encodings(e: Evidence):
    """Why train on UTF-8 and not on UTF-16 or UTF-32?

    It is the shortest for most text on the web, leaves ASCII as it is, and has no zero bytes and no byte order. In
    UTF-32 three bytes of four are nearly always zero: the first thousand merges would only put characters together.
    """
    for language in ("English", "Chinese"):
        text = SENTENCES[language]
        sizes = {name: len(text.encode(name)) for name in ("utf-8", "utf-16-le", "utf-32-le")}
        zeros = {name: text.encode(name).count(0) for name in sizes}
        yield f"{language}: " + ", ".join(f"{name} {size} bytes ({zeros[name]} zero)" for name, size in sizes.items())


def byte_by_byte(e: Evidence):
    """What is wrong with decoding UTF-8 byte by byte?

    A byte of a longer character is no character: only ASCII survives. Decode the bytes of all tokens together, or keep
    the incomplete end back, as StreamingDecoder does.
    """
    data = "牛".encode()
    yield f"'牛' is {data!r}; its first byte alone: {data[:1].decode('utf-8', 'replace')!r}"


def invalid_pairs(e: Evidence):
    """Which two bytes are no character?

    Every pair but two ASCII bytes, or a leading byte C2 to DF with a following byte 80 to BF. For instance C0 80,
    which would be NUL written longer than it need be, and 80 80, two following bytes without a leading one.
    """
    valid = 0
    for number in range(1 << 16):
        try:
            number.to_bytes(2, "big").decode("utf-8")
            valid += 1
        except UnicodeDecodeError:
            pass
    yield f"of 65,536 pairs {valid:,} are valid, 128 x 128 + 30 x 64 = {128 * 128 + 30 * 64:,}"


QUESTIONS = (
    code_points, vocabulary_size, reversing, other_languages, arithmetic, indentation, end_of_text, magikarp,
    yaml_or_json, end_to_end, null_character, encodings, byte_by_byte, invalid_pairs,
)  # fmt: skip


def main() -> None:
    """Print every question with its answer and evidence, as Markdown."""
    if len(sys.argv) > 1:
        print(f"usage: python {Path(sys.argv[0]).name}\n\n{__doc__}")
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 2)
    evidence = Evidence()
    for number, question in enumerate(QUESTIONS, 1):
        title, _, answer = inspect.getdoc(question).partition("\n\n")
        print(f"### {number}. {title}\n\n{answer}\n\n```")
        for line in question(evidence):
            print(line)
        print("```\n")


if __name__ == "__main__":
    with orderly():
        main()
