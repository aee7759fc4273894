"""Manifests that are refused, with what is said of them, and manifests that are accepted.

The unit tests show them to pydantic, the cluster tier to the API server.
"""

from __future__ import annotations

from typing import Any

from tests.unit.api.broken_scoring import BROKEN_SCORING
from tests.unit.api.broken_spec import BROKEN_SPEC
from tests.unit.api.shapes import PAIR, TEMPLATE, external, hooked, scoring, sleep, slots

BROKEN = {**BROKEN_SPEC, **BROKEN_SCORING}
UNFIT = "must be DNS-1035 (a-z, 0-9, -), at most 40 characters"
BROKEN_NAMES: dict[str, str] = {
    **{name: f"metadata.name: {name} {UNFIT}" for name in ("Judge", "1judge", "j" * 41, "judge-")},
    "judge-pods": "metadata.name: judge-pods could be the headless Service of another RewardModel; write a name that "
    "does not end in -pods",
    "judge-router": "metadata.name: judge-router could be the router of another RewardModel; write a name that does "
    "not end in -router",
    "judge-nodes": "metadata.name: judge-nodes could be the set of nodes of another RewardModel; write a name that "
    "does not end in -nodes",
}
ACCEPTED_NAMES = ("j", "judge-1", "j" * 40, "pods", "router", "judge-podsy", "judgerouter", "judge-pods-2")

ACCEPTED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "nulls are absent": {"engine": None, "replicas": None, "gpu": None, "scoring": {"timeout": None}},
    "bare quantities": {"resources": {"requests": {"cpu": 8, "memory": "16Gi"}, "limits": {"cpu": "500m"}}},
    "a long start": {"engine": {"startupTimeout": "24h"}},
    "longer flags than reserved ones": {"engine": {"args": ["--model-impl=x", "--config-format", "hf", "-O3", "-"]}},
    "a server with hooks": {"engine": hooked(inFlight={"path": "/load"}), **sleep(mode="Engine")},
    "a server with hooks, asleep": {"engine": hooked(), "lifecycle": {"state": "Asleep"}},
    "everything of an engine": {
        "engine": {
            "tensorParallel": 4, "pipelineParallel": 2, "dtype": "bfloat16", "quantization": "fp8", "maxModelLen": 8192,
            "gpuMemoryUtilization": 0.9, "chatTemplate": "{{ messages }}", "image": "r.io:5000/a/b@sha256:00",
        },
        "gpu": {},
    },
    "peers": {
        "access": {
            "clients": [
                {"namespaceSelector": {}, "podSelector": {"matchLabels": {"team": "rl"}}},
                {"ipBlock": {"cidr": "fd00::/8", "except": ["fd00:1::/32"]}},
            ],
            "monitoring": [],
        }
    },
    "an image of weights": {"model": {"uri": "oci://r.io:5000/team/judge:v1"}},
    "a commit, and deep sleep": {"model": {"uri": "hf://a/b", "revision": "0" * 40}, **sleep(level=2)},
    "a classifier": {"type": "Classifier", **scoring(mode="classify", timeout="5s", calibrate={"kind": "sigmoid"})},
    "a classifier behind a router": {
        "type": "Classifier", "engine": {"name": "sglang"}, "routing": {"mode": "Router"},
    },
    "a vLLM classifier without": {"type": "Classifier", "routing": {"mode": "Direct"}},
    "an SGLang of somebody else's": external(url="https://a/classify", format="sglang-classify", model="rm"),
    "its embeddings": external(url="https://a/v1/embeddings", format="openai-embeddings"),
    "an endpoint": external(model="gpt-x", credentialsSecretRef={"name": "key"}) | scoring(mode="pairwise"),
    "a reward API in the cluster": external(
        url="http://rewards.rl.svc:6009/get_reward2", format="get-reward2", credentialsSecretRef={"name": "key"}
    ) | {"replicas": 1, **scoring(mode="classify")},
    "slots by claim": slots({"name": "a"}, {"name": "b"}),
    "slots of a model that is to have none": slots({"name": "a"}) | {"replicas": 0},
    "slots by place": slots(
        {"name": "a", "node": "n1", "devices": [0, 1]}, {"name": "b", "node": "n1", "devices": [2, 3]},
        sharing="Colocated", engine={"tensorParallel": 2},
    ),
    "a replica over two nodes": {
        "gpu": {"nodes": 2}, "engine": {"name": "sglang", "tensorParallel": 8, "pipelineParallel": 2},
        "routing": {"mode": "Router"}, **sleep(mode="None"),
    },
    "a replica over two nodes that goes": {
        "gpu": {"nodes": 2}, "engine": {"tensorParallel": 2}, **sleep(mode="ScaleToZero"),
    },
    "GPUs chosen by hand": {"gpu": {"nodes": 1}, "env": [{"name": "CUDA_VISIBLE_DEVICES", "value": "0"}]},
    "an object of a judge": scoring(judge="rider-json", sampling={"structured": {"jsonObject": True}}),
    "an object of one's own": scoring(
        template=TEMPLATE, parse={"kind": "json", "field": "a.b"}, sampling={"structured": {"jsonObject": True}},
    ),
    "functions around a model": scoring(
        preprocess={"function": "rider_reward.rm_preprocess", "promptKey": "rm_prompt_0"},
        postprocess={"function": "rider_reward.rm_postprocess", "configMap": None},
    ),
    "a function that asks, and a parser": scoring(
        mode="pairwise", preprocess={"function": "alignment_prompt", "configMap": {"name": "own", "key": "a.py"}},
        parse={"kind": "tag", "tag": "result", "values": {"A": 1, "B": 0, "tie": 0.5}}, compat="rm-gallery",
    ),
    "a function that asks for an order": scoring(
        mode="listwise", preprocess={"function": "f"}, parse={"kind": "ranking"},
    ),
    "a template, and a function that reads": scoring(template=TEMPLATE, postprocess={"function": "_f"}),
    "a function before a classifier": {"type": "Classifier", **scoring(preprocess={"function": "f"})},
    "a function behind a classifier": {"type": "Classifier", **scoring(postprocess={"function": "f"})},
    "a function behind a reward server": external(format="slime") | scoring(postprocess={"function": "f"}),
    "no seeds": scoring(sampling={"seeded": False}),
    "a choice": scoring(sampling={"structured": {"choice": ["a", "b"], "jsonObject": False}}),
    "a tournament": scoring(
        mode="pairwise", template=TEMPLATE, parse={"kind": "logprob", "values": {"A": 1, "B": 0}}, order="both",
        schedule={"kind": "active", "budget": 72, "rounds": 3}, aggregate="bt", anchor="reference", normalise="zscore",
        votes={"count": 3, "combine": "median"}, onFailure={"policy": "group_drop"}, canary={"pairs": [PAIR]},
        sampling={"temperature": 0.7, "chatTemplateKwargs": {"enable_thinking": False, "deep": [{"x": None}]}},
    ),
    "a ranking": scoring(mode="listwise", template=TEMPLATE, parse={"kind": "ranking"}, order="hash", anchor="chosen"),
    "the built-in judge of pairs": scoring(mode="pairwise", judge="pairwise-abtie", normalise="rank"),
    "the built-in judge of lists": scoring(
        mode="listwise", judge="listwise-ranking", order="given", votes={"count": 3, "combine": "mean"},
    ),
    "digits": scoring(template=TEMPLATE, parse={"kind": "logprob", "minimum": 0, "maximum": 9}),
    "letters": scoring(mode="pairwise", template=TEMPLATE, parse={"kind": "logprob"}),
    "orders that differ at temperature 0": scoring(
        mode="listwise", votes={"count": 4}, sampling={"temperature": 0}, alone={"vs": "pointwise"},
    ),
    "alone with a text": scoring(mode="listwise", alone={"vs": "chosen"}, anchor="baseline"),
    "alone by itself": scoring(mode="pairwise", alone={"vs": "pointwise", "judge": "pointwise-1-10"}),
    "the scores of RM-Gallery": scoring(
        mode="pairwise", compat="rm-gallery", aggregate="dgr", sampling={"temperature": 0.7, "seed": 3},
    ),
    "an object about two": scoring(
        mode="pairwise", template=TEMPLATE, parse={"kind": "json", "field": "a"},
        sampling={"structured": {"jsonObject": True}},
    ),
    "a life": {
        "lifecycle": {
            "state": "Auto", "sleep": {"mode": "ScaleToZero", "onDrainTimeout": "Abort", "timeout": "5s"},
            "wake": {"timeout": "9m", "verify": True}, "idle": {"sleepAfter": "2m", "offAfter": "2m"},
        },
        "rollout": {"pinDuringLease": False, "surge": True}, "routing": {"mode": "Router"},
    },
    "slots without a surge": slots({"name": "a"}, rollout={"surge": False}),
    "a free pod template": {"podTemplate": {"spec": {"anything": [{"goes": None}]}}},
}  # fmt: skip
