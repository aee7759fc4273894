"""vLLM (0.32 is what is tested): an OpenAI-compatible server whose dev-mode routes sleep and wake it.

The stock image runs unchanged: the command is our launcher, mounted from a ConfigMap, which puts the door in the server
and then becomes it. Sleep and wake routes: vLLM `vllm/entrypoints/serve/sleep/api_router.py`.
"""

from __future__ import annotations

from typing import Final

from genrm_api.names import ENGINE_PORT
from genrm_api.rewardmodel import RewardModel

from genrm_operator.engines.adapter import Call, Container
from genrm_operator.engines.weights import locate
from genrm_operator.settings import Settings

DOOR_MOUNT: Final = "/genrm"
CACHE_MOUNT: Final = "/cache"


class Vllm:
    has_door = True

    def container(self, rm: RewardModel, settings: Settings) -> Container:
        engine = rm.spec.engine
        weights = locate(rm, settings)
        args = ["--model", weights.path, "--served-model-name", rm.served_name, "--port", str(ENGINE_PORT)]
        if engine.tensor_parallel > 1:
            args += ["--tensor-parallel-size", str(engine.tensor_parallel)]
        if rm.spec.gpu is not None:
            args.append("--enable-sleep-mode")  # vLLM refuses the flag on CPU, where sleep works as a state without it
        return Container(
            image=engine.image or settings.engine_images["vllm"],
            command=("python3", f"{DOOR_MOUNT}/genrm_door/launcher.py", "--engine", "vllm", "--"),
            args=(*args, *(engine.args or ())),
            env={
                "HOME": f"{CACHE_MOUNT}/home",
                "HF_HOME": f"{CACHE_MOUNT}/huggingface",
                "VLLM_CACHE_ROOT": f"{CACHE_MOUNT}/vllm",
                "VLLM_NO_USAGE_STATS": "1",
            },
            health_path="/health",
            volumes=weights.volumes,
            mounts=weights.mounts,
        )

    def sleep(self, rm: RewardModel) -> Call:
        # The door has drained the pod, so nothing is left that mode=abort could hurt.
        return Call("POST", "/sleep", {"level": str(rm.spec.lifecycle.sleep.level)})

    def wake(self, rm: RewardModel) -> Call:
        return Call("POST", "/wake_up")

    def is_asleep(self) -> Call:
        return Call("GET", "/is_sleeping")
