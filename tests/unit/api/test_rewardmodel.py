"""The resource's own rules, from the Python side."""

from __future__ import annotations

from typing import Any

import pytest
from genrm_api.arguments import RESERVED_ARGS
from genrm_api.rewardmodel import RewardModel
from pydantic import ValidationError

from tests.unit.api.cases import (
    ACCEPTED,
    ACCEPTED_NAMES,
    BROKEN,
    BROKEN_NAMES,
    UNFIT,
)
from tests.unit.api.shapes import CUSTOM, external, hooked, manifest


@pytest.mark.parametrize(("spec", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_manifest_is_refused_with_a_sentence(spec: dict[str, Any], says: str) -> None:
    assert says in refusal(spec)


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_manifest_that_works_is_accepted(spec: dict[str, Any]) -> None:
    RewardModel.model_validate(manifest(spec) | {"status": None})


@pytest.mark.parametrize(("name", "says"), [*BROKEN_NAMES.items(), ("", UNFIT)])
def test_a_name_that_children_cannot_carry_or_have_is_refused(name: str, says: str) -> None:
    assert says in refusal({}, name)


@pytest.mark.parametrize("name", ACCEPTED_NAMES)
def test_a_name_that_only_looks_like_a_childs_is_accepted(name: str) -> None:
    RewardModel.model_validate(manifest({}, name))


def spellings(flag: str) -> list[str]:
    """What an engine's parser takes for `flag`, or might."""
    found = [flag, f"{flag}=x", flag[:-1]]
    if flag.startswith("--"):
        found += [flag.replace("-", "_").replace("__", "--", 1), f"{flag}.key=x", flag[:3]]
    return [word for word in found if word != "-"] + ([f"{flag}x"] if len(flag) == 2 else [])


@pytest.mark.parametrize(
    ("engine", "flag"),
    [
        (engine, flag)
        for engine, reserved in RESERVED_ARGS.items()
        for flag in (*reserved.operator, *reserved.fields, *reserved.secrets)
    ],
)
def test_a_reserved_flag_is_refused_in_every_spelling_that_its_engine_would_understand(engine: str, flag: str) -> None:
    for word in spellings(flag):
        with pytest.raises(ValidationError, match=r"spec\.engine\.args"):
            RewardModel.model_validate(manifest({"engine": {"name": engine, "args": [word]}}))
        RewardModel.model_validate(manifest({"engine": CUSTOM | {"args": [word]}}))


def test_a_flag_is_reserved_for_its_own_engine_only() -> None:
    RewardModel.model_validate(manifest({"engine": {"args": ["--tokenizer-worker-num=2", "--context-length-of-mine"]}}))
    RewardModel.model_validate(manifest({"engine": {"name": "sglang", "args": ["--max-model-len", "--middleware"]}}))


@pytest.mark.parametrize("engine", RESERVED_ARGS)
def test_a_bare_double_dash_is_refused_because_it_would_disarm_what_the_launcher_appends(engine: str) -> None:
    with pytest.raises(ValidationError, match=r"spec\.engine\.args: --"):
        RewardModel.model_validate(manifest({"engine": {"name": engine, "args": ["--"]}}))


FIRST = {"gpu": {"sharing": "SharedClaim", "slots": [{"name": "a"}]}}
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "type": ({}, {"type": "Classifier"}, "spec.type: Classifier was Generative, and cannot change while pods exist"),
    "to an endpoint": ({}, external(), "spec.type: External was Generative, and cannot change while pods exist"),
    "engine": (
        {},
        {"engine": CUSTOM},
        "spec.engine.name: custom was vllm, and cannot change while pods exist; write spec.engine.name: vllm, or "
        "spec.replicas: 0 first",
    ),
    "sharing": (
        FIRST,
        {"gpu": {}},
        "spec.gpu.sharing: Exclusive was SharedClaim, and cannot change while pods exist; write spec.gpu.sharing: "
        "SharedClaim, or spec.replicas: 0 first; spec.gpu.slots: cannot change",
    ),
    "nodes": (
        {"gpu": {"nodes": 2}, "engine": {"tensorParallel": 2}},
        {"gpu": {}, "engine": {"tensorParallel": 2}},
        "spec.gpu.nodes: cannot change while pods exist, which are of another kind; write what was there, or",
    ),
    "hooks": (
        {"engine": hooked()},
        {"engine": CUSTOM},
        "spec.engine.custom.sleep: cannot be removed while pods exist, which nobody could wake any more; write what",
    ),
    "slots": (
        FIRST,
        {"gpu": {"sharing": "SharedClaim", "slots": [{"name": "b"}]}},
        "spec.gpu.slots: cannot change while pods exist, each of which holds one; write what was there, or",
    ),
}


@pytest.mark.parametrize(("before", "after", "says"), CHANGES.values(), ids=CHANGES.keys())
def test_what_pods_stand_on_changes_only_while_there_are_none(
    before: dict[str, Any], after: dict[str, Any], says: str
) -> None:
    new = RewardModel.model_validate(manifest(after))
    for replicas in (None, 0, 1):
        old = RewardModel.model_validate(manifest(before) | {"status": {"replicas": replicas}})
        said = new.refused_change(old)
        assert (said or "").startswith(says) if replicas else said is None


@pytest.mark.parametrize("same", [{}, {"engine": {}}, {"engine": {"name": "vllm"}}, {"gpu": {}}, {"replicas": 3}])
def test_what_only_says_the_default_is_no_change(same: dict[str, Any]) -> None:
    old = RewardModel.model_validate(manifest({}) | {"status": {"replicas": 1}})
    assert RewardModel.model_validate(manifest(same)).refused_change(old) is None


def test_only_what_every_type_allows_is_defaulted() -> None:
    rm = RewardModel.model_validate(manifest({}))
    assert rm.spec.replicas == 1 and rm.served_name == "judge" and rm.spec.engine.name == "vllm"


def refusal(spec: dict[str, Any], name: str = "judge") -> str:
    with pytest.raises(ValidationError) as refused:
        RewardModel.model_validate(manifest(spec, name))
    return str(refused.value)
