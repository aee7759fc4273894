"""Debian packages that the development tools call: which are missing, and how to get them.

Each tool names its own packages; `ensure_apt` asks dpkg first, so on a prepared machine it costs a few milliseconds and
needs no network and no root.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable

BUILD_PACKAGES = ("gcc", "libc6-dev", "libseccomp-dev", "pkg-config")  # runc is the one binary that needs cgo
CLUSTER_PACKAGES = ("iptables", "nftables", "conntrack", "iproute2", "util-linux", "openssl")
IMAGE_PACKAGES = ("debootstrap", "tar")
APT_PACKAGES = (*BUILD_PACKAGES, *CLUSTER_PACKAGES, *IMAGE_PACKAGES, "curl", "buildah")


class AptError(Exception):
    """Packages are missing and could not be installed."""


def missing_packages(packages: Iterable[str]) -> list[str]:
    """Return those of `packages` that dpkg does not report as installed, in the order given.

    Raises:
        AptError: there is no dpkg, so this is not a Debian-like machine.
    """
    wanted = list(packages)
    if shutil.which("dpkg-query") is None:
        raise AptError(f"no dpkg on this machine: install the equivalents of {' '.join(wanted)} by hand")
    asked = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *wanted]
    shown = subprocess.run(asked, capture_output=True, text=True, timeout=30)  # exits 1 when one is unknown to it
    installed = {line.split()[0] for line in shown.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in wanted if package not in installed]


def ensure_apt(packages: Iterable[str] = APT_PACKAGES, timeout: float = 900.0) -> list[str]:
    """Install what is missing of `packages` and return what was installed.

    Raises:
        AptError: something is missing and we are not root, or apt-get failed.
    """
    missing = missing_packages(packages)
    if not missing:
        return []
    if os.geteuid() != 0:
        raise AptError(
            f"missing Debian packages: {' '.join(missing)}; run: sudo apt-get install -y {' '.join(missing)}"
        )
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", "-qq"]
    for step in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(
            [*apt, *step],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode:
            raise AptError(f"apt-get {' '.join(step)}: exit {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
    return missing
