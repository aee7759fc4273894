"""Builds our images from `images/*.Dockerfile`, on the local base image, without an index or a daemon.

The wheels are downloaded on the host with their hashes checked, and given to the build as a folder, so the build itself
needs no network. The finished archive is cached by the content of everything that goes in.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dev import images
from dev.apt import ensure_apt
from dev.bootstrap import ROOT, uv
from dev.cache import atomic_dir, cache_root, locked

BUILD_BACKEND: Final = "setuptools==80.10.2"
KEPT: Final = 3
"""Archives of the newest of each image stay in the cache."""
_NO_WHEELS: Final = ("antlr4-python3-runtime",)
"""Of the gateway's pins; they are built in the image, with our own build backend."""
_FOLDERS: Final = ("crds", "operator", "verl_plugin")


class ImageError(Exception):
    """The image could not be built."""


@dataclass(frozen=True, slots=True)
class Image:
    """`name` is that of its recipe and of its pins."""

    name: str

    @property
    def repository(self) -> str:
        return f"local/genrm-{self.name}"

    @property
    def recipe(self) -> Path:
        return ROOT / "images" / f"{self.name}.Dockerfile"

    @property
    def pins(self) -> Path:
        return ROOT / "requirements" / f"{self.name}.txt"

    def tag(self) -> str:
        """Names the image's content: sources, pins, recipe and base."""
        sha = hashlib.sha256(images.base().key.encode())
        files = [self.recipe, self.pins, *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE"))]
        for folder in _FOLDERS:
            files += sorted(p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".typed", ".yaml", ".j2"))
        for file in files:
            sha.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
        return sha.hexdigest()[:12]

    def archive(self) -> Path:
        """Where it is, once it is built."""
        return cache_root() / "images" / f"{self.name}-{self.tag()}" / "image.tar"

    def build(self) -> tuple[str, Path]:
        """Return the image's reference and its archive, built unless the cache has it.

        Raises:
            ImageError: a step failed; the message holds its last output.
        """
        reference, archive = f"{self.repository}:{self.tag()}", self.archive()
        if not archive.exists():
            ensure_apt(("buildah",))
            with locked("our-images"):
                if not archive.exists():
                    wheels = self._wheels()
                    with atomic_dir(archive.parent) as fresh:
                        _build(self.recipe, reference, wheels, fresh)
                    self._forget_old(archive.parent.parent)
        return reference, archive

    def _forget_old(self, folder: Path) -> None:
        """Every change of a source makes another image: keep the newest few."""
        for old in sorted(folder.glob(f"{self.name}-*"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _wheels(self) -> Path:
        """Every wheel of its pins, and the build backend of our own."""
        key = hashlib.sha256(self.pins.read_bytes() + BUILD_BACKEND.encode()).hexdigest()[:12]
        folder = cache_root() / "wheels" / f"{self.name}-{key}"
        if not folder.exists():
            with atomic_dir(folder) as fresh:
                python = str(uv().with_name("python"))  # uv itself cannot download without installing
                pip = [python, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(fresh)]
                pip += [f"--no-binary={','.join(_NO_WHEELS)}"]
                _run(*pip, "--require-hashes", "-r", str(self.pins))
                _run(*pip, "--no-deps", BUILD_BACKEND)
        return folder


OPERATOR: Final = Image("operator")
GATEWAY: Final = Image("gateway")


def _build(recipe: Path, reference: str, wheels: Path, fresh: Path) -> None:
    store = ["--root", str(cache_root() / "buildah" / "root"), "--runroot", str(cache_root() / "buildah" / "run")]
    buildah = ["buildah", *store, "--storage-driver", "vfs"]
    base = fresh / "base.tar"
    with base.open("wb") as out:
        images.base().write(out)
    _run(*buildah, "pull", "--quiet", f"docker-archive:{base}")
    base.unlink()
    _run(
        *buildah, "build", "--quiet", "--isolation", "chroot", "--pull-never", "--format", "docker", "--layers=false",
        "--build-arg", f"BASE_IMAGE={images.BASE}", "--build-arg", "PIP_NO_INDEX=1",
        "--build-arg", "PIP_FIND_LINKS=/wheels", "--volume", f"{wheels}:/wheels:ro",
        "--file", str(recipe), "--tag", reference, str(ROOT),
    )  # fmt: skip
    _run(*buildah, "push", "--quiet", reference, f"docker-archive:{fresh / 'image.tar'}:{reference}")
    _run(*buildah, "rmi", "--all", "--force")


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
    if done.returncode:
        words = " ".join(command[:6])
        raise ImageError(f"`{words} ...`: exit status {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")


if __name__ == "__main__":
    for image in (OPERATOR, GATEWAY):
        print(*image.build())
