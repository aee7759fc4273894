"""For tests only: unmodified verl 0.9 trains on a machine without a GPU.

verl brings no platform and no rollout backend for CPUs. Both are registries, so this package adds one of each:
`platform` (what verl asks about its device) and `rollout` (a Ray actor that generates with transformers and takes new
weights after every step). `plugin` registers them, and only with VERL_PLATFORM=cpu in the environment. Everything that
makes a run a GRPO run (data, agent loop, reward loop, advantages, FSDP2 update, weight push) is verl's own.
"""
