"""The chart, rendered by the real Helm without a cluster."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from dev.bootstrap import ROOT
from dev.cluster.toolchain import bin_dir

CHART: Final = ROOT / "charts" / "genrm-operator"
Manifest = dict[str, Any]


def helm() -> Path:
    program = bin_dir() / "helm"
    if not program.exists():
        pytest.skip("helm is not built yet; `make test` does it")
    return program


def template(values: Mapping[str, Any], *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(helm()), "template", "genrm-operator", str(CHART), "--namespace", "genrm-system", *words]
    command += ["--values", "-"]
    return subprocess.run(command, input=json.dumps(dict(values)), capture_output=True, text=True, timeout=60)


def render(*words: str, **values: Any) -> dict[tuple[str, str], Manifest]:
    """(kind, name) → manifest. `words` are further arguments of Helm."""
    done = template(values, *words)
    assert done.returncode == 0, done.stderr
    found = [document for document in yaml.safe_load_all(done.stdout) if document]
    return {(document["kind"], document["metadata"]["name"]): document for document in found}


def said(values: Mapping[str, Any]) -> str:
    """Why the chart refuses these values, on one line."""
    done = template(values)
    assert done.returncode != 0, f"the chart takes {dict(values)}"
    return " ".join(done.stderr.split())
