"""The models that answer the same prompts: a base, fully fine-tuned ones, and adapters that are switched on the base.

    panel = Panel(settings)                                                          # generate.py's
    replies = panel.answer([{"instruction": "Add."}], temperature=0.7, seed=42)      # {model: [reply]}

Each model is asked in the template that it was trained with, as its folder says, by the same code as in training.
"""

import sys
from contextlib import closing
from pathlib import Path

import torch
from adapter_files import CONFIG, load_adapter
from adapters import base_sha256, check_base, install_adapter
from decoding import PromptTooLongError, complete, end_tokens
from finetune_model import choose_device, choose_dtype, load_base, load_tokenizer
from finetune_output import load_template
from finetune_settings import ROOT, InputError
from prompts import asking_template, last_tokens, prompt_and_answer, render, schema_of, tokenize_prompts

from lora import convert_lora_to_linear_layer, merge_lora, unmerge_lora


class Panel:
    """The models that answer. `names` are theirs: base, then what `labels` says of the others."""

    def __init__(self, settings):
        self.settings = settings
        names = labels(settings.full, settings.adapters)
        adapters = [adapter_folder(folder) for folder in settings.adapters]
        device = choose_device(settings.device)
        dtype = choose_dtype("fp32" if settings.dtype == "auto" and device.type == "cpu" else settings.dtype, device)
        self.merge = dtype == torch.float32  # bf16 would round the adapter's update away; then it stays a branch
        self.load = lambda name: load_base(name, dtype, device, settings.trust_remote_code).eval()
        self.tokenizer = load_tokenizer(settings.base, settings.trust_remote_code)
        for folder in settings.full:
            check_vocabulary(folder, settings, self.tokenizer)
        self.base = self.load(settings.base)
        count = len(settings.full)
        self.full = dict(zip(names[:count], settings.full, strict=True))
        self.adapters = {name: load_adapter(folder, self.base)
                         for name, folder in zip(names[count:], adapters, strict=True)}
        self.base_hash = base_sha256(self.base) if self.adapters else ""  # once: it takes a while
        for adapter in self.adapters.values():  # now, not when the models before it have answered
            check_base(self.base, adapter, self.base_hash)
        self.names = ["base", *names]
        folders = (settings.base, *settings.full, *adapters)
        unknown = "chat" if can_chat(self.tokenizer) else "seed"
        self.templates = choose_templates(settings.template, dict(zip(self.names, folders, strict=True)), unknown)

    def models(self):
        """Yields (name, model), one after another; an adapter is on the base until the next model is asked for.

        A full model is loaded when its turn comes; one alone is kept.
        """
        yield "base", self.base
        for name, folder in self.full.items():
            model = self.load(folder) if isinstance(folder, str) else folder
            if len(self.full) == 1:
                self.full[name] = model
            yield name, model
        for name, adapter in self.adapters.items():
            install_adapter(self.base, adapter, self.base_hash)
            try:
                yield name, merge_lora(self.base) if self.merge else self.base
            finally:  # also when a prompt was refused: the next one finds the plain base
                convert_lora_to_linear_layer(unmerge_lora(self.base))

    def prompt_ids(self, record, template):
        """Token ids of a record as the model was asked in training."""
        template = asking_template(schema_of(record), template)
        text, _ = prompt_and_answer(record, template, self.tokenizer)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the prompt is not UTF-8 at character {error.start + 1}") from None
        (ids,) = tokenize_prompts([text], self.tokenizer, template)
        if not ids:
            raise InputError("its prompt is empty; give it some text")
        return last_tokens(ids, self.settings.max_length or len(ids), self.tokenizer.bos_token_id)

    def answer(self, records, temperature, seed, progress=False):
        """{model: replies to the records}."""
        s, replies, schemas = self.settings, {}, {schema_of(record) for record in records}
        with closing(self.models()) as models:
            for name, model in models:
                template, prompts = self.templates[name], []
                ends = {end for schema in schemas
                        for end in end_tokens(self.base, self.tokenizer, asking_template(schema, template))}
                for number, record in enumerate(records, 1):
                    try:
                        prompts.append(self.prompt_ids(record, template))
                    except InputError as error:
                        raise InputError(f"record {number}: {error}") from None
                try:
                    ids = complete(model, prompts, ends, s.max_new_tokens, temperature, s.top_p, seed,
                                   s.batch_size, label=name if progress else None)
                except PromptTooLongError as error:
                    raise InputError(f"record {error.index + 1}, model {name}: {error}") from None
                replies[name] = [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return replies


def adapter_folder(folder):
    """The folder itself, or the adapter in it where it is that of a run (lora/train.py); InputError without any."""
    for place in (Path(folder), Path(folder, "adapter")):
        if (place / CONFIG).exists():
            return str(place)
    ours = folder.startswith((str(ROOT), "data/"))
    raise InputError(f"--adapters: there is no adapter {folder}" + "; make it with: bash train.sh" * ours)


def labels(full, adapters):
    """A label for every folder, unlike all others: its own name ("full" for one full model), its path where two clash.

    >>> labels(["runs/a"], ["x/r8", "y/r8", "base"])
    ['full', 'x/r8', 'y/r8', './base']
    """
    folders = (*full, *adapters)
    names = [Path(folder).resolve().name for folder in folders]
    if len(full) == 1:
        names[0] = "full"
    taken = ["base", *names]
    found = [name if taken.count(name) == 1 else folder if "/" in folder else f"./{folder}"
             for name, folder in zip(names, folders, strict=True)]
    for label in found:
        if found.count(label) > 1:
            raise InputError(f"--full and --adapters: {label} is named twice; name each folder once")
    return found


def check_vocabulary(folder, settings, tokenizer):
    """Raises InputError where a full model's tokens are not the base's, with whose tokenizer all models are asked.

    A model may have more of them. A folder without a tokenizer of its own is taken to use the base's.
    """
    files = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
    if Path(folder).is_dir() and not any(Path(folder, name).exists() for name in files):
        return
    own = load_tokenizer(folder, settings.trust_remote_code).get_vocab()
    if any(own.get(token) != number for token, number in tokenizer.get_vocab().items()):
        raise InputError(f"--full {folder}: its tokenizer is not that of --base {settings.base}; "
                         "name the base that it was trained from, or show it by itself as --base")


def can_chat(tokenizer):
    """Whether the tokenizer has a chat template that works for one question."""
    try:
        return bool(render("chat", "x", "", "x", tokenizer))
    except InputError:
        return False


def choose_templates(asked, folders, unknown="seed"):
    """{model: template} for {model: folder}, the base first, as --template asks for.

    A base that was not fine-tuned, whose folder names no template, gets that of the first model that names one; without
    any it gets `unknown`, as the other models that name none do, those that PEFT saved among them.
    """
    saved = {name: load_template(folder) for name, folder in folders.items()}
    if asked == "saved":
        saved["base"] = next(filter(None, saved.values()), None)
        nameless = [name for name, own in saved.items() if not own]
        if nameless and unknown == "chat":
            print(f"note: {', '.join(nameless)}: no prompt_template.json says how to ask; asked by the base's chat "
                  "template (--template seed: in the seed's words)", file=sys.stderr)
        return {name: own or unknown for name, own in saved.items()}
    for name, own in saved.items():
        if own not in (None, asked):
            print(f"note: {name} was trained with --template {own}, and is asked with --template {asked} as given",
                  file=sys.stderr)
    return dict.fromkeys(folders, asked)
