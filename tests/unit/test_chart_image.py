"""The operator's image: its recipe, and what is in it when `make test` has built it."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from typing import IO

import pytest

from dev import operator_image
from dev.bootstrap import ROOT
from dev.cache import cache_root
from tests.unit.rendering import render

RECIPE = (ROOT / "images" / "operator.Dockerfile").read_text()
STAGES = re.split(r"^FROM ", RECIPE, flags=re.MULTILINE)
OURS = "opt/genrm/"
BUILD_TOOLS = re.compile(r"bin/(gcc|g\+\+|cc|ld|make|cargo|rustc|go|pip3?)$|-packages/(pip|setuptools|wheel|torch)$")


def test_any_base_will_do_and_both_stages_stand_on_it() -> None:
    assert re.search(r"^ARG BASE_IMAGE=\S+:\S+$", STAGES[0], re.MULTILINE), "an argument, with a tag by default"
    assert len(STAGES) == 3
    assert all(stage.startswith("${BASE_IMAGE}") for stage in STAGES[1:])


def test_what_is_installed_is_pinned_by_hash_and_the_installer_stays_behind() -> None:
    assert "--require-hashes" in STAGES[1] and "pip uninstall" in STAGES[1]
    assert not re.search(r"^(ADD|RUN)", STAGES[2], re.MULTILINE), "the last stage only copies"


def test_the_user_is_a_number_and_the_one_of_the_chart() -> None:
    uid = re.search(r"^USER (\d+):(\d+)$", STAGES[2], re.MULTILINE)
    assert uid is not None, "runAsNonRoot cannot check a name"
    for kind, name in (("Deployment", "genrm-operator"), ("Pod", "genrm-operator-test")):
        manifest = render(test={"rewardModel": "rl/judge"})[kind, name]
        spec = manifest["spec"]["template"]["spec"] if kind == "Deployment" else manifest["spec"]
        security = spec["securityContext"]
        assert (security["runAsUser"], security["runAsGroup"]) == (int(uid[1]), int(uid[2]))


def test_signals_reach_the_operator() -> None:
    assert re.search(r'^ENTRYPOINT \["', STAGES[2], re.MULTILINE), "the exec form: no shell in between"


def test_the_image_holds_no_build_tools_and_nothing_of_ours_that_its_user_could_change() -> None:
    archive = cache_root() / "images" / f"operator-{operator_image.tag()}" / "image.tar"
    if not archive.exists():
        pytest.skip("the operator's image of this source is not built yet; `make test` does it")
    with tarfile.open(archive) as image:
        found = list(_members(image))
    assert any(member.name.startswith(f"{OURS}lib") for member in found)
    tools = [m.name for m in found if BUILD_TOOLS.search(m.name)]
    assert not tools
    writable = [m.name for m in found if m.name.startswith(OURS) and not m.issym() and (m.mode & 0o022 or m.uid)]
    assert not writable


def _members(image: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    (manifest,) = json.load(_part(image, "manifest.json"))
    for layer in manifest["Layers"]:
        with tarfile.open(fileobj=_part(image, layer)) as files:
            yield from files


def _part(image: tarfile.TarFile, name: str) -> IO[bytes]:
    part = image.extractfile(name)
    assert part is not None
    return part
