"""The Debian file system that our images stand on, made by debootstrap once per list of packages."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from dev.apt import IMAGE_PACKAGES, ensure_apt
from dev.cache import atomic_dir, cache_root, locked

SUITE = "bookworm"
PACKAGES = (
    "busybox-static",
    "ca-certificates",
    "curl",
    "libgomp1",
    "libnuma1",
    "libsqlite3-0",
    "python3",
    "python3-venv",
)
_EMPTIED = ("var/cache/apt/archives", "var/lib/apt/lists", "var/cache/debconf", "usr/share/doc", "usr/share/man", "dev")


class RootfsError(Exception):
    """The file system could not be made."""


def rootfs_key() -> str:
    """Return what names the file system that `make_rootfs` makes now."""
    return hashlib.sha256(repr((SUITE, PACKAGES, _EMPTIED)).encode()).hexdigest()[:12]


def make_rootfs() -> Path:
    """Return a Debian file system with `PACKAGES`, made on the first call.

    Raises:
        RootfsError: debootstrap failed.
    """
    path = cache_root() / "rootfs" / f"{SUITE}-{rootfs_key()}"
    if path.exists():
        return path
    ensure_apt(IMAGE_PACKAGES)
    with locked("rootfs"):
        if not path.exists():
            with atomic_dir(path) as partial:
                _debootstrap(partial)
                for folder in _EMPTIED:
                    shutil.rmtree(partial / folder, ignore_errors=True)
                    (partial / folder).mkdir(parents=True)
    return path


def _debootstrap(target: Path) -> None:
    command = ["nice", "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(target)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise RootfsError(f"{' '.join(command)}: exit {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
