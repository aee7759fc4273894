"""The command line of a small GRPO run with stock verl, as a user would type it but for the tiny sizes.

Pure: `command` returns what to start; who starts it (the demo, a test) also watches it. The overrides fall in three
parts: the run itself, what a machine without a GPU needs (`dev/verl_cpu`), and where the rewards come from, which is
the part this project adds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dev.models import Layout

BATCH: Final = 4


@dataclass(frozen=True, slots=True)
class GrpoRun:
    """One run: `steps` updates on `BATCH` prompts with `n` rollouts each. `work` gets verl's own output files.

    More `epochs` make the training part of each step longer, so that there is time for a sleep between two scorings.
    """

    python: Path
    models: Path
    work: Path
    rewards: Sequence[str]
    steps: int = 2
    n: int = 4
    epochs: int = 1
    old_trainer: bool = False
    validate_first: bool = False
    overrides: Sequence[str] = ()

    @property
    def samples_per_step(self) -> int:
        return BATCH * self.n


def cluster_rewards(reward_model: str, namespace: str, judgement_log: Path) -> list[str]:
    """Rewards from a RewardModel: the overrides that a user of the product writes."""
    return [
        "reward_model.discovery=k8s",
        f"reward_model.name={reward_model}",
        f"reward_model.namespace={namespace}",
        f"reward_model.judgement_log={judgement_log}",
    ]


def static_rewards(endpoints: Sequence[str], served_name: str, judgement_log: Path, scoring: str = "{}") -> list[str]:
    """Rewards from servers outside any cluster; `scoring` is written as Hydra reads it, `{timeout:20s}`."""
    return [
        "reward_model.discovery=static",
        f"reward_model.endpoints=[{','.join(endpoints)}]",
        f"reward_model.served_name={served_name}",
        f"reward_model.scoring={scoring}",
        f"reward_model.judgement_log={judgement_log}",
    ]


def command(run: GrpoRun, environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The arguments to start and the environment to start them in (`environment` and what the run adds)."""
    arguments = [str(run.python), "-m", "verl.trainer.main_ppo", *run.rewards, *_training(run), *_cpu(), *run.overrides]
    return arguments, {**environment, "VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def _training(run: GrpoRun) -> list[str]:
    layout = Layout(run.models)
    return [
        "algorithm.adv_estimator=grpo",
        f"data.train_files={layout.prompts}",
        f"data.val_files={layout.prompts}",
        f"data.train_batch_size={BATCH}",
        "data.max_prompt_length=64",
        "data.max_response_length=16",
        "data.dataloader_num_workers=0",
        f"actor_rollout_ref.model.path={layout.policy}",
        "actor_rollout_ref.actor.strategy=fsdp2",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={BATCH}",
        f"actor_rollout_ref.actor.ppo_epochs={run.epochs}",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.actor.optim.lr=1e-3",
        f"actor_rollout_ref.rollout.n={run.n}",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.rollout.agent.num_workers=1",
        "reward.num_workers=2",
        "trainer.project_name=genrm",
        "trainer.experiment_name=grpo-toy",
        "trainer.n_gpus_per_node=1",
        "trainer.nnodes=1",
        "trainer.logger=[console]",
        f"trainer.val_before_train={run.validate_first}",
        f"trainer.total_training_steps={run.steps}",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        "trainer.resume_mode=disable",
        f"trainer.use_v1={not run.old_trainer}",
        f"hydra.run.dir={run.work / 'hydra'}",
    ]


def _cpu() -> list[str]:
    """No GPU: no flash-attention, FSDP on gloo, one GPU that Ray only believes in, and more CPUs than there are,
    because verl reserves three for each of its workers."""
    return [
        "trainer.device=cpu",
        "actor_rollout_ref.rollout.name=cpu_hf",
        "actor_rollout_ref.model.use_remove_padding=False",
        "actor_rollout_ref.model.enable_gradient_checkpointing=False",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
        "ray_kwargs.ray_init.num_cpus=16",
        "+ray_kwargs.ray_init.num_gpus=1",
        "+ray_kwargs.ray_init.include_dashboard=False",
        "+ray_kwargs.ray_init.object_store_memory=200000000",
    ]


@dataclass(frozen=True, slots=True)
class Training:
    """What a finished run says about itself in its output. `pushes` are checksums of the weights, before and after."""

    rewards: tuple[float, ...]
    gradients: tuple[float, ...]
    pushes: tuple[float, ...]

    @property
    def learned(self) -> bool:
        """Every step had a gradient and changed the weights (decay alone changes them too, so neither is enough)."""
        return bool(self.gradients) and all(g > 0 for g in self.gradients) and len(set(self.pushes)) == len(self.pushes)


_NUMBER: Final = r"(?:np\.float\d+\()?(-?[0-9.]+(?:e[+-]?[0-9]+)?|nan)"


def read_training(output: str) -> Training:
    """Read verl's console output."""

    def metric(name: str) -> tuple[float, ...]:
        return tuple(float(x) for x in re.findall(re.escape(name) + ":" + _NUMBER, output))

    pushes = tuple(float(x) for x in re.findall(r"\[cpu_hf\] pushed \d+ tensors step=\S+ abs-sum=([0-9.]+)", output))
    return Training(metric("critic/score/mean"), metric("actor/grad_norm"), pushes)


def read_lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    """All lines of a run's `judgements` or `phases` files, oldest first."""
    lines = [json.loads(line) for file in sorted(folder.glob(f"{kind}-*.jsonl")) for line in file.open()]
    return sorted(lines, key=lambda line: float(line.get("ended") or line["at"]))
