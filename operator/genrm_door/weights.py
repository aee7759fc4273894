"""Which weights this start of the container reads: looked up once, before the engine, and then told to it as a commit.

A branch of a hub moves. Left alone, two replicas of one model that start an hour apart read different weights, and a
container that restarts in the middle of a run comes back as another model. So the launcher asks the hub for the commit
of the branch and starts the engine with that. The operator reads it from the door's document and leaves it in a
ConfigMap (the *pin*), which every later start finds mounted and obeys, without asking anybody.

A folder (a volume, a path of the node) cannot be told which commit to be. It gets a name from what is cheap to read,
so that replicas that do not hold the same files can be told apart. What nobody can say is None, never a reason not to
start.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

PIN_DIR_ENV = "GENRM_PIN_DIR"
PIN_FILE = "weights.json"
MODEL_FLAGS = ("--model", "--model-path")
DEFAULT_HUB = "https://huggingface.co"
DEFAULT_BRANCH = "main"

COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_TRUE = ("1", "on", "true", "yes")
_OTHER_HUBS = ("VLLM_USE_MODELSCOPE", "SGLANG_USE_MODELSCOPE")

HUB_SECONDS = 10.0
"""How long one answer of the hub may take."""
HUB_PAUSES = (0.0, 1.0, 3.0)
"""Before each try. An engine whose hub is away for longer does as it would without us."""
MAX_ANSWER_BYTES = 32 << 20
"""The list of a repository's files is a few hundred bytes a file."""


@dataclass(frozen=True)
class Weights:
    """`revision`: a commit of the hub, or `sha256:…` of a folder. `bytes`: of the files that hold weights."""

    revision: str | None = None
    bytes: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Weights:
        """Raises ValueError for another shape."""
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError(f"found {text[:80]!r} and no object")
        revision, size = found.get("revision"), found.get("bytes")
        if not (revision is None or isinstance(revision, str)) or not (size is None or type(size) is int):
            raise ValueError(f"found {text[:80]!r}: revision is a text and bytes a whole number")
        return cls(revision, size)


def look_up(
    args: Sequence[str], environ: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep
) -> tuple[Weights, list[str]]:
    """What the engine with these arguments would read, and the arguments with which it reads exactly that."""
    model = _last(args, MODEL_FLAGS)
    if model is None:
        return Weights(), list(args)
    if not _REPOSITORY.fullmatch(model) or Path(model).exists():
        return of_path(Path(model)), list(args)
    branch = _last(args, ("--revision",)) or DEFAULT_BRANCH
    cache = Cache.of(model, _last(args, ("--download-dir",)), environ)
    weights = _of_repository(model, branch, cache, environ, sleep)
    if weights.revision is None or weights.revision == branch:
        return weights, list(args)
    return weights, [*_without(args, "--revision"), f"--revision={weights.revision}"]


# ---------------------------------------------------------------------- a repository of the hub


def _of_repository(
    model: str, branch: str, cache: Cache, environ: Mapping[str, str], sleep: Callable[[float], None]
) -> Weights:
    pin = read_pin(environ.get(PIN_DIR_ENV, ""))
    commit = branch if COMMIT.fullmatch(branch) else pin.revision
    if commit is not None:
        size = pin.bytes if pin.revision == commit else None
        # What a commit is needs no hub, so nobody waits for one; how large it is the hub knows before the download.
        return Weights(commit, size or _ask(model, commit, environ, sleep, tries=1).bytes or cache.size(commit))
    if any(environ.get(name, "").lower() in _TRUE for name in _OTHER_HUBS):
        return Weights()
    if (found := _ask(model, branch, environ, sleep)).revision is not None:
        return found
    commit = cache.commit(branch)
    otherwise = f"the cache has {commit}" if commit else "the engine is left to find out"
    _say(f"the hub does not say which commit {branch} of {model} is; {otherwise}")
    return Weights(commit, cache.size(commit) if commit else None)


def _ask(
    model: str,
    revision: str,
    environ: Mapping[str, str],
    sleep: Callable[[float], None],
    *,
    tries: int = len(HUB_PAUSES),
) -> Weights:
    """The hub's word: the commit that a revision is, and the size of its weights."""
    if any(environ.get(name, "").lower() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *_OTHER_HUBS)):
        return Weights()
    hub = (environ.get("HF_ENDPOINT") or DEFAULT_HUB).rstrip("/")
    request = urllib.request.Request(f"{hub}/api/models/{model}/revision/{quote(revision, safe='')}?blobs=true")
    if token := environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN"):
        # A header that does not follow to where the hub sends us: that may be another host.
        request.add_unredirected_header("Authorization", f"Bearer {token.strip()}")
    for pause in HUB_PAUSES[:tries]:
        sleep(pause)
        try:
            with urllib.request.urlopen(request, timeout=HUB_SECONDS) as answer:
                return _read(json.loads(answer.read(MAX_ANSWER_BYTES)))
        except urllib.error.HTTPError as error:
            _say(f"{hub} answers {error.code} for {model} at {revision}")
            if error.code < 500 and error.code != 429:
                break
        except (OSError, ValueError) as error:
            _say(f"{hub} does not answer for {model} at {revision}: {error}")
    return Weights()


def _read(document: Any) -> Weights:
    """Raises ValueError for another shape than a hub's."""
    commit = document.get("sha") if isinstance(document, dict) else None
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise ValueError("the answer has no commit")
    files = [file for file in document.get("siblings") or [] if isinstance(file, dict)]
    sizes = {str(file.get("rfilename")): file.get("size") for file in files}
    named = weight_files(sizes)
    known = [size for name in named if isinstance(size := sizes[name], int)]
    return Weights(commit, sum(known) if known and len(known) == len(named) else None)


@dataclass(frozen=True)
class Cache:
    """Where huggingface_hub keeps one repository."""

    folder: Path

    @classmethod
    def of(cls, model: str, download_dir: str | None, environ: Mapping[str, str]) -> Cache:
        home = environ.get("HF_HOME") or f"{environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
        hub = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
        return cls(Path(download_dir or hub).expanduser() / f"models--{model.replace('/', '--')}")

    def commit(self, branch: str) -> str | None:
        try:
            found = (self.folder / "refs" / branch).read_text().strip()
        except (OSError, ValueError):
            return None
        return found if COMMIT.fullmatch(found) else None

    def size(self, commit: str) -> int | None:
        snapshot = self.folder / "snapshots" / commit
        return of_path(snapshot).bytes if snapshot.is_dir() else None


def read_pin(folder: str) -> Weights:
    """What the operator has left for this start; nothing before the first one."""
    try:
        pin = Weights.from_json((Path(folder) / PIN_FILE).read_text()) if folder else Weights()
    except FileNotFoundError:
        return Weights()
    except (OSError, ValueError) as error:
        _say(f"{folder}/{PIN_FILE} cannot be read: {error}")
        return Weights()
    return pin if pin.revision is not None and COMMIT.fullmatch(pin.revision) else Weights()


# ---------------------------------------------------------------------- a folder


def of_path(path: Path) -> Weights:
    """Name what lies at `path` by its index, its config, and the names and sizes of its weights. It reads kilobytes."""
    try:
        if path.is_file():
            sizes = {path.name: path.stat().st_size}
        else:
            sizes = {file.name: file.stat().st_size for file in path.iterdir() if file.is_file()}
            sizes = {name: sizes[name] for name in weight_files(sizes)}
        if not sizes:
            return Weights()
        digest = hashlib.sha256(json.dumps(sorted(sizes.items())).encode())
        for name in ("config.json", "model.safetensors.index.json"):
            file = path / name
            digest.update(b"\0" + (file.read_bytes() if file.is_file() else b""))
    except OSError as error:
        _say(f"the weights in {path} cannot be looked at: {error}")
        return Weights()
    return Weights(f"sha256:{digest.hexdigest()}", sum(sizes.values()))


def weight_files(names: Iterable[str]) -> list[str]:
    """Of a repository's or folder's files those that an engine loads: of several formats the first."""
    here = sorted(name for name in names if "/" not in name)
    for ending in (".safetensors", ".bin", ".pt", ".gguf"):
        found = [name for name in here if name.endswith(ending)]
        # Some repositories hold the same weights a second time, in their authors' own layout.
        if chosen := [name for name in found if not name.startswith("consolidated")] or found:
            return chosen
    return []


# ---------------------------------------------------------------------- arguments


def _last(args: Sequence[str], flags: Sequence[str]) -> str | None:
    """The value that an engine would believe: the last one."""
    value = None
    for at, word in enumerate(args):
        flag, separator, rest = word.partition("=")
        if flag in flags and (separator or at + 1 < len(args)):
            value = rest if separator else args[at + 1]
    return value


def _without(args: Sequence[str], flag: str) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in args:
        if not skip and word.partition("=")[0] != flag:
            kept.append(word)
        skip = not skip and word == flag
    return kept


def _say(sentence: str) -> None:
    sys.stderr.write(f"genrm: {sentence}\n")
    sys.stderr.flush()
