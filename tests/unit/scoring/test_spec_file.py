"""Files that the gateway is started with, and what is said of broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.spec_file import read

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
