"""Who may import whom is checked, and the check can fail."""

from __future__ import annotations

import shutil
from pathlib import Path

from dev.bootstrap import ROOT
from dev.checks import import_contracts

CODE = ("crds", "operator", "verl_plugin")
BREACHES = {
    "genrm_scoring.forecast -> kubernetes": ("verl_plugin/genrm_scoring/forecast.py", "import kubernetes"),
    "genrm_verl.phases -> kubernetes": ("verl_plugin/genrm_verl/phases.py", "from kubernetes.aio import client"),
    "genrm_door.gate -> genrm_api": ("operator/genrm_door/gate.py", "import genrm_api"),
}


def test_an_import_that_a_contract_forbids_is_named(tmp_path: Path) -> None:
    for folder in CODE:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert import_contracts(tmp_path) is None
    for file, line in BREACHES.values():
        with (tmp_path / file).open("a", encoding="utf-8") as code:
            code.write(f"{line}\n")
    said = import_contracts(tmp_path)
    assert said is not None and all(breach in said for breach in BREACHES), said
