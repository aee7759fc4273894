"""verl's entry point: registers the CPU platform and the rollout backend `cpu_hf`."""

import os

if os.environ.get("VERL_PLATFORM", "").lower() == "cpu":
    from .register import register

    register()
