"""What we tell people to type, open and apply: examples are valid, and what the manual names exists."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from genrm_scoring.judges import judge_of

from dev.bootstrap import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
EXAMPLES = sorted(ROOT.glob("examples/*.yaml"))
ALL_EXAMPLES = sorted(ROOT.glob("examples/**/*.*"))
FOLDERS = "charts|crds|dev|docs|examples|images|operator|requirements|tests|verl_plugin"


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fenced(page: Path, language: str) -> Iterator[str]:
    """The code blocks of a page in one language."""
    for block in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        yield block[1]


RESOURCES: dict[object, type[RewardModel | RewardFleet]] = {"RewardModel": RewardModel, "RewardFleet": RewardFleet}


def resources() -> Iterator[tuple[str, dict[str, object]]]:
    texts = [(named(path), path.read_text()) for path in EXAMPLES]
    texts += [(named(page), block) for page in PAGES for block in fenced(page, "yaml")]
    for name, text in texts:
        for document in yaml.safe_load_all(text):
            if isinstance(document, dict) and document.get("kind") in RESOURCES:
                yield f"{name}: {document['metadata']['name']}", document


@pytest.mark.parametrize("manifest", [pytest.param(manifest, id=name) for name, manifest in resources()])
def test_every_resource_of_ours_that_we_show_is_valid(manifest: dict[str, Any]) -> None:
    made = RESOURCES[manifest["kind"]].model_validate(manifest)
    if isinstance(made, RewardModel):
        judge_of(made.spec.scoring)


@pytest.mark.parametrize("file", ["examples/rewardmodel.yaml", "examples/rewardfleet.yaml"])
def test_there_is_one_to_start_from(file: str) -> None:
    assert any(name.startswith(file) for name, _ in resources())


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{named(page)} links to {target}"
        if anchor:
            assert anchor in headings(file), f"{named(page)} links to {target}, which has no such heading"


def headings(page: Path) -> set[str]:
    """Anchors as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_of_ours_that_a_page_names_exists(page: Path) -> None:
    for path in re.findall(rf"(?<![\w./-])((?:{FOLDERS})/[\w./*-]*)", page.read_text()):
        wanted = path.rstrip("./")
        assert list(ROOT.glob(wanted)), f"{named(page)} names {path}"


@pytest.mark.parametrize("page", [*PAGES, *(p for p in ALL_EXAMPLES if "__pycache__" not in p.parts)], ids=named)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text()):
        assert target in targets, f"{named(page)} names make {target}"


def test_the_index_lists_every_page_of_the_manual() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)\)", index.read_text())}
    missing = [named(page) for page in ROOT.glob("docs/**/*.md") if page != index and page not in listed]
    assert not missing, f"docs/README.md does not list {', '.join(missing)}"


@pytest.mark.parametrize("script", sorted(ROOT.glob("examples/*.sh")), ids=named)
def test_every_example_script_is_one(script: Path) -> None:
    assert script.stat().st_mode & 0o111, f"{named(script)} is not executable"
    subprocess.run(["bash", "-n", script], check=True, timeout=10)


def test_the_page_of_permissions_says_what_the_chart_does() -> None:
    page = (ROOT / "docs" / "reference" / "rbac.md").read_text()
    _, operator, client, *_ = re.split(r"^## ", page, flags=re.MULTILINE)
    assert table(operator) == rules("genrm.operatorRules")
    assert table(client) == rules("genrm.clientRules")


def rules(name: str) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of one list of rules in the chart."""
    text = (ROOT / "charts" / "genrm-operator" / "templates" / "_helpers.tpl").read_text()
    block = re.search(rf'define "{re.escape(name)}" -}}}}\n(.*?){{{{- end', text, re.DOTALL)
    assert block is not None, f"the chart defines no {name}"
    return {
        (group or "core", resource, verb)
        for rule in yaml.safe_load(block[1])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def table(section: str) -> set[tuple[str, str, str]]:
    rows = (
        [cell.strip(" `") for cell in line.split("|")[1:4]] for line in section.splitlines() if line.startswith("| ")
    )
    return {(group, resource, verb) for group, resource, verb in rows if group != "group"}
