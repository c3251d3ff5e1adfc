"""Settings of pretraining and of the model, with presets; no torch import, so that --help answers at once.

`GPTConfig` describes an architecture (what a checkpoint or an exported folder needs to rebuild the model), `Settings`
a run of `model.py`: `python pretrain/model.py --preset stories --max_steps 20` overrides one value of the preset.

Sources of the numbers: GPT-2 (Radford et al. 2019, table 2), GPT-3 (Brown et al. 2020, table 2.1), LLaMA (Touvron et
al. 2023), Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon), our own measurements in NOTES.md.
"""

import dataclasses
import json
import math
import os
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

DATA = Path(__file__).resolve().parents[1] / "data"


class InputError(ValueError):
    """A user's mistake: one or two lines that name the value and the fix; exit status 2 without a traceback."""


class NotFiniteError(RuntimeError):
    """A loss, a gradient or a weight is NaN or infinite; what it would have changed or saved is as before."""


RANGES = [  # what a number may be, in words and as a test, and the settings that it is about
    ("1 or more", lambda x: 1 <= x < math.inf,
     "n_layer n_head n_embd block_size rope_original pad_vocab total_batch micro_batch keep timeout"),
    ("0 or more", lambda x: 0 <= x < math.inf,
     "vocab_size n_kv_head head_size mlp_hidden norm_eps embedding_std max_steps minutes sequence curriculum lr "
     "muon_lr weight_decay clip z_loss skip_spikes eval_every eval_tokens choices_every choices_limit sample_every "
     "save_every log_every threads peak_tflops"),
    ("1024 or fewer", lambda x: x <= 1024, "threads"),  # OpenMP ends the program where it can make no more
    ("a number of 1 or more", lambda x: 1 <= x < math.inf, "rope_factor"),
    ("a whole number from 0 to 2^63 - 1", lambda x: 0 <= x < 2**63, "seed"),
    ("a number above 0", lambda x: 0 < x < math.inf, "rope_theta"),
    ("a share from 0 to 1", lambda x: 0 <= x <= 1, "decay min_lr keep_activations"),
    ("a share from 0 to below 1", lambda x: 0 <= x < 1, "beta1 beta2 momentum dropout warmup"),
]


def check_numbers(settings):
    """Refuse a number outside its range; NaN is outside of all."""
    values = vars(settings)
    for words, inside, names in RANGES:
        for name in values.keys() & names.split():
            if not (isinstance(values[name], int | float) and inside(values[name])):
                raise InputError(f"--{name} {values[name]}: {words}")


@dataclass
class GPTConfig:
    """An architecture. The defaults are GPT-2 124M."""

    n_layer: int = 12  # blocks
    n_head: int = 12  # attention heads per block
    n_embd: int = 768  # width of the residual stream, channels
    block_size: int = 1024  # longest sequence the model is made for, tokens
    vocab_size: int = 50257  # real vocabulary, ids; 0 takes it from the data's manifest
    pad_vocab: int = 64  # the embedding has a multiple of this many rows (alignment); exports crop them
    n_kv_head: int = 0  # key-value heads: 0 = n_head, fewer = grouped-query attention, 1 = multi-query
    head_size: int = 0  # channels per head; 0 = n_embd / n_head
    mlp: Literal["gelu", "relu2", "silu", "swiglu"] = "gelu"  # activation; swiglu is the gated one (LLaMA's)
    mlp_hidden: int = 0  # hidden channels of the MLP; 0 = 4 n_embd, for swiglu 8/3 n_embd rounded to 32
    norm: Literal["layernorm", "rmsnorm", "none"] = "layernorm"  # normalisation
    norm_place: Literal["pre", "post"] = "pre"  # before each sub-layer, or after the residual sum (2017 style)
    norm_eps: float = 1e-5  # added to the variance
    position: Literal["learned", "rope", "none"] = "learned"  # how positions enter
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    rope_factor: float = 1.0  # how much longer the long rotary wavelengths are made for longer texts (Llama 3.1: 8)
    rope_original: int = 8192  # positions that the model was trained on before --rope_factor
    qk_norm: bool = False  # RMSNorm with a learned gain on queries and keys, before the rotation (Qwen3)
    bias: bool = True  # biases in linear layers and LayerNorm
    qkv_bias: bool = False  # without them: biases of queries, keys and values alone (Qwen2)
    tied: bool = True  # output head = token embedding
    embedding_std: float = 0.02  # standard deviation of the initial token embedding
    zero_init: bool = False  # projections into the residual stream start at 0, else at 0.02 / sqrt(2 n_layer)
    document_mask: bool = False  # tokens do not attend across end-of-text
    end_of_text: int | None = 50256  # id of <|endoftext|>, if there is one; taken from the manifest in training

    def __post_init__(self):
        check_numbers(self)
        if not self.head_size and self.n_embd % self.n_head:
            raise InputError(f"--n_embd {self.n_embd} is not a multiple of --n_head {self.n_head}; or give --head_size")
        if self.n_kv_head and self.n_head % self.n_kv_head:
            raise InputError(f"--n_head {self.n_head} is not a multiple of --n_kv_head {self.n_kv_head}")
        if self.position == "rope" and self.head_dim % 2:
            raise InputError(f"rotary positions need an even head size, not {self.head_dim}; set --head_size")
        if self.document_mask and self.end_of_text is None:
            raise InputError("--document_mask needs an end-of-text, at which documents end, and there is none")

    @property
    def head_dim(self) -> int:
        """Channels per head."""
        return self.head_size or self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """Key-value heads."""
        return self.n_kv_head or self.n_head

    @property
    def hidden(self) -> int:
        """Hidden channels of the MLP; SwiGLU's 8/3 keeps the parameter count of 4x without a gate."""
        default = max(1, round(8 / 3 * self.n_embd / 32)) * 32 if self.mlp == "swiglu" else 4 * self.n_embd
        return self.mlp_hidden or default

    @property
    def padded_vocab(self) -> int:
        """Rows of the embedding: 50257 -> 50304 at pad_vocab 64."""
        return -(-self.vocab_size // self.pad_vocab) * self.pad_vocab


@dataclass
class Settings:
    """A training run. `--preset` sets all values below, other flags override it."""

    config: Path | None = None  # settings in a JSON file, {"lr": 1e-3, ...} or another run's args.json; flags override
    preset: str = "stories"  # stories, text, llama-124m, gpt2, gpt2-medium, gpt2-large, gpt2-xl, continue
    data: Path = DATA / "tokens" / "stories"  # folder with manifest.json and shards
    out: Path = DATA / "runs" / "pretrain" / "stories"  # folder of the run: metrics, checkpoints, samples
    export: Path | None = None  # write the final model here as a Hugging Face folder
    choices: Path | None = None  # multiple-choice questions (HellaSwag's schema) to score, JSONL
    resume: Literal["auto", "never"] = "auto"  # auto continues the run in --out; never refuses if there is one
    init_from: str | None = None  # folder, run or hub name of a model to train further; it gives the architecture
    model: Annotated[GPTConfig, tyro.conf.arg(prefix_name=False)] = field(default_factory=GPTConfig)

    # length
    max_steps: int = 19073  # optimizer steps; 0 with --minutes: until the time is over
    minutes: float = 0.0  # stop after this much training time, minutes; the schedule then follows the clock; 0 = off

    # batch
    sequence: int = 0  # tokens per sequence; 0 = block_size
    total_batch: int = 2**19  # tokens per optimizer step over all processes
    micro_batch: int = 16  # sequences per forward pass of one process; fewer where total_batch has not as many
    curriculum: int = 0  # tokens at the start of the training split that are read before all others

    # optimizer
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the blocks' matrices, AdamW for the rest
    lr: float = 6e-4  # peak learning rate of AdamW
    muon_lr: float = 0.02  # peak learning rate of Muon
    weight_decay: float = 0.1  # decoupled, on tensors of two or more dimensions
    beta1: float = 0.9  # AdamW: decay of the gradient mean
    beta2: float = 0.95  # AdamW: decay of the squared-gradient mean
    momentum: float = 0.95  # Muon: Nesterov momentum
    optimizer_bits: Literal[32, 8] = 32  # of the running means of matrices' gradients; 8: a quarter of their memory
    clip: float = 1.0  # greatest gradient norm; 0 = no clipping
    dropout: float = 0.0  # share of the embeddings and of each sub-layer's output that a step leaves out (GPT-2: 0.1)
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"  # decay after warm-up; wsd holds, then falls linearly
    warmup: float = 0.02  # share of the run with rising learning rate
    decay: float = 0.4  # wsd: share of the run with falling learning rate
    min_lr: float = 0.1  # learning rate at the end, as a share of the peak
    z_loss: float = 0.0  # weight of the mean squared log-normaliser
    skip_spikes: float = 0.0  # skip an update whose loss lies this many standard deviations above the last 100; 0 = off

    # evaluation, checkpoints (a value 0 = only at the end)
    eval_every: int = 250  # steps between validation losses
    eval_tokens: int = 2**20  # validation tokens per evaluation, from the start of the split; 0 = all
    choices_every: int = 1000  # steps between multiple-choice scores
    choices_limit: int = 0  # questions per score; 0 = all
    sample_every: int = 1000  # steps between samples
    prompt: str = "Hello, I'm a language model,"  # of the samples
    save_every: int = 1000  # steps between checkpoints
    keep: int = 2  # latest checkpoints to keep, beside the best
    log_every: int = 1  # steps between lines of metrics.jsonl

    # machine
    device: str = "auto"  # auto, cpu, cuda
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the forward pass; auto: bfloat16 if the hardware has it
    compile: bool = True  # torch.compile the blocks, on a GPU (pays off above ~10M parameters; a CPU has its own loops)
    keep_activations: float = 1.0  # share of them that compiled blocks keep; the rest is made again in backward
    fsdp: bool = False  # shard parameters, gradients and optimizer over the processes (FSDP2)
    threads: int = 0  # CPU threads per process; 0 = cores / processes on this machine
    timeout: int = 300  # seconds after which a process gives up waiting for the others
    peak_tflops: float = 0.0  # device peak for MFU; 0 = table of devices, on a CPU a measured matmul
    seed: int = 1  # of initial weights, data order and samples
    debug: bool = False  # show tracebacks of input errors


def check(settings: Settings):
    """Refuse settings with which no run can end well."""
    check_numbers(settings)
    if not settings.max_steps and not settings.minutes:
        raise InputError("--max_steps 0 needs --minutes, or the run would never end")
    if settings.preset == "continue" and settings.init_from is None:
        raise InputError("--preset continue trains a model further; name it with --init_from")
    if settings.sequence > settings.model.block_size:
        raise InputError(f"--sequence {settings.sequence} is longer than --block_size {settings.model.block_size}")
    if settings.schedule == "wsd" and settings.warmup + settings.decay > 1:
        raise InputError(f"--warmup {settings.warmup} + --decay {settings.decay} are more than the run; lower one")


def _gpt2(n_layer: int, n_head: int, n_embd: int, lr: float, micro_batch: int) -> Settings:
    # Shapes: GPT-2 table 2. Learning rates: GPT-3 table 2.1 at the same widths. 2^19 tokens is the 0.5M of that table;
    # 19,073 steps = 10^10 tokens, one epoch of FineWeb-Edu's 10B sample; warm-up 375M tokens = 715 steps = 0.0375.
    return Settings(model=GPTConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd), lr=lr, micro_batch=micro_batch,
                    warmup=0.0375, data=DATA / "tokens" / "fineweb-edu")


PRESETS: dict[str, Settings] = {
    "gpt2": _gpt2(12, 12, 768, 6e-4, 64),
    "gpt2-medium": _gpt2(24, 16, 1024, 3e-4, 32),
    "gpt2-large": _gpt2(36, 20, 1280, 2.5e-4, 16),
    "gpt2-xl": _gpt2(48, 25, 1600, 2e-4, 8),
    # The same budget with the modern block and Muon.
    "llama-124m": Settings(
        model=GPTConfig(mlp="swiglu", norm="rmsnorm", position="rope", qk_norm=True, bias=False, zero_init=True),
        optimizer="muon", lr=3e-3, muon_lr=0.02, schedule="wsd", min_lr=0.0, z_loss=1e-4, micro_batch=64,
        warmup=0.01, data=DATA / "tokens" / "fineweb-edu"),
    # For two CPU cores and a few minutes: 2.6M parameters at vocabulary 4096. The curriculum is the primers.
    "stories": Settings(
        model=GPTConfig(n_layer=4, n_head=4, n_embd=192, block_size=512, vocab_size=0, mlp="swiglu", norm="rmsnorm",
                        position="rope", qk_norm=True, bias=False, embedding_std=0.1, zero_init=True, end_of_text=0),
        max_steps=1300, total_batch=2048, micro_batch=4, curriculum=315_000,
        optimizer="muon", lr=3e-3, muon_lr=0.025, momentum=0.9, warmup=0.02, min_lr=0.05, z_loss=1e-4,
        compile=False, prompt="Once upon a time",
        eval_every=250, eval_tokens=2**15, choices_every=500, choices_limit=200, sample_every=500, save_every=500),
}
# What turns a preset of the modern block into GPT-2's block with AdamW and cosine decay, for comparisons.
AS_GPT2 = ("--mlp gelu --norm layernorm --position learned --no_qk_norm --bias --embedding_std 0.02 --no_zero_init "
           "--no_document_mask --optimizer adamw --schedule cosine --min_lr 0.1 --z_loss 0")
# For any text of some MB on the same machine: high rates, best after a thousand steps and more (NOTES.md); on `stories`
# they would destroy the copying that its primers teach.
PRESETS["text"] = dataclasses.replace(
    PRESETS["stories"],
    model=dataclasses.replace(PRESETS["stories"].model, n_head=3, embedding_std=0.2, document_mask=True),
    max_steps=1500, curriculum=0, lr=2e-2, beta2=0.99, muon_lr=0.04, schedule="linear", min_lr=0.0,
    prompt="<|endoftext|>")
# A trained model on other text: rates that do not destroy what it knows.
PRESETS["continue"] = Settings(
    max_steps=200, sequence=512, total_batch=8192, micro_batch=4, lr=1e-4, warmup=0.05, min_lr=0.0,
    prompt="<|endoftext|>", eval_every=50, eval_tokens=2**15, choices_every=0, sample_every=0, save_every=100)
for _name, _settings in PRESETS.items():
    _settings.preset, _settings.out = _name, DATA / "runs" / "pretrain" / _name


# In args.json: where that run went, and what it was made with (world.provenance).
NOT_SETTINGS = {"model", "out", "export", "config", "resumed", "python", "torch", "commit", "gpu", "cpu_threads",
                "platform", "argv"}


def read_settings(kind: type, description: str, default=None, argv: list[str] | None = None):
    """Command line -> settings of this dataclass."""
    return tyro.cli(kind, default=default, args=argv, description=description, config=(tyro.conf.OmitArgPrefixes,),
                    use_underscores=True)


def parse(description: str, argv: list[str] | None = None) -> Settings:
    """Command line -> Settings: `--preset NAME` gives the defaults that the other flags override.

    What stands in the file that `--config` names are flags that come first. Where `--init_from` names a model, the
    architecture's defaults are its own, and the other ones those of `continue`.
    """
    argv = sys.argv[1:] if argv is None else argv
    config = flag(argv, "--config")
    argv = argv if config is None else [*flags_of(Path(config)), *argv]
    source = flag(argv, "--init_from")
    defaults = dataclasses.replace(PRESETS[preset_name(argv, "continue" if source else "stories")])
    if source:
        from convert import read_config, run_settings

        out = Path(flag(argv, "--out") or defaults.out)
        begun = (out / "args.json").exists()  # then the source may be gone
        defaults.model = run_settings(out)[0] if begun else read_config(source)
        if defaults.sequence >= defaults.model.block_size:
            defaults.sequence = 0
    return read_settings(Settings, description, defaults, argv)


def preset_name(argv: list[str], name: str) -> str:
    """The --preset of a command line, or else `name`."""
    name = flag(argv, "--preset") or name
    if name not in PRESETS:
        raise InputError(f"--preset {name} is unknown; there are {', '.join(PRESETS)}")
    return name


def flags_of(path: Path) -> list[str]:
    """The flags that a JSON file of settings stands for; what says where and by what a run was made is left out."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"--config {path} is not JSON: {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("model", {}), dict):
        raise InputError(f"--config {path} holds no settings, {{name: value, ...}}")
    words, switches = [], {f.name: f.type is bool for kind in (Settings, GPTConfig) for f in fields(kind)}
    for name, value in (values.get("model", {}) | values).items():
        if name in NOT_SETTINGS or value is None:
            continue
        if switches.get(name) not in (None, isinstance(value, bool)):  # as flags the message would not name it
            must = "must" if switches[name] else "must not"
            raise InputError(f"--config {path}: {name} is {json.dumps(value)}; it {must} be true or false")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            value = os.path.expanduser(str(value))
            if name in ("data", "choices", "init_from") and not Path(value).exists() and (DATA.parent / value).exists():
                value = str(DATA.parent / value)  # as args.json has it
            words += [f"--{name}", value]
    return words


def flag(argv: list[str], name: str) -> str | None:
    """The last value of a flag in a command line, before it is parsed."""
    value = None
    for i, word in enumerate(argv):
        given, equals, after = word.partition("=")
        if "--" + given[2:].replace("-", "_") == name and (equals or i + 1 < len(argv)):
            value = after if equals else argv[i + 1]
    return value


def run_command(main, read):
    """main(read()) as a command, whose result is the exit status.

    130 when interrupted; 2 with one line for a mistake or too little memory (--debug: traceback); 141, as a shell has
    it, when the reader of the output has left (`--help | head`).
    """
    # Read when PyTorch loads. Huge pages: 1.2x on a CPU. And a thread that waits for others spins for microseconds, not
    # milliseconds: beside another busy program it would keep the core from the very thread it waits for, 18x slower.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        try:
            status = main(read())
        finally:
            sys.stdout.flush()
        sys.exit(status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        sys.exit(141)
    except (InputError, OSError, RuntimeError) as error:
        if "--debug" in sys.argv or (isinstance(error, RuntimeError) and not out_of_memory(error)):
            raise
        message = str(error)
        if isinstance(error, RuntimeError):
            message = f"out of memory: {message.splitlines()[0]} Lower the batch, the length or the model"
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch could not get memory, on a GPU or for the CPU; asked without importing it."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
