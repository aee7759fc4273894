"""Writes an image as a docker archive to a pipe: nothing is kept in memory or on disk, each file is read once.

A tar entry starts with its size, and a layer is itself a tar inside the archive, so a layer's size must be known before
its first byte. It is: the size of a tar follows from its entries' headers and sizes. So a layer is *listed* first (one
`lstat` a file) and *written* after that; a file that changes its size in between is an error. Times are kept, because
Python compares a source file's time with the one noted in its compiled form.
"""

import hashlib
import json
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

_BLOCK = 512
_CHUNK = 1 << 20
_END = b"\0" * (2 * _BLOCK)
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Sink(Protocol):
    """Where an archive goes."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Layer:
    """Files of this machine and where they go: each a (source, target) pair, a folder standing for all below it.

    `links` are symbolic links to make in addition: (path, what it points to). Paths in the image start with a slash.
    """

    sources: tuple[tuple[Path, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    keep_owners: bool = False  # else everything belongs to root


@dataclass(frozen=True, slots=True)
class Image:
    """One image. `key` changes whenever its content would."""

    ref: str
    key: str
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = field(default=())

    def write(self, out: Sink) -> None:
        """Write the image as a docker archive.

        Raises:
            ValueError: a file changed while it was read.
        """
        names, digests = [], []
        for number, layer in enumerate(self.layers):
            names.append(f"layer{number}.tar")
            digests.append(_write_layer(out, names[-1], layer))
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": list(self.entrypoint),
                "Cmd": list(self.command),
                "Env": [_PATH, *self.environment],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": digests},
            "history": [{"created_by": "genrm dev.images"} for _ in digests],
        }
        _write_json(out, "config.json", config)
        _write_json(out, "manifest.json", [{"Config": "config.json", "RepoTags": [self.ref], "Layers": names}])
        out.write(_END)


@dataclass(frozen=True, slots=True)
class _Entry:
    header: bytes
    source: Path | None  # a regular file's content
    size: int


def _list(layer: Layer) -> Iterator[_Entry]:
    for source, target in layer.sources:
        yield from _list_tree(source, target.strip("/"), layer.keep_owners)
    for path, points_to in layer.links:
        info = tarfile.TarInfo(path.strip("/"))
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, points_to, 0o777
        yield _Entry(_header(info), None, 0)


def _list_tree(source: Path, target: str, keep_owners: bool) -> Iterator[_Entry]:
    facts = source.lstat()
    info = tarfile.TarInfo(target)
    info.mode, info.mtime = stat.S_IMODE(facts.st_mode), int(facts.st_mtime)
    if keep_owners:
        info.uid, info.gid = facts.st_uid, facts.st_gid
    if stat.S_ISREG(facts.st_mode):
        info.size = facts.st_size
        yield _Entry(_header(info), source, facts.st_size)
    elif stat.S_ISLNK(facts.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(source.readlink())
        yield _Entry(_header(info), None, 0)
    elif stat.S_ISDIR(facts.st_mode):
        info.type = tarfile.DIRTYPE
        if target:
            yield _Entry(_header(info), None, 0)
        for child in sorted(source.iterdir()):
            yield from _list_tree(child, f"{target}/{child.name}".lstrip("/"), keep_owners)
    # sockets, pipes and devices are left out: a container gets its own


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> int:
    return -size % _BLOCK


def _write_layer(out: Sink, name: str, layer: Layer) -> str:
    """Write the layer as one entry of the archive and return the digest of its tar."""
    entries = list(_list(layer))
    info = tarfile.TarInfo(name)
    info.size = sum(len(entry.header) + entry.size + _padding(entry.size) for entry in entries) + len(_END)
    out.write(_header(info))
    digest = hashlib.sha256()
    for data in _content(entries):
        digest.update(data)
        out.write(data)
    out.write(b"\0" * _padding(info.size))
    return f"sha256:{digest.hexdigest()}"


def _content(entries: list[_Entry]) -> Iterator[bytes]:
    for entry in entries:
        yield entry.header
        if entry.source is None:
            continue
        left = entry.size
        with entry.source.open("rb", buffering=0) as file:
            while data := file.read(_CHUNK):
                left -= len(data)
                yield data
        if left:
            raise ValueError(f"{entry.source} changed its size while it was put into an image: try again")
        yield b"\0" * _padding(entry.size)
    yield _END


def _write_json(out: Sink, name: str, value: object) -> None:
    data = json.dumps(value).encode()
    info = tarfile.TarInfo(name)
    info.size = len(data)
    out.write(_header(info) + data + b"\0" * _padding(len(data)))
