"""What the schema takes and the operator cannot do is refused with a sentence."""

from __future__ import annotations

import re
from typing import Any

import pytest
from genrm_api.effective import effective_spec
from genrm_api.rewardmodel import RewardModel
from genrm_api.status import Reason
from genrm_operator.children import children
from genrm_operator.door_source import door_source
from genrm_operator.engines import adapter_for
from genrm_operator.errors import Impossible
from genrm_operator.not_yet import GAPS
from genrm_operator.settings import Settings


def made(spec: dict[str, Any]) -> list[dict[str, Any]]:
    meta = {"name": "judge", "namespace": "rl", "uid": "u-1"}
    whole = {"model": {"uri": "hf://org/judge"}, **spec}
    rm = RewardModel.model_validate({"metadata": meta, "spec": {k: v for k, v in whole.items() if v is not None}})
    return children(rm, adapter_for(rm.spec.engine.name), door_source(), SETTINGS)


SETTINGS = Settings(master_key=b"k" * 32, engine_images={"vllm": "vllm:1", "sglang": "sglang:1"})

CUSTOM = {
    "name": "custom",
    "image": "i",
    "custom": {"command": ["serve"], "sleep": {"path": "/s"}, "wake": {"path": "/w"}, "isSleeping": {"path": "/i"}},
}
PAIR = {"prompt": "2+2?", "better": "4", "worse": "5"}
ASKED: dict[str, dict[str, Any]] = {
    "spec.model.uri": {"model": {"uri": "oci://r.io/judge:1"}},
    "spec.lifecycle.sleep.mode": {"engine": CUSTOM, "lifecycle": {"sleep": {"mode": "Restart"}}},
    "spec.gpu.slots": {"engine": CUSTOM, "gpu": {"sharing": "SharedClaim", "slots": [{"name": "a"}]}},
    "spec.lifecycle.idle": {
        "engine": CUSTOM,
        "lifecycle": {"idle": {"offAfter": "1h"}},
    },
    "spec.scoring.canary": {"engine": CUSTOM, "scoring": {"canary": {"pairs": [PAIR]}}},
}


def test_every_gap_is_asked_for_below() -> None:
    assert set(ASKED) == {gap.field for gap in GAPS}


@pytest.mark.parametrize("field", ASKED)
def test_what_is_missing_is_refused_with_what_to_write_instead(field: str) -> None:
    with pytest.raises(Impossible, match=rf"^{re.escape(field)}: .* is not carried out .*; (write|remove) ") as refused:
        made(ASKED[field])
    assert refused.value.reason == Reason.NOT_SUPPORTED_YET


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"rollout": {"pinDuringLease": True}, "lifecycle": {"sleep": {"mode": "None", "level": 1}}},
        {"gpu": {}, "engine": {"name": "sglang"}},
        {"gpu": {"sharing": "SharedClaim", "slots": [{"name": "a"}]}},
        {"lifecycle": {"sleep": {"mode": "Restart"}}},
        {"type": "Classifier", "scoring": {"mode": "classify"}},
        {"scoring": {"canary": {"pairs": [PAIR]}}},
        {"lifecycle": {"sleep": {"mode": "ScaleToZero"}, "idle": {"sleepAfter": "2m", "offAfter": "1h"}}},
    ],
)
def test_what_is_there_is_made(spec: dict[str, Any]) -> None:
    assert "Deployment" in {child["kind"] for child in made(spec)}


def test_an_endpoint_outside_the_cluster_has_no_children() -> None:
    external = {"type": "External", "model": None, "external": {"url": "https://api.example.com/v1"}}
    assert made(external) == []
    with pytest.raises(Impossible, match=r"^spec\.scoring\.canary: 1 pairs "):
        made(external | {"scoring": {"canary": {"pairs": [PAIR]}}})
    rm = RewardModel.model_validate(
        {"metadata": {"name": "gpt"}, "spec": {k: v for k, v in external.items() if v is not None}}
    )
    assert effective_spec(rm).replicas == 0 and not effective_spec(rm).has_pods
