"""How a record asks and what answers it, and their token ids: the same words in training and when the model is asked.

    prompt, answer = prompt_and_answer(record, "seed", tokenizer)
    ids = tokenize_prompts([prompt], tokenizer, "seed")[0] + tokenize_answers([answer], tokenizer, "seed")[0]

A template lays out instruction and input; chats are laid out by the chat template that the model's tokenizer brings,
a program (Jinja) of its maker's. Prompt and answer are tokenised apart, since the model is asked with the prompt alone.
"""

import re
from functools import lru_cache

from finetune_settings import InputError

SCHEMAS = (("instruction", "output"), ("messages",), ("prompt", "completion"), ("text",))
MARK = "\ufdd0"  # a code point that no text has
SENTIMENT = (" negative", " positive")
SEED_INSTRUCTIONS = (
    "Give three tips for a good meal.",
    "Write a poem about a delicious night.",
    "Write a tweet describing your capabilities.",
    "Pretend you are an alien visiting Earth. Write three opinions you believe.",
)
ALPACA_HEAD = "Below is an instruction that describes a task"
ALPACA_TAIL = "Write a response that appropriately completes the request.\n\n### Instruction:\n"


def schema_of(record: dict) -> str | None:
    """The first key of the record's schema: "instruction", "messages", "prompt" or "text"; None if it has none."""
    return next((keys[0] for keys in SCHEMAS if keys[0] in record), None)


def asking_template(schema: str, template: str) -> str:
    """The template that asks records of a schema as in training: texts are taken as they are, and so are prompts with
    their completions, unless they become a chat, which messages are.
    """
    if schema == "messages":
        return "chat"
    return template if schema == "instruction" or (schema == "prompt" and template == "chat") else "raw"


def prompt_and_answer(record: dict, template: str, tokenizer) -> tuple[str, str]:
    """A record as (prompt, answer with its end token). An instruction that is only asked needs no output; the answer to
    a text is its label.
    """
    schema = schema_of(record)
    if schema == "messages":
        messages = up_to_last_answer(record["messages"])
        return render_chat(messages, tokenizer, "records with messages need a base whose template works")
    if schema == "text":
        if record.get("label") not in (0, 1):
            raise InputError(f"text_mode sentiment needs a label of 0 or 1, found {record.get('label')}")
        return sentiment_prompt(record["text"]), SENTIMENT[int(record["label"])] + tokenizer.eos_token
    if schema == "prompt":
        return render(asking_template(schema, template), record["prompt"], "", record["completion"], tokenizer)
    return render(template, record["instruction"], record.get("input", ""), record.get("output", ""), tokenizer)


def question(record: dict) -> str:
    """What a record asks, as a reader is shown it, without the words of a template."""
    schema = schema_of(record)
    if schema == "messages":
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in up_to_last_answer(record["messages"])[:-1])
    return f"{record['instruction']}\n{record.get('input', '')}".strip() if schema == "instruction" else record[schema]


def seed_prompt(instruction: str, extra: str) -> str:
    """The seed's one-line dialogue; the answer follows after a space."""
    return f"BEGINNING OF CONVERSATION: USER: {instruction}{' ' + extra if extra else ''} ASSISTANT:"


def alpaca_prompt(instruction: str, extra: str) -> str:
    """Stanford Alpaca's two prompts (tatsu-lab/stanford_alpaca, train.py), with and without an input."""
    if extra:
        return (
            f"{ALPACA_HEAD}, paired with an input that provides further context. {ALPACA_TAIL}{instruction}"
            f"\n\n### Input:\n{extra}\n\n### Response:"
        )
    return f"{ALPACA_HEAD}. {ALPACA_TAIL}{instruction}\n\n### Response:"


def sentiment_prompt(text: str) -> str:
    """A film review as a question that ` positive` or ` negative` answers."""
    return f"Review: {text.replace('<br />', ' ')}\nSentiment:"


def render(template: str, instruction: str, extra: str, answer: str, tokenizer) -> tuple[str, str]:
    """One instruction as (prompt, answer with its end token); generate with the prompt alone, from answer "".

    In a chat, special tokens that are part of its words are marked (as_words).

    >>> render("seed", "Add.", "1 2", "3", tokenizer)
    ('BEGINNING OF CONVERSATION: USER: Add. 1 2 ASSISTANT:', ' 3<|endoftext|>')
    """
    if extra.strip().lower() in ("<noinput>", "noinput"):  # Alpaca's words for none
        extra = ""
    if template == "seed":
        return seed_prompt(instruction, extra), f" {answer}{tokenizer.eos_token}"
    if template == "alpaca":
        return alpaca_prompt(instruction, extra), f"{answer}{tokenizer.eos_token}"
    if template == "plain":  # a third of the seed's tokens, where the vocabulary is small and has no capitals
        return f"{instruction}{' ' + extra if extra else ''}\n", f"{answer}{tokenizer.eos_token}"
    if template == "chat":
        question = {"role": "user", "content": f"{instruction}\n{extra}" if extra else instruction}
        return render_chat([question, {"role": "assistant", "content": answer}], tokenizer)
    if template == "raw":
        return f"{instruction}{' ' + extra if extra else ''}", f"{answer}{tokenizer.eos_token}"
    raise InputError(f"unknown template '{template}'; use seed, alpaca, plain, chat or raw")


def up_to_last_answer(messages: list[dict]) -> list[dict]:
    """The messages without those after the last of the assistant's."""
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    return messages[: last + 1]


def render_chat(messages: list[dict], tokenizer, advice="use --template seed or alpaca") -> tuple[str, str]:
    """A chat as (prompt, answer with its end token): the last message is the answer. InputError ends in the advice."""
    if not tokenizer.chat_template:
        raise InputError(f"this tokenizer has no chat template; {advice}")
    turns = [{"role": message["role"], "content": as_words(message["content"], tokenizer)} for message in messages]
    try:
        prompt = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception as error:  # a template is somebody's program, which may fail in any way
        raise InputError(f"the model's chat template fails: {error}; {advice}") from None
    if not whole.startswith(prompt):
        raise InputError(f"this chat template rewrites the question once it is answered; {advice}")
    return prompt, whole[len(prompt) :].rstrip("\n")


@lru_cache(maxsize=4)
def special_tokens(tokenizer) -> dict[str, int]:
    """Ids of the special tokens by their text: those that the tokenizer names (eos_token, ...), and those that are only
    marked as special in its file, like Llama 3's <|start_header_id|>.
    """
    marked = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return marked | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))


@lru_cache(maxsize=4)
def specials_in(tokenizer) -> re.Pattern:
    """Matches the tokenizer's special tokens, the longest where several begin alike."""
    names = sorted(filter(None, special_tokens(tokenizer)), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names)) or r"(?!)")


def as_words(text: str, tokenizer) -> str:
    """The text with every special token in it marked as mere words, for a chat template to put its own around them;
    tokenize_chat takes the marks out again.
    """
    return specials_in(tokenizer).sub(lambda found: found[0][0] + MARK + found[0][1:], text.replace(MARK, ""))


def tokenize(texts: list[str], tokenizer, start: bool, literal: bool = False) -> list[list[int]]:
    """Token ids of each text; `start` adds the token that the model expects at the beginning (BOS), if it has one.

    literal: the name of a special token is text like any other.
    """
    ids = tokenizer(texts, add_special_tokens=False, split_special_tokens=literal)["input_ids"] if texts else []
    bos = tokenizer.bos_token_id if start and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] else None
    return ids if bos is None else [[bos, *row] for row in ids]


def tokenize_chat(texts: list[str], tokenizer) -> list[list[int]]:
    """Token ids of rendered chats: special tokens that the template wrote are such, marked ones are words."""
    rows = tokenize(texts, tokenizer, start=False)
    special = specials_in(tokenizer)
    for number, text in enumerate(texts):
        if MARK in text:
            names = [*special.findall(text), None]
            words = [part.replace(MARK, "") for part in special.split(text)]
            parts = zip(tokenize(words, tokenizer, start=False, literal=True), names, strict=True)
            rows[number] = [i for ids, name in parts
                            for i in (ids if name is None else [*ids, special_tokens(tokenizer)[name]])]
    return rows


def tokenize_prompts(prompts: list[str], tokenizer, template: str) -> list[list[int]]:
    """Token ids of rendered prompts. Special tokens are read as such only where the template writes them, or the user
    the whole prompt: who asks what <|endoftext|> means does not end it.
    """
    if template == "chat":
        return tokenize_chat(prompts, tokenizer)
    return tokenize(prompts, tokenizer, start=True, literal=template != "raw")


def tokenize_answers(answers: list[str], tokenizer, template: str) -> list[list[int]]:
    """Token ids of answers, each with the end token; a chat template may have closed them with one of its own."""
    words, chat = [answer.removesuffix(tokenizer.eos_token) for answer in answers], template == "chat"
    if chat:
        rows = tokenize_chat(words, tokenizer)
    else:
        rows = tokenize(words, tokenizer, start=False, literal=template != "raw")
    for row in rows:
        if not (chat and row and row[-1] in special_tokens(tokenizer).values()):
            row.append(tokenizer.eos_token_id)
    return rows


def last_tokens(ids: list[int], count: int, bos: int | None) -> list[int]:
    """The last `count` >= 1 ids; a BOS at the beginning, which the model expects there, stays if there is room.

    >>> last_tokens([1, 7, 8, 9], 3, bos=1)
    [1, 8, 9]
    """
    if len(ids) <= count or count < 2 or bos is None or ids[0] != bos:
        return ids[-count:]
    return [bos, *ids[1 - count :]]
