"""From `spec.model.uri` to a path inside the container and the volume that makes it appear there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from genrm_api.rewardmodel import RewardModel

from genrm_operator.engines.adapter import MODEL_MOUNT
from genrm_operator.errors import Impossible
from genrm_operator.settings import Settings


@dataclass(frozen=True, slots=True)
class Weights:
    path: str
    volumes: Sequence[Mapping[str, Any]] = ()
    mounts: Sequence[Mapping[str, Any]] = ()


def locate(rm: RewardModel, settings: Settings) -> Weights:
    """Resolve the model's uri.

    Raises:
        Impossible: a `file://` path outside the prefixes that this installation allows.
    """
    scheme, _, rest = rm.spec.model.uri.partition("://")
    if scheme == "hf":
        return Weights(rest)
    mounts = ({"name": "model", "mountPath": MODEL_MOUNT, "readOnly": True},)
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        volume = {"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        return Weights(str(PurePosixPath(MODEL_MOUNT) / path), (volume,), mounts)
    if not any(PurePosixPath(rest).is_relative_to(prefix) for prefix in settings.host_model_prefixes):
        allowed = ", ".join(settings.host_model_prefixes) or "none"
        raise Impossible(
            "HostPathRefused",
            f"spec.model.uri: {rm.spec.model.uri} is a folder of the node; this installation allows such models only "
            f"below hostModelPrefixes ({allowed}); use hf:// or pvc://, or ask your platform team to add the prefix",
        )
    return Weights(MODEL_MOUNT, ({"name": "model", "hostPath": {"path": rest}},), mounts)
