"""Where a node's images live between clusters.

containerd's root is a folder of the cache, kept when a cluster goes down, so an image is imported once per machine. One
containerd at a time may use it: a store is locked, and the lock is handed to the cluster's keeper. A second node
cluster at the same time takes the next store. Beside the images lies a note of the key under which each was imported,
so that an image whose recipe has not changed is not made again.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from dev.cache import cache_root, locked, try_lock
from dev.cluster.errors import ClusterError
from dev.cluster.toolchain import CONTAINERD

_MOST = 8
FULL_IMAGE_NEEDS = 25 * 10**9  # free bytes: vLLM's 6 GB, written once as content and once unpacked, and room to work


@dataclass(frozen=True, slots=True)
class Store:
    """One kept containerd root: `folder/containerd`, and the note beside it."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "containerd"

    @property
    def spare(self) -> bool:
        """Whether this is one of the cache's further stores, used while the first is taken."""
        return self.folder in _folders()[1:]

    def key_of(self, ref: str) -> str | None:
        """Return the key under which the image was imported last, None if it never was."""
        return self._keys().get(ref)

    def note(self, ref: str, key: str) -> None:
        """Remember that the image has been imported."""
        with locked(f"store-{self.folder.name}"):
            partial = self.folder / ".imported.json"
            partial.write_text(json.dumps(self._keys() | {ref: key}, indent=1))
            partial.rename(self.folder / "imported.json")

    def _keys(self) -> dict[str, str]:
        try:
            keys: dict[str, str] = json.loads((self.folder / "imported.json").read_text())
        except FileNotFoundError:
            return {}
        return keys


def _folders() -> list[Path]:
    return [cache_root() / "store" / f"containerd-{CONTAINERD}-{number}" for number in range(_MOST)]


def take(folder: Path | None = None) -> tuple[Store, int]:
    """Lock the store in `folder`, or the first free one of the cache; return it and the lock's file descriptor.

    Raises:
        ClusterError: it is in use, or all are.
    """
    tried = [folder] if folder else _folders()
    for candidate in tried:
        if (lock := try_lock(candidate / "lock")) is not None:
            return Store(candidate), lock
    raise ClusterError(f"image store {tried[0]} is in use by another cluster: take that one down first")


def mounts_environments(forced: str | None, free_bytes: int, imported: bool, spare: bool) -> bool:
    """Whether Python environments are mounted into containers (True) or copied into images (False).

    `forced` is "mount", "image" or None. Left to itself a store copies if it has already, or if there is room and it is
    no spare one, which exists only while another cluster has the first.

    Raises:
        ClusterError: `forced` is something else.
    """
    if forced not in (None, "", "mount", "image"):
        raise ClusterError(f"GENRM_VLLM_IMAGE={forced!r}: say mount or image")
    if forced:
        return forced == "mount"
    return not imported and (spare or free_bytes < FULL_IMAGE_NEEDS)


def is_linked(store: Store, ref: str) -> bool:
    """Whether the image `ref` of this store points to the mounted environments instead of holding a copy."""
    imported = (store.key_of(ref) or "").startswith("full-")
    free = shutil.disk_usage(store.folder).free
    return mounts_environments(os.environ.get("GENRM_VLLM_IMAGE"), free, imported, store.spare)
