"""Our images: their recipes, and what is in them when they are built, as `make test` builds the operator's."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from typing import IO

import pytest

from dev.our_images import GATEWAY, OPERATOR, Image
from tests.unit.rendering import render

pytestmark = pytest.mark.parametrize("image", [OPERATOR, GATEWAY], ids=lambda image: image.name)
RUN = {
    "operator": [("Deployment", "genrm-operator"), ("Pod", "genrm-operator-test")],
    "gateway": [("StatefulSet", "genrm-operator-gateway")],
}
OURS = "opt/genrm/"
BUILD_TOOLS = re.compile(r"bin/(gcc|g\+\+|cc|ld|make|cargo|rustc|go|pip3?)$|-packages/(pip|setuptools|wheel|torch)$")


def stages(image: Image) -> list[str]:
    return re.split(r"^FROM ", image.recipe.read_text(), flags=re.MULTILINE)


def test_any_base_will_do_and_both_stages_stand_on_it(image: Image) -> None:
    assert re.search(r"^ARG BASE_IMAGE=\S+:\S+$", stages(image)[0], re.MULTILINE), "an argument, with a tag by default"
    assert len(stages(image)) == 3
    assert all(stage.startswith("${BASE_IMAGE}") for stage in stages(image)[1:])


def test_what_is_installed_is_pinned_by_hash_and_the_installer_stays_behind(image: Image) -> None:
    assert "--require-hashes" in stages(image)[1] and "pip uninstall" in stages(image)[1]
    assert not re.search(r"^(ADD|RUN)", stages(image)[2], re.MULTILINE), "the last stage only copies"


def test_the_user_is_a_number_and_the_one_of_the_chart(image: Image) -> None:
    uid = re.search(r"^USER (\d+):(\d+)$", stages(image)[2], re.MULTILINE)
    assert uid is not None, "runAsNonRoot cannot check a name"
    values = {"test": {"rewardModel": "rl/judge"}, "gateways": [{"namespace": "rl"}]}
    for kind, name in RUN[image.name]:
        manifest = render(**values)[kind, name]
        spec = manifest["spec"] if kind == "Pod" else manifest["spec"]["template"]["spec"]
        security = spec["securityContext"]
        assert (security["runAsUser"], security["runAsGroup"]) == (int(uid[1]), int(uid[2]))


def test_signals_reach_the_program(image: Image) -> None:
    assert re.search(r'^ENTRYPOINT \["', stages(image)[2], re.MULTILINE), "the exec form: no shell in between"


def test_the_image_holds_no_build_tools_and_nothing_of_ours_that_its_user_could_change(image: Image) -> None:
    archive = image.archive()
    if not archive.exists():
        pytest.skip("the image of this source is not built yet; `make test` builds the operator's, `make proof` both")
    with tarfile.open(archive) as layers:
        found = list(_members(layers))
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
