"""An engine that spans nodes: a LeaderWorkerSet, of which each group is one replica.

The leader is the engine pod as everybody knows it, with the door, the selector's labels and the first rank. Workers
hold the other ranks. They have no port to ask, no door and no label that a Service, a count or a run would see; they
end with their group, which LeaderWorkerSet makes anew as a whole when one of its pods dies: ranks cannot rejoin.
"""

from __future__ import annotations

from typing import Any

from genrm_api.effective import EffectiveSpec
from genrm_api.names import leader_worker_set_name, worker_selector
from genrm_api.rewardmodel import RewardModel

from genrm_operator.children.metadata import metadata
from genrm_operator.children.overlay import lay_over
from genrm_operator.children.pod import bare_template
from genrm_operator.engines import Adapter
from genrm_operator.scaling import ANNOTATION_REPLICAS
from genrm_operator.settings import Settings


def leader_worker_set(
    rm: RewardModel, effective: EffectiveSpec, leader: dict[str, Any], worker: dict[str, Any], replicas: int
) -> dict[str, Any]:
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata(rm, leader_worker_set_name(rm.name), {ANNOTATION_REPLICAS: str(replicas)}),
        "spec": {
            "replicas": replicas,
            # Not LeaderReady: a leader is ready when its workers have joined it.
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {
                "type": "RollingUpdate",
                # A surge group needs as many nodes once more. Where only some of its pods find one, these keep GPUs on
                # which nobody computes, maybe those that another group waits for: nothing here places groups whole.
                "rollingUpdateConfiguration": {"maxUnavailable": 1, "maxSurge": 0},
            },
            "leaderWorkerTemplate": {
                "size": effective.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": leader,
                "workerTemplate": worker,
            },
        },
    }


def worker_template(rm: RewardModel, effective: EffectiveSpec, adapter: Adapter, settings: Settings) -> dict[str, Any]:
    """The pod template of all ranks but the first.

    Raises:
        Impossible: the engine cannot do what the spec asks for, or the overlay takes what is not its own.
    """
    template = bare_template(rm, effective, adapter.worker(rm, settings), worker_selector(rm.name))
    if rm.spec.pod_template is None:
        return template
    return lay_over(template, rm.spec.pod_template, token_is_typed=rm.spec.model.credentials_secret_ref is not None)
