"""Files that the gateway is started with, and what is said of broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from genrm_api.rewardmodel import RewardModel
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.spec_file import read
from pydantic import ValidationError

FLEET = """
apiVersion: genrm.dev/v1alpha1
kind: RewardFleet
metadata: {name: sums}
spec:
  terms:
    - name: right
      rule: {kind: numeric, extract: boxed}
"""
MODEL = """
kind: RewardModel
metadata: {name: api}
spec: {type: External, external: {url: "https://api.example.com/v1"}}
"""


def test_what_kubectl_would_apply_is_read(tmp_path: Path) -> None:
    (path := tmp_path / "spec.yaml").write_text(f"---\n{FLEET}\n---\n{MODEL}\n---\n")
    found = read(path)
    assert found.names == ["sums", "api"]
    assert found.models["api"].served_name == "api" and found.fleets["sums"].namespace == "default"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no RewardModel and no RewardFleet"),
        ("a: [", "is no YAML"),
        ("kind: Pod", "document 1: kind: found 'Pod'; write RewardModel or RewardFleet"),
        ("- 1", "kind: found None"),
        ("kind: RewardFleet", "metadata.name: missing"),
        (f"{FLEET}---{FLEET}", "document 2: the name sums is there twice"),
        (FLEET.replace("kind: numeric", "kind: numerical"), "RewardFleet sums: spec.terms.0.rule.kind"),
        (FLEET.replace("rule:", "rules:"), "RewardFleet sums: spec.terms"),
        (FLEET.replace("boxed", "tag"), "tag: missing with extract tag"),
        (MODEL.replace("https://api.example.com/v1", "api"), "spec.external.url: api is no base URL"),
    ],
)
def test_a_broken_file_is_refused_with_document_and_field(tmp_path: Path, text: str, sentence: str) -> None:
    (path := tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        read(path)
    assert sentence in str(refused.value) and "spec.yaml" in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read(tmp_path / "none.yaml")


TEMPLATED = """
kind: RewardModel
metadata: {name: api}
spec:
  type: External
  external: {url: "https://api.example.com/v1"}
  scoring: {templateFile: judges/polite.j2, parse: {kind: number}}
"""


def test_a_template_may_lie_in_a_file_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "judges").mkdir()
    (tmp_path / "judges" / "polite.j2").write_text("Polite? é\n{{ response }}")
    (path := tmp_path / "spec.yaml").write_text(TEMPLATED)
    monkeypatch.chdir("/")
    assert read(path).models["api"].spec.scoring.template == "Polite? é\n{{ response }}"
    path.write_text(TEMPLATED.replace("judges/polite.j2", str(tmp_path / "judges" / "polite.j2")))
    assert read(path).models["api"].spec.scoring.template == "Polite? é\n{{ response }}"
    path.write_text(TEMPLATED.replace("judges/polite.j2,", "null, template: '{{ response }}',"))
    assert read(path).models["api"].spec.scoring.template == "{{ response }}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "judges/polite.j2 cannot be read: No such file or directory"),
        (b"\xff{{ response }}", "judges/polite.j2 is no text in UTF-8"),
        (b" \n", "judges/polite.j2 is empty; write the question"),
        (b"x" * 32769, "judges/polite.j2 is too large; a template has at most 32768 characters"),
        (b"x" * (1 << 20), "judges/polite.j2 is too large; a template has at most 32768 characters"),
    ],
)
def test_a_file_that_is_no_template_is_named(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    (tmp_path / "judges").mkdir()
    if content is not None:
        (tmp_path / "judges" / "polite.j2").write_bytes(content)
    (path := tmp_path / "spec.yaml").write_text(TEMPLATED)
    with pytest.raises(ConfigurationError) as refused:
        read(path)
    assert "spec.yaml, document 1, RewardModel api: spec.scoring.templateFile: " in str(refused.value)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("[a]", "templateFile: found ['a']; write the path of a file"),
        ("''", "templateFile: found ''; write the path of a file"),
        ("a.j2, template: x", "templateFile: found beside template; write one of them"),
        (".", "cannot be read: Is a directory"),
    ],
)
def test_what_names_no_file_is_refused(tmp_path: Path, written: str, sentence: str) -> None:
    (path := tmp_path / "spec.yaml").write_text(TEMPLATED.replace("judges/polite.j2", written))
    with pytest.raises(ConfigurationError) as refused:
        read(path)
    assert sentence in str(refused.value)


def test_a_resource_of_the_cluster_names_no_file() -> None:
    spec = yaml.safe_load(TEMPLATED)
    with pytest.raises(ValidationError, match="templateFile"):
        RewardModel.model_validate(spec | {"metadata": {"name": "api", "namespace": "rl"}})
