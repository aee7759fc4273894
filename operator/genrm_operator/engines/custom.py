"""An HTTP server of the user's own. It has no door and cannot sleep: it serves while the kubelet says that it lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genrm_api.rewardmodel import RewardModel
from genrm_api.status import Reason

from genrm_operator.engines.adapter import Call, Capabilities, Container
from genrm_operator.engines.weights import locate
from genrm_operator.errors import Impossible
from genrm_operator.settings import Settings


class Custom:
    has_door = False
    capabilities = Capabilities()
    asleep: Call | None = None
    guarded = Call("GET", "/")
    about: Sequence[Call] = ()

    def container(self, rm: RewardModel, settings: Settings) -> Container:
        engine = rm.spec.engine
        assert engine.custom is not None and engine.image is not None, "the CRD's rules require both"
        weights = locate(rm, settings)
        return Container(
            image=engine.image,
            command=engine.custom.command,
            args=engine.args or (),
            env={"GENRM_MODEL": weights.path, "GENRM_SERVED_NAME": rm.served_name},
            health_path=engine.custom.health_path,
            volumes=weights.volumes,
            mounts=weights.mounts,
        )

    def worker(self, rm: RewardModel, settings: Settings) -> Container:
        raise Impossible(Reason.NODES_NOT_SUPPORTED, "spec.gpu.nodes: engine custom runs on one node; remove it")

    def sleep(self, rm: RewardModel) -> Sequence[Call]:
        raise Impossible(
            Reason.CANNOT_SLEEP, "spec.engine.name: custom has no sleep; use vllm or sglang to give memory back"
        )

    def wake(self, rm: RewardModel) -> Sequence[Call]:
        raise Impossible(Reason.CANNOT_SLEEP, "spec.engine.name: custom never sleeps, so it has no wake")

    def first_question(self, rm: RewardModel) -> Call | None:
        return None

    def unfit(self, rm: RewardModel, about: Mapping[str, Any]) -> str | None:
        return None
