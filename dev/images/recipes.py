"""What our images are made of.

An engine image is the Debian base plus the packages of a Python environment, placed where a stock engine image has
them: in the system Python's own folder, so that `python3 -m vllm...` finds them and nothing of this machine's
interpreter goes in. Where the disk is too small for a copy of such an environment, the image holds a symbolic link
instead, to where the node mounts all environments read-only; a pod's spec is the same either way.
"""

import hashlib
from pathlib import Path

from dev import sglang_cpu
from dev.images.archive import Image, Layer
from dev.images.rootfs import make_rootfs, rootfs_key

PAUSE = "local/pause:1"
COREDNS = "local/coredns:1.15.0"
BASE = "local/base:1"
VLLM = "local/vllm-cpu:0.32.0"
SGLANG = "local/sglang-cpu:0.5.23"
ROUTER = "local/sglang-router:0.3.2"

_PACKAGES_FOLDER = "/usr/local/lib/python3.11/dist-packages"
_SHIM_FOLDER = "/usr/local/lib/genrm-sglang-shim"


def pause(binaries: Path) -> Image:
    """The program that holds a pod's namespaces."""
    return _single_program(PAUSE, binaries / "pause")


def coredns(binaries: Path) -> Image:
    """The cluster's DNS server."""
    return _single_program(COREDNS, binaries / "coredns")


def _single_program(ref: str, program: Path) -> Image:
    target = f"/{program.name}"
    return Image(ref, program.parent.name, (Layer(((program, target),)),), entrypoint=(target,))


def base() -> Image:
    """Debian with Python, curl and busybox."""
    return Image(BASE, rootfs_key(), (_debian(),), command=("/bin/sh",))


def _debian() -> Layer:
    return Layer(((make_rootfs(), "/"),), keep_owners=True)


def vllm(environment: Path, mounted_at: tuple[Path, str] | None) -> Image:
    return engine(VLLM, environment, mounted_at, "vllm.entrypoints.openai.api_server")


def sglang(environment: Path, mounted_at: tuple[Path, str] | None) -> Image:
    """SGLang with what lets it run without a GPU (`dev.sglang_cpu`) where a stock image has the CUDA packages."""
    return engine(SGLANG, environment, mounted_at, "sglang.launch_server", (sglang_cpu.SHIM, _SHIM_FOLDER))


def router(environment: Path, mounted_at: tuple[Path, str] | None) -> Image:
    return engine(ROUTER, environment, mounted_at, "sglang_router.launch_router")


def engine(
    ref: str,
    environment: Path,
    mounted_at: tuple[Path, str] | None,
    start: str,
    imports: tuple[Path, str] | None = None,
) -> Image:
    """An engine image from a virtual environment of Python 3.11.

    Args:
        ref: the image's name.
        environment: the virtual environment.
        mounted_at: if the node mounts environments: the host's folder of them, and where containers see it.
        start: the Python module that is the image's own command.
        imports: a folder of this machine to import from before the environment, and its place in the image.

    Raises:
        ValueError: the environment is not below the mounted folder.
        FileNotFoundError: there is no environment.
    """
    packages = next(environment.glob("lib/python3.*/site-packages"), None)
    if packages is None:
        raise FileNotFoundError(
            f"{environment} is no virtual environment: python3 dev/bootstrap.py engine-cpu sglang-cpu router makes them"
        )
    placed = [(packages, _PACKAGES_FOLDER)]
    placed += [(path, f"/usr/local/lib/{path.name}") for path in sorted(environment.glob("lib/*.so*"))]
    installed = sorted(path.name for path in packages.glob("*.dist-info"))
    facts: tuple[object, ...] = (rootfs_key(), packages.parent.name, installed)
    own = (imports,) if imports else ()
    if imports:
        facts += tuple(file.read_bytes() for file in sorted(imports[0].rglob("*.py")))
    content = hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
    if mounted_at:
        folder, seen_at = mounted_at
        links = tuple((target, f"{seen_at}/{source.relative_to(folder)}") for source, target in placed)
        layer = Layer(own, links)
        key = f"mounted-{environment.name}-{content}"
    else:
        layer = Layer((*placed, *own))
        key = f"full-{content}"
    environ = (f"PYTHONPATH={imports[1]}",) if imports else ()
    return Image(ref, key, (_debian(), layer), entrypoint=("python3", "-m", start), environment=environ)
