"""TRL's GRPO with rewards from a RewardModel or RewardFleet.

    pip install '.[gateway]' trl       # in a checkout
    GENRM_TARGET=rl/team python trl_grpo.py MODEL DATASET        a cluster's, or
    GENRM_SPEC=rules.yaml python trl_grpo.py MODEL DATASET       rules and endpoints of a file

The data set has the columns `prompt` and `ground_truth`, as parquet or JSON lines.
"""

import os
import sys

import torch
from datasets import load_dataset
from genrm_scoring.frameworks import trl_reward
from genrm_scoring.rewards import rewards_from
from trl import GRPOConfig, GRPOTrainer


def main() -> None:
    model, data = sys.argv[1:3]
    kind = "parquet" if data.endswith(".parquet") else "json"
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=trl_reward(rewards_from(os.environ)),
        args=GRPOConfig(
            output_dir=os.environ.get("OUT", "trl-out"),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=int(os.environ.get("TOKENS", "256")),
            max_steps=int(os.environ.get("STEPS", "-1")),
            logging_steps=1,
            report_to=[],
            bf16=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=load_dataset(kind, data_files=data, split="train"),
    )
    trainer.train()


if __name__ == "__main__":
    main()
