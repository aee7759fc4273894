"""Makes the Python environments that `make` runs in, from nothing but Python 3.11.

This file runs before anything is installed, so it uses the standard library only. An *environment* is one exported lock
(`requirements/<name>.txt`, hashes checked) installed and byte-compiled once into the cache, keyed by the hash of that
file. On top lies a *layer* in the clone (`.venv/<name>`): a thin virtual environment that sees the cached packages and
adds this clone's own code, so that two clones share gigabytes without sharing code. For a developer the layer points
at the sources; for verl and other frameworks it holds the wheel built from them, as a user would install it.

    python3 dev/bootstrap.py dev [verl-cpu] [engine-cpu] [sglang-cpu] [frameworks]
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dev.cache import atomic_dir, cache_root, locked  # noqa: E402  (the path above makes the clone importable)

UV_VERSION = "0.13.8"
SOURCE_ROOTS = ("crds", "operator", "verl_plugin", ".")
ENGINES = ("engine-cpu", "sglang-cpu", "router")
"""Environments that images are made of: they hold none of our code, so they have no layer in the clone."""
_OURS: dict[Path, tuple[str, ...]] = {ROOT: ("pyproject.toml", "crds", "operator", "verl_plugin")}
WHEELS = {"verl-cpu": {**_OURS, ROOT / "dev" / "verl_cpu": (".",)}, "frameworks": _OURS}
"""What layers get as a user would, beside their environment: our wheel, and the shim that lets verl train without a
GPU."""
APT_PYTHON = ("python3-venv",)


def say(what: str, seconds: float | None = None) -> None:
    took = "" if seconds is None else f" ({seconds:.0f} s)"
    print(f"  {what}{took}", file=sys.stderr, flush=True)


def uv() -> Path:
    """The pinned uv, installed into a private virtual environment of the cache on first use."""
    home = cache_root() / "uv" / UV_VERSION
    with locked("uv"):
        if not (home / ".complete").exists():
            began = time.monotonic()
            _ensure_venv_module()
            with atomic_dir(home) as fresh:
                _run(sys.executable, "-m", "venv", fresh)
                _run(fresh / "bin" / "python", "-m", "pip", "install", "--quiet", f"uv=={UV_VERSION}")
                (fresh / ".complete").touch()
            say(f"uv {UV_VERSION}", time.monotonic() - began)
    return next(p for p in (home / "bin" / "uv", *home.glob("lib/python*/site-packages/bin/uv")) if p.exists())


def env_path(name: str) -> Path:
    """Where the cached environment of `requirements/<name>.txt` lies (whether or not it exists yet)."""
    pins = ROOT / "requirements" / f"{name}.txt"
    key = hashlib.sha256(pins.read_bytes() + sysconfig.get_python_version().encode()).hexdigest()[:12]
    return cache_root() / "venvs" / f"{name}-{key}"


def ensure_env(name: str) -> Path:
    """Install and byte-compile an environment unless the cache has it; return its folder."""
    path = env_path(name)
    tool = uv()
    with locked(f"venv-{name}"):
        if not (path / ".complete").exists():
            began = time.monotonic()
            say(f"environment {name}: installing requirements/{name}.txt ...")
            with atomic_dir(path) as fresh:
                _run(tool, "venv", "--quiet", "--python", sys.executable, "--relocatable", fresh)
                _run(
                    tool, "pip", "sync", "--quiet", "--python", fresh / "bin" / "python", "--require-hashes",
                    "--compile-bytecode", ROOT / "requirements" / f"{name}.txt",
                )  # fmt: skip
                (fresh / ".complete").touch()
            say(f"environment {name}", time.monotonic() - began)
    return path


def ensure_layer(name: str) -> Path:
    """Make `.venv/<name>` in this clone and return its Python."""
    base = ensure_env(name)
    layer = ROOT / ".venv" / name
    stamp = layer / ".base"
    python = layer / "bin" / "python"
    with locked(f"layer-{hashlib.sha256(str(layer).encode()).hexdigest()[:12]}"):
        if not stamp.exists() or stamp.read_text() != str(base):
            shutil.rmtree(layer, ignore_errors=True)
            with atomic_dir(layer) as fresh:
                _run(uv(), "venv", "--quiet", "--python", sys.executable, "--relocatable", fresh)
                (_site(fresh) / "0-genrm-base.pth").write_text(f"{_site(base)}\n")
                (fresh / ".base").write_text(str(base))
        if name == "dev":
            sources = "".join(f"{ROOT / part}\n" for part in SOURCE_ROOTS)
            (_site(layer) / "1-genrm-sources.pth").write_text(sources)
        elif name in WHEELS:
            _install_wheels(layer, python, WHEELS[name])
    return python


def _install_wheels(layer: Path, python: Path, packages: Mapping[Path, tuple[str, ...]]) -> None:
    """Install wheels of this clone's packages, each unless its parts are unchanged."""
    for package, parts in packages.items():
        digest = _digest(package, parts)
        stamp = layer / f".{package.name}-wheel"
        if stamp.exists() and stamp.read_text() == digest:
            continue
        # Setuptools builds in the source folder, and would pack what an earlier build has left there.
        leftovers = [package / "build", *package.glob("*.egg-info")]
        for folder in leftovers:
            shutil.rmtree(folder, ignore_errors=True)
        _run(
            uv(), "pip", "install", "--quiet", "--python", python, "--no-deps", "--no-build-isolation", "--reinstall",
            "--no-cache", package,
        )  # fmt: skip
        for folder in (package / "build", *package.glob("*.egg-info")):
            shutil.rmtree(folder, ignore_errors=True)
        stamp.write_text(digest)


def _digest(root: Path, parts: tuple[str, ...]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        top = root / part
        for file in [top] if top.is_file() else sorted(top.rglob("*")):
            if file.suffix in (".py", ".toml", ".typed", ".j2") and "build" not in file.parts and file.is_file():
                sha.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return sha.hexdigest()


def _site(env: Path) -> Path:
    return env / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"


def _ensure_venv_module() -> None:
    """Debian ships Python without ensurepip unless python3-venv is installed."""
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        from dev.apt import ensure_apt

        ensure_apt(APT_PYTHON)


def _run(*command: str | Path) -> None:
    environment = {
        **os.environ,
        "UV_CACHE_DIR": str(cache_root() / "uv-cache"),
        "UV_HTTP_TIMEOUT": "180",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "UV_LINK_MODE": "hardlink",
    }
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        words = " ".join(str(c) for c in command[:4])
        raise SystemExit(
            f"bootstrap: `{words} ...` failed with exit status {done.returncode}:\n{done.stdout}{done.stderr}"
        )


def main(names: list[str]) -> None:
    if sys.version_info[:2] != (3, 11):
        raise SystemExit(
            f"bootstrap: Python 3.11 is needed, this is {sys.version.split()[0]}; run make with PYTHON=python3.11"
        )
    for name in names or ["dev"]:
        if name in ENGINES:
            ensure_env(name)
        else:
            ensure_layer(name)


if __name__ == "__main__":
    main(sys.argv[1:])
