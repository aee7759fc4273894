"""verifiers before 0.4: an environment whose rubric is a RewardModel or RewardFleet; `load_environment(...)`."""

from typing import Any

import verifiers as vf
from datasets import load_dataset
from genrm_scoring.frameworks import verifiers_reward
from genrm_scoring.rewards import rewards_of_cluster, rewards_of_file


def load_environment(
    data: str, target: str | None = None, namespace: str | None = None, spec: str | None = None
) -> Any:
    """`data`: JSON lines with `prompt` (messages) and `answer`. `spec`: a file of rules instead of a cluster."""
    rewards = rewards_of_file(spec, target) if spec is not None else rewards_of_cluster(str(target), namespace)
    dataset = load_dataset("json", data_files=data, split="train")
    return vf.SingleTurnEnv(dataset=dataset, rubric=vf.Rubric(funcs=[verifiers_reward(rewards)]))
