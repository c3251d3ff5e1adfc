"""The public data sets: where they are, at which revision, and their download.

A file is fetched into data/downloads/NAME/, continued where an earlier run stopped, and accepted only with the size
and hash that the hub keeps for that revision. Set HF_ENDPOINT for a mirror of the hub.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from staging import InputError


@dataclass(frozen=True)
class PublicSet:
    """One set: `repository` on the hub (its data sets), or the start of a URL when it begins with https."""

    kind: str  # text, instructions or choices
    about: str
    size: str
    licence: str
    repository: str
    revision: str
    train: tuple[str, ...]  # paths in the repository, in order
    val: tuple[str, ...] = ()  # of the set's own validation side, where it has one
    sha256: str = ""  # of its only file, where no hub knows it
    shuffle: bool = False  # records sorted by label
    many: bool = False  # so large that one file is taken unless --files says more


SETS = {
    "shakespeare": PublicSet(
        "text",
        "tiny Shakespeare: 40,000 lines of the plays, one document",
        "1.1 MB",
        "public domain",
        "https://raw.githubusercontent.com/karpathy/char-rnn",
        "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e",
        ("data/tinyshakespeare/input.txt",),
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "tinystories": PublicSet(
        "text",
        "TinyStories version 2: 2.7 million short stories written by GPT-4, with their own validation side",
        "2.2 GB",
        "CDLA-Sharing-1.0",
        "roneneldan/TinyStories",
        "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64",
        ("TinyStoriesV2-GPT4-train.txt",),
        ("TinyStoriesV2-GPT4-valid.txt",),
    ),
    "fineweb-edu": PublicSet(
        "text",
        "FineWeb-Edu sample-10BT: educational web pages, 10 billion GPT-2 tokens in 14 files",
        "28.5 GB",
        "ODC-By 1.0",
        "HuggingFaceFW/fineweb-edu",
        "87f09149ef4734204d70ed1d046ddc9ca3f2b8f9",
        tuple(f"sample/10BT/{number:03}_00000.parquet" for number in range(14)),
        many=True,
    ),
    "openwebtext": PublicSet(
        "text",
        "OpenWebText: the open copy of GPT-2's training pages, 8 million of them in 80 files",
        "24 GB",
        "CC0-1.0",
        "Skylion007/openwebtext",
        "79d93d786212f7344586290adb811d4ae6a1762c",
        tuple(f"plain_text/train-{number:05}-of-00080.parquet" for number in range(80)),
        many=True,
    ),
    "alpaca": PublicSet(
        "instructions",
        "Stanford Alpaca: 52,002 instructions answered by text-davinci-003",
        "24 MB",
        "CC BY-NC 4.0",
        "tatsu-lab/alpaca",
        "dce01c9b08f87459cf36a430d809084718273017",
        ("data/train-00000-of-00001-a09b74b3ef9c3b56.parquet",),
    ),
    "imdb": PublicSet(
        "instructions",
        "IMDB reviews: 25,000 to train and 25,000 to test, label 1 positive, 0 negative",
        "41 MB",
        "none stated",
        "stanfordnlp/imdb",
        "e6281661ce1c48d982bc483cf8a173c1bbeb5d31",
        ("plain_text/train-00000-of-00001.parquet",),
        ("plain_text/test-00000-of-00001.parquet",),
        shuffle=True,
    ),
    "hellaswag": PublicSet(
        "choices",
        "HellaSwag, the validation side: 10,042 contexts with four endings",
        "6 MB",
        "MIT",
        "Rowan/hellaswag",
        "218ec52e09a7e7462a5400043bb9a69a41d06b76",
        ("data/validation-00000-of-00001.parquet",),
    ),
}


@dataclass(frozen=True)
class Remote:
    """A file to fetch: its bytes hash to `digest`, a sha256 or (small files on the hub) a git blob id."""

    path: str
    url: str
    size: int
    digest: str
    on_hub: bool


@contextmanager
def reachable(name: str) -> Iterator[None]:
    """Turn whatever the network does wrong into one message that says what to run instead."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        _ = urlsplit(endpoint).port
    except ValueError as error:
        raise InputError(f"HF_ENDPOINT={endpoint} is no address ({error}); unset it, or give https://HOST") from None
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except (HTTPError, ConnectionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        what = "refuses" if isinstance(error, HfHubHTTPError) else "cannot be reached for"
        raise InputError(
            f"the network {what} the set '{name}' ({reason})\n"
            "instead: python data/prepare.py stories, generated here; or files that you have:\n"
            f"         python data/prepare.py file PATH... --name {name}"
        ) from None


def locate(public: PublicSet, paths: tuple[str, ...]) -> list[Remote]:
    """Ask the hub for size and hash of `paths` at the pinned revision; ten seconds at most."""
    from huggingface_hub import HfApi, get_session, hf_hub_url
    from huggingface_hub.hf_api import RepoFile

    if not paths:
        return []
    session = get_session()
    session.timeout = 10
    if public.repository.startswith("http"):
        url = f"{public.repository}/{public.revision}/{paths[0]}"
        answer = session.head(url, headers={"Accept-Encoding": "identity"})
        answer.raise_for_status()
        return [Remote(paths[0], url, int(answer.headers["Content-Length"]), public.sha256, False)]
    found = HfApi().get_paths_info(public.repository, list(paths), revision=public.revision, repo_type="dataset")
    infos = {info.path: info for info in found if isinstance(info, RepoFile)}
    remotes = []
    for path in paths:
        if path not in infos:
            raise InputError(f"{public.repository} has no {path} at revision {public.revision}")
        url = hf_hub_url(public.repository, path, repo_type="dataset", revision=public.revision)
        info = infos[path]
        remotes.append(Remote(path, url, info.size, info.lfs.sha256 if info.lfs else info.blob_id, True))
    return remotes


def fetch(remotes: list[Remote], folder: Path) -> Iterator[Path]:
    """Download one file after the other, each when it is asked for."""
    for remote in remotes:
        yield download(remote, folder)


def download(remote: Remote, folder: Path) -> Path:
    """Fetch a file below `folder`, continuing a part that is there already, and check it.

    Raises InputError for too little space or a wrong hash (the file is deleted then); the part stays where the
    network fails.
    """
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    target = folder / remote.path
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        have = part.stat().st_size if part.exists() else 0
        if have > remote.size:
            part.unlink()
            have = 0
        free = shutil.disk_usage(folder).free
        if remote.size - have > free:
            missing = (remote.size - have) / 1e6
            raise InputError(f"{folder}: {remote.path} needs {missing:,.0f} MB more, {free / 1e6:,.0f} MB are free")
        resumed = f", continued at {have / 1e6:,.1f}" if have else ""
        print(f"downloading {remote.path}: {remote.size / 1e6:,.1f} MB{resumed}", file=sys.stderr, flush=True)
        headers = {**(build_hf_headers() if remote.on_hub else {}), "Accept-Encoding": "identity"}
        try:
            with part.open("ab") as file:
                http_get(remote.url, file, resume_size=have, headers=headers, expected_size=remote.size)
        except OSError as error:
            if isinstance(error, HTTPError) or error.errno:  # the network, or the disk
                raise
            raise InputError(f"{remote.path}: the download ended early; run the command again to continue it") from None
        part.rename(target)
    if _digest(target, len(remote.digest)) != remote.digest:
        target.unlink()
        raise InputError(f"{target}: its hash is not {remote.digest}; deleted, so run the command again")
    return target


def _digest(path: Path, length: int) -> str:
    """Return the sha256 of a file, or where the hash to compare with has 40 digits the id that git gives it."""
    digest = hashlib.sha256() if length == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
