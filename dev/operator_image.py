"""Builds the operator's image from `images/operator.Dockerfile`, on the local base image, without an index or a daemon.

The wheels are downloaded on the host with their hashes checked, and given to the build as a folder, so the build itself
needs no network. The finished archive is cached by the content of everything that goes in.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

from dev import images
from dev.apt import ensure_apt
from dev.bootstrap import ROOT, uv
from dev.cache import atomic_dir, cache_root, locked

REPOSITORY: Final = "local/genrm-operator"
BUILD_BACKEND: Final = "setuptools==80.10.2"
KEPT: Final = 3
"""Archives of the newest images stay in the cache."""
_INPUTS: Final = ("images/operator.Dockerfile", "requirements/operator.txt", "pyproject.toml", "README.md", "LICENSE")
_FOLDERS: Final = ("crds", "operator", "verl_plugin")


class ImageError(Exception):
    """The image could not be built."""


def tag() -> str:
    """Names the image's content: sources, pins, recipe and base."""
    sha = hashlib.sha256(images.base().key.encode())
    files = [ROOT / name for name in _INPUTS]
    for folder in _FOLDERS:
        files += sorted(p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".typed", ".yaml", ".j2"))
    for file in files:
        sha.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return sha.hexdigest()[:12]


def build() -> tuple[str, Path]:
    """Return the image's reference and its archive, built unless the cache has it.

    Raises:
        ImageError: a step failed; the message holds its last output.
    """
    name = tag()
    reference = f"{REPOSITORY}:{name}"
    folder = cache_root() / "images" / f"operator-{name}"
    archive = folder / "image.tar"
    if not archive.exists():
        ensure_apt(("buildah",))
        with locked("operator-image"):
            if not archive.exists():
                wheels = _wheels()
                with atomic_dir(folder) as fresh:
                    _build(reference, wheels, fresh)
                _forget_old(folder.parent)
    return reference, archive


def _forget_old(folder: Path) -> None:
    """Every change of a source makes another image: keep the newest few."""
    for old in sorted(folder.glob("operator-*"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _wheels() -> Path:
    """Every wheel of requirements/operator.txt, and the build backend of our own."""
    pins = ROOT / "requirements" / "operator.txt"
    key = hashlib.sha256(pins.read_bytes() + BUILD_BACKEND.encode()).hexdigest()[:12]
    folder = cache_root() / "wheels" / f"operator-{key}"
    if not folder.exists():
        with atomic_dir(folder) as fresh:
            python = str(uv().with_name("python"))  # uv itself cannot download without installing
            pip = [python, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(fresh)]
            _run(*pip, "--require-hashes", "-r", str(pins))
            _run(*pip, "--no-deps", BUILD_BACKEND)
    return folder


def _build(reference: str, wheels: Path, fresh: Path) -> None:
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
        "--file", str(ROOT / "images" / "operator.Dockerfile"), "--tag", reference, str(ROOT),
    )  # fmt: skip
    _run(*buildah, "push", "--quiet", reference, f"docker-archive:{fresh / 'image.tar'}:{reference}")
    _run(*buildah, "rmi", "--all", "--force")


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
    if done.returncode:
        words = " ".join(command[:6])
        raise ImageError(f"`{words} ...`: exit status {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")


if __name__ == "__main__":
    print(*build())
