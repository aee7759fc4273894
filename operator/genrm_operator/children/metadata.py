"""What the metadata of every child says: whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genrm_api.names import API_VERSION, LABEL_REWARD_MODEL
from genrm_api.rewardmodel import RewardModel


def metadata(rm: RewardModel, name: str, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        **({"annotations": dict(annotations)} if annotations else {}),
        "name": name,
        "namespace": rm.namespace,
        "labels": {
            LABEL_REWARD_MODEL: rm.name,
            "app.kubernetes.io/name": "reward-model",
            "app.kubernetes.io/instance": rm.name,
            "app.kubernetes.io/managed-by": "genrm-operator",
        },
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "RewardModel",
                "name": rm.name,
                "uid": rm.metadata["uid"],
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }
