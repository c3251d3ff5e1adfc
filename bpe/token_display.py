"""Tokens that one can look at: coloured in a terminal, and as a self-contained HTML page, tokenizers side by side."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from formats import visible
from vocabulary import Vocabulary

# Backgrounds for neighbouring tokens, readable under black text: (256-colour terminal index, HTML)
COLOURS = [(223, "#ffe0b0"), (194, "#d3f2c8"), (189, "#d6dcff"), (224, "#ffd7d5"), (159, "#c4eef5"), (225, "#f5d5f5")]


@dataclass(frozen=True)
class Tokenized:
    """One text under one tokenizer."""

    tokenizer: str  # its name, as the user gave it
    vocabulary: Vocabulary
    text: bytes
    ids: Sequence[int]

    @property
    def bytes_per_token(self) -> float:
        """Compression: UTF-8 bytes of the text over number of tokens."""
        return len(self.text) / max(1, len(self.ids))

    def tokens(self) -> list[str]:
        r"""Each token as one line of text; bytes that are part of a character as \xe5."""
        return [visible(self.vocabulary.token_bytes[n]) for n in self.ids]


def terminal(tokenized: Tokenized, colour: bool) -> str:
    """Tokens on alternating backgrounds, or with a bar between them where there is no colour."""
    shown = []
    for n, text in enumerate(tokenized.tokens()):
        breaks = text.count(r"\u000a")
        text = _with_signs(text)
        if colour:
            text = f"\x1b[30;48;5;{COLOURS[n % len(COLOURS)][0]}m{text}\x1b[0m" + "\n" * (breaks > 0)
        shown.append(text)
    return ("" if colour else "|").join(shown)


def _with_signs(text: str) -> str:
    """Signs for the two commonest invisible characters, newline and tab."""
    return text.replace(r"\u000a", "↵").replace(r"\u0009", "⇥")


def table(results: Sequence[Tokenized]) -> str:
    """Markdown: bytes, characters, tokens and bytes per token of each tokenizer on one text."""
    rows = [("tokenizer", "vocabulary", "bytes", "characters", "tokens", "bytes per token")]
    for result in results:
        characters = len(result.text.decode("utf-8", "replace"))
        numbers = (len(result.vocabulary), len(result.text), characters, len(result.ids))
        rows.append((result.tokenizer, *(f"{number:,}" for number in numbers), f"{result.bytes_per_token:.2f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *numbers in rows:
        aligned = [name.ljust(widths[0]), *(number.rjust(w) for number, w in zip(numbers, widths[1:], strict=True))]
        lines.append(f"| {' | '.join(aligned)} |")
    rule = "|" + "|".join("-" * (w + 1) + ("-" if n == 0 else ":") for n, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def page(texts: dict[str, Sequence[Tokenized]]) -> str:
    """HTML page without any outside file: for each text one column a tokenizer; ids show on hover, or all at once."""
    sections = []
    for name, results in texts.items():
        most = max(len(result.ids) for result in results)
        text = results[0].text
        cards = "".join(_card(result, most) for result in results)
        size = f"{len(text):,} bytes, {len(text.decode('utf-8', 'replace')):,} characters"
        heading = f"<h2>{html.escape(name)} <small>{size}</small></h2>"
        sections.append(f"<section>{heading}<div class=grid>{cards}</div></section>")
    return PAGE.replace("/*COLOURS*/", _colour_rules()).replace("<!--SECTIONS-->", "\n".join(sections))


def _colour_rules() -> str:
    return "".join(f".t{n}{{background:{colour}}}" for n, (_, colour) in enumerate(COLOURS))


def _card(result: Tokenized, most: int) -> str:
    special_ids = set(result.vocabulary.special_tokens.values())
    spans, offset = [], 0
    for position, n in enumerate(result.ids):
        token = result.vocabulary.token_bytes[n]
        colour = "s" if n in special_ids else f"t{position % len(COLOURS)}"
        hover = f"id {n} · {len(token)} byte{'s' * (len(token) > 1)} · {token.hex(' ')}"
        try:
            token.decode("utf-8")
            shown, partial = visible(token), ""
        except UnicodeDecodeError:
            shown, partial = token.hex(" "), " h"
            hover += f" · part of {visible(_characters(result.text, offset, offset + len(token)))}"
        offset += len(token)
        shown = html.escape(_with_signs(shown)).replace("↵", "↵\n")
        hover = html.escape(hover)
        spans.append(f'<span class="t {colour}{partial}" data-id="{n}" title="{hover}">{shown}</span>')
    width = 100 * len(result.ids) / max(1, most)
    return (
        f"<article><h3>{html.escape(result.tokenizer)}</h3>"
        f"<p class=n><b>{len(result.ids):,}</b> tokens · {result.bytes_per_token:.2f} bytes per token · "
        f"vocabulary {len(result.vocabulary):,}</p><div class=bar><i style=width:{width:.1f}%></i></div>"
        f"<p class=text>{''.join(spans)}</p></article>"
    )


def _characters(text: bytes, start: int, end: int) -> bytes:
    """The bytes of the characters that the bytes [start, end) belong to."""
    while start > 0 and text[start] & 0xC0 == 0x80:
        start -= 1
    while end < len(text) and text[end] & 0xC0 == 0x80:
        end += 1
    return text[start:end]


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Tokens side by side</title>
<style>
:root { --back: #f4f3ef; --card: #fff; --ink: #222; --faint: #777; --line: #ddd }
@media (prefers-color-scheme: dark) {
  :root { --back: #1c1c1e; --card: #2a2a2d; --ink: #eee; --faint: #999; --line: #444 } }
body { margin: 0 auto; max-width: 1500px; padding: 24px; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 24px; margin: 0 0 4px } h2 { font-size: 18px; margin: 28px 0 8px } h3 { font-size: 15px; margin: 0 }
small, .n, header { color: var(--faint); font-weight: normal; font-size: 13px } .n { margin: 2px 0 6px }
.n b { color: var(--ink); font-size: 17px }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 14px; align-items: start }
article { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; min-width: 0 }
.bar { background: var(--line); height: 5px; border-radius: 3px }
.bar i { display: block; height: 5px; border-radius: 3px; background: #5b8def }
.text { font: 15px/1.9 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; color: #111;
  margin: 10px 0 0; max-height: 70vh; overflow: auto }
.t { position: relative; border-radius: 3px; padding: 2px 0; cursor: default } /*COLOURS*/
.s { background: #333; color: #fff } .h { font-size: 10px; padding: 4px 2px; color: #555 }
.t:hover, .t.same { outline: 2px solid #d33; z-index: 1 }
#ids:checked ~ main .t::after { content: attr(data-id); font: 9px/1 system-ui; color: #555; vertical-align: sub;
  margin: 0 3px 0 1px }
#ids:checked ~ main .s::after { color: #ccc }
</style></head><body>
<h1>Tokens side by side</h1>
<header>Every coloured box is one token. Hover for its id and bytes; the same id is outlined wherever it occurs. Small
grey hexadecimal: bytes that are only part of a character. ↵ is a newline, black a special token.</header>
<input type="checkbox" id="ids"> <label for="ids">show all ids</label>
<main>
<!--SECTIONS-->
</main>
<script>
document.querySelectorAll("article").forEach(card => {
  const mark = (event, on) => {
    const id = event.target.dataset && event.target.dataset.id;
    if (id) card.querySelectorAll(`[data-id="${id}"]`).forEach(token => token.classList.toggle("same", on));
  };
  card.addEventListener("mouseover", event => mark(event, true));
  card.addEventListener("mouseout", event => mark(event, false));
});
</script>
</body></html>
"""
