"""One measurement of one tool, in a process of its own; command_bench.py starts it. Prints one JSON line.

python bpe/bench_worker.py '{"work": "train", "tool": "ours", "file": "bpe/sample/text.txt", "vocab_size": 500}'
"""

import hashlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

PEERS = {"hf": "tokenizers"}  # tool -> package, where the names differ


def installed(tool: str, minbpe: str = "") -> bool:
    """Whether a tool can be measured here."""
    if tool.startswith("ours"):
        return True
    if tool == "minbpe":
        return bool(minbpe) and Path(minbpe, "minbpe").is_dir()
    return importlib.util.find_spec(PEERS.get(tool.split(" ")[0], tool.split(" ")[0])) is not None


def measured(call: Callable, repeats: int = 1) -> tuple[dict, object]:
    """Median seconds of `repeats` calls, CPU seconds over wall seconds, and what the last call returned."""
    walls, busy, result = [], 0.0, None
    for _ in range(repeats):
        result = None
        start, cpu = time.perf_counter(), time.process_time()
        result = call()
        walls.append(time.perf_counter() - start)
        busy += time.process_time() - cpu
    return {"seconds": sorted(walls)[repeats // 2], "cpu_over_wall": busy / sum(walls)}, result


def merges_digest(pairs: list[tuple[bytes, bytes]], count: int) -> str:
    """Hash of the first merges as byte strings, to see that tools agree."""
    text = "\n".join(f"{left.hex()} {right.hex()}" for left, right in pairs[:count])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# ---- training: how long from a file to merges in memory


def train(task: dict) -> dict:
    """Train on task["file"], GPT-2's split unless task["split"] is false."""
    path, size, cores = task["file"], task["vocab_size"], len(os.sched_getaffinity(0))
    tool = task["tool"]
    if tool == "ours":
        import fast

        pattern = "gpt2" if task.get("split", True) else "none"
        ties = task.get("ties", "hf")
        numbers, made = measured(lambda: fast.train([path], size, pattern, ties, threads=cores))
        tokens = made.token_bytes
        pairs = [(tokens[left], tokens[right]) for left, right in made.merges]
    elif tool == "ours linked list":
        from linked_list import LinkedListTokenizer

        tokenizer, text = LinkedListTokenizer(), Path(path).read_text(encoding="utf-8")
        numbers, _ = measured(lambda: tokenizer.train(text, size, pattern="none", ties=task["ties"]))
        tokens = tokenizer.vocabulary.token_bytes
        pairs = [(tokens[left], tokens[right]) for left, right in tokenizer.vocabulary.merges]
    elif tool == "hf":
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        numbers, _ = measured(lambda: tokenizer.train([path], trainer))
        pairs = _mapped_pairs(json.loads(tokenizer.to_str())["model"]["merges"])
    elif tool == "gigabpe":
        import gigabpe

        options = {"special_tokens": [], "pretokenizer": "bytelevel", "threads": cores}
        numbers, (_, merges) = measured(lambda: gigabpe.train_bpe([path], size, **options))
        pairs = _mapped_pairs(merges)
    elif tool == "rustbpe":
        import rustbpe
        from split import PATTERN_OF

        tokenizer = rustbpe.Tokenizer()
        with open(path, encoding="utf-8", newline="") as file:
            numbers, _ = measured(lambda: tokenizer.train_from_iterator(iter(file), size, pattern=PATTERN_OF["gpt2"]))
        pairs = []
    elif tool == "minbpe":
        sys.path.insert(0, task["minbpe"])
        from minbpe import BasicTokenizer

        tokenizer, text = BasicTokenizer(), Path(path).read_text(encoding="utf-8")
        numbers, _ = measured(lambda: tokenizer.train(text, size))
        pairs = [(tokenizer.vocab[left], tokenizer.vocab[right]) for left, right in tokenizer.merges]
    else:
        raise ValueError(tool)
    return numbers | {"check": merges_digest(pairs, size - 300) if pairs else None}


def _mapped_pairs(merges: list) -> list[tuple[bytes, bytes]]:
    from formats import from_mapped

    return [(from_mapped(left, "merges"), from_mapped(right, "merges")) for left, right in merges]


# ---- encoding and decoding with GPT-2's own vocabulary


def encode(task: dict) -> dict:
    """Encode the file from memory, as text without special tokens."""
    text = Path(task["file"]).read_bytes().decode("utf-8")
    call = encoder(task["tool"])
    call(text[:100_000])
    numbers, ids = measured(lambda: call(text))  # once: the second time a cache of whole texts would answer
    import numpy as np

    digest = hashlib.sha256(np.asarray(ids, np.int32).tobytes()).hexdigest()[:12]
    return numbers | {"check": digest, "tokens": len(ids)}


def encode_short(task: dict) -> dict:
    """Encode the file, cut into texts of 8 words, as a batch; by tiktoken one by one, as its batch is slower."""
    words = Path(task["file"]).read_bytes().decode("utf-8").split()
    texts = [" ".join(words[i : i + 8]) for i in range(0, len(words), 8)]
    call = encoder(task["tool"], many=True)
    call(texts[:1000])
    numbers, rows = measured(lambda: call(texts))
    import numpy as np

    digest = hashlib.sha256(np.concatenate(rows).astype(np.int32).tobytes()).hexdigest()[:12]
    return numbers | {"check": digest, "texts": len(texts)}


def encoder(tool: str, many: bool = False) -> Callable:
    """Text -> ids under GPT-2's vocabulary; with `many`, texts -> the ids of each."""
    import numpy as np
    import tokenizer_folder

    gpt2 = tokenizer_folder.load("gpt2")
    if tool.startswith("ours"):
        from encoder import Tokenizer

        tokenizer = Tokenizer(gpt2, threads=len(os.sched_getaffinity(0)))
        if many:
            return tokenizer.encode_batch
        call = tokenizer.encode if tool == "ours lists" else tokenizer.encode_array
        return lambda text: call(text, disallowed_special=())
    if tool.startswith("tiktoken"):
        import tiktoken
        from split import PATTERN_OF

        ranks = {token: n for n, token in enumerate(gpt2.token_bytes[:-1])}
        tokenizer = tiktoken.Encoding(
            "gpt2", pat_str=PATTERN_OF["gpt2"], mergeable_ranks=ranks, special_tokens=gpt2.special_tokens
        )
        if many:
            return lambda texts: list(map(tokenizer.encode_ordinary, texts))
        if tool == "tiktoken lists":
            return tokenizer.encode_ordinary
        return lambda text: tokenizer.encode_to_numpy(text, disallowed_special=())
    import formats

    text = formats.tokenizer_json(gpt2)
    if tool == "hf":
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(text)
        if many:
            return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        return lambda text: tokenizer.encode(text).ids
    if tool == "fastokens":
        from fastokens import Tokenizer

        tokenizer = Tokenizer.from_json_str(text)
        return lambda text: np.frombuffer(tokenizer.encode_batch_flat([text])[0], np.uint32)
    raise ValueError(tool)


def decode(task: dict) -> dict:
    """Decode the ids of the file to bytes: from an array (ours) or a list (tiktoken takes no other)."""
    import numpy as np

    text = Path(task["file"]).read_bytes()
    import tokenizer_folder
    from encoder import Tokenizer

    gpt2 = tokenizer_folder.load("gpt2")
    tokenizer = Tokenizer(gpt2)
    ids = np.asarray(tokenizer.encode_array(text, disallowed_special=()))
    if task["tool"] == "ours":
        call = tokenizer.decode_bytes
    elif task["tool"] == "ours lists":
        ids, call = ids.tolist(), tokenizer.decode_bytes
    else:
        import tiktoken

        ranks = {token: n for n, token in enumerate(gpt2.token_bytes[:-1])}
        call = tiktoken.Encoding("gpt2", pat_str=".", mergeable_ranks=ranks, special_tokens={}).decode_bytes
        ids = ids.tolist()
    numbers, out = measured(lambda: call(ids), 3)
    return numbers | {"check": out == text}


# ---- ours alone


def count(task: dict) -> dict:
    """Count the file's pieces with as many threads as there are cores."""
    import fast

    cores = len(os.sched_getaffinity(0))
    numbers, counts = measured(lambda: fast.count([task["file"]], threads=cores), 3)
    return numbers | {"check": len(counts)}


def compile_cold(task: dict) -> dict:
    """Import everything compiled, with an empty cache (the caller sets NUMBA_CACHE_DIR)."""

    def load() -> None:
        import encoder
        import fast  # noqa: F401

        encoder.Tokenizer(__import__("tokenizer_folder").load("gpt2")).encode_array("one two")

    return measured(load)[0] | {"check": None}


def main() -> None:
    """Run the task given as JSON and print its numbers."""
    if not sys.platform.startswith("linux") or len(sys.argv) != 2:
        sys.exit(f"error: Linux only, and one task as JSON; see the head of {__file__}")
    task = json.loads(sys.argv[1])
    numbers = globals()[task["work"]](task)
    # not ru_maxrss, which counts what the process was before it became this one, and that is the large parent
    status = Path("/proc/self/status").read_text()
    numbers["peak_mb"] = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
