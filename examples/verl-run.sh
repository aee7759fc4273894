#!/usr/bin/env bash
# GRPO with stock verl, rewards from the RewardModel `judge` in namespace `rl`. Runs where the pods of the cluster can be
# reached, as a service account with the role genrm-client; see docs/how-to/use-in-a-verl-run.md.
#   TRAIN=train.parquet VAL=val.parquet POLICY=Qwen/Qwen3-8B examples/verl-run.sh [more overrides]
set -euo pipefail
: "${TRAIN:?a parquet file of prompts as verl reads them}" "${VAL:?the same, for validation}"

exec python3 -m verl.trainer.main_ppo \
  reward_model.discovery=k8s \
  reward_model.name=judge \
  reward_model.namespace=rl \
  reward_model.judgement_log=judgements \
  algorithm.adv_estimator=grpo \
  data.train_files="$TRAIN" \
  data.val_files="$VAL" \
  data.train_batch_size=256 \
  data.max_prompt_length=1024 \
  data.max_response_length=4096 \
  actor_rollout_ref.model.path="${POLICY:-Qwen/Qwen3-8B}" \
  actor_rollout_ref.actor.ppo_mini_batch_size=64 \
  actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1 \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1 \
  reward.num_workers=8 \
  trainer.project_name=genrm \
  trainer.experiment_name=judge \
  trainer.n_gpus_per_node="${GPUS:-8}" \
  trainer.nnodes="${NODES:-1}" \
  trainer.logger='[console]' \
  "$@"
