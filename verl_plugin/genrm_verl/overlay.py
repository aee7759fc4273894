"""The keys that a verl user may write, each `None` (off) unless they do. No imports: every Hydra program loads this."""

from typing import Any, Final

REWARD_MODEL_KEYS: Final[dict[str, None]] = {
    "discovery": None,  # k8s | static
    "name": None,  # k8s: the RewardModel or RewardFleet
    "namespace": None,  # k8s: where it is; default: the credentials' own namespace
    "endpoints": None,  # static: base URLs of OpenAI-compatible servers
    "served_name": None,  # static: the model's name in requests
    "engine": None,  # static: vllm | sglang | custom, what serves there; default vllm
    "scoring": None,  # static: what spec.scoring is in a RewardModel
    "rules": None,  # Python file, or a list, with the functions of rules of kind python and those around models
    "allow_cluster_code": None,  # k8s: SHA-256, or a list, of code in ConfigMaps that may run in the run
    "secrets": None,  # k8s: folder with endpoints' keys, SECRET/KEY, as Secrets are mounted
    "judgement_log": None,  # directory for one JSON line per judgement
    "on_failure": None,  # what onFailure is in a resource, and in place of all of them that the run would meet
    "breaker": None,  # what spec.breaker is in a RewardFleet, and in its place where the run is on one
    "patience_s": None,  # seconds without a new response before a group is scored as it is, default 300
    "lease_ttl_s": None,  # k8s: how long a dead run keeps its reward model, default 30
    "prewake": None,  # k8s: true to let it sleep until a step's first question is due, default false
}

OVERLAY: Final[dict[str, Any]] = {
    "reward_model": REWARD_MODEL_KEYS,
    "hydra": {"callbacks": {"genrm": {"_target_": "genrm_verl.callback.GenrmCallback"}}},
}
