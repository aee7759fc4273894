"""What the generator of manifests must know of RewardModels."""

from __future__ import annotations

from typing import Any, Final

import yaml
from genrm_api.comparing import JUDGES

from dev.bootstrap import ROOT
from tests.cluster.manifests import Dice, Grammar, Words, drop, mended_function, part
from tests.unit.api.cases import ACCEPTED, BROKEN

CRD: Final = yaml.safe_load((ROOT / "crds" / "genrm.dev_rewardmodels.yaml").read_text())
WORDS: Final[dict[str, Words]] = {
    "uri": (
        ["hf://a/b", "pvc://w", "pvc://w/m/x", "file:///models/tiny", "hf://Qwen/Qwen3-32B", "oci://r.io:5000/a/b:v1"],
        ["hf://a", "s3://b", "pvc://W", "pvc://w/", "file://x", "file:///a/../b", "hf://a/b\n", "hf://a/..", "pvc://w..x",
         "oci://r", "oci://r/A", "oci://r/a:", "oci://r/a@sha256:00", "oci://r/a:v 1"],
    ),
    "revision": (["main", "refs/pr/1", "0" * 40, "0" * 40, "v1.0"], ["", "-x", "a b", "0" * 254, "é", "x\n"]),
    "url": (
        ["https://api.example.com/v1", "http://r.rl.svc:6009/get_reward", "https://[::1]:80/", "http://x", "https://a"],
        ["", "a.b", "ftp://a", "https://a b", "https://u:p@a", "https://a?b", "https://a/../b", "https://-a", "http://a\n",
         "https://a:123456", "https://é", "x" * 513],
    ),
    "model": (["gpt-x", "org/m:1", "a@b"], ["", "a b", "é", "x" * 254]),
    "node": (["n1", "node-2.x"], ["", "N", "-n"]),
    "function": (["f", "_f1", "a.f"], ["", "1f", "a.b.c", ".f", "a.", "é"]),
    "promptKey": (["rm_prompt_0", "é"], ["", "x" * 254]),
    "template": (["{{ response }}", "{{", "é {{ x }}"], ["", "x", "{ { x } }", "{%"]),
    "tag": (["score", "A-b_1"], ["", "1a", "a b", "x" * 64, "<a>"]),
    "pattern": (["(\\d+)", "x"], ["", "x" * 513]),
    "field": (["score", "a.b-c.D_1"], ["", ".a", "a.", "a..b", "é"]),
    "sleepAfter": (["2m", "1s", "24h"], ["0s", "25h", "x"]),
    "offAfter": (["2m", "1h", "119s"], ["0s", "25h", "1s", ""]),
    "prompt": (["2+2?", "é"], ["", "x" * 8193]),
    "better": (["4", "five"], ["", "5"]),
    "worse": (["5", "é"], ["", "4"]),
    "servedName": (["judge", "org/judge-1"], ["", "a b", "x" * 254, "é"]),
    "claimName": (["w", "cache", "m.x"], ["", "W", "-w", "w-", "w\n", "x" * 254]),
    "image": (["me/judge:1", "r.io:5000/a@sha256:00"], ["", " x", "x y", "x" * 513]),
    "name": (
        ["a", "sec-ret", "HF_TOKEN", "A", "B"],
        ["LD_X", "GENRM_", "PYTHONPATH", "a b", "1", "", "VLLM_PLUGINS",
         "SGLANG_RUST_SERVER"],
    ),
    "key": (["k", "token", "app.io/team"], ["", "a b", "/x", "x/", "é", "k\n"]),
    "args": (
        ["--enforce-eager", "--seed", "0", "--model-impl=x", "-", "", "-O3", "x=y", "--config-format"],
        ["--mod", "--midd", "--port=1", "--api_key", "--", "-q", "-qawq", "-tp", "-t", "--hf-token.x=1", "--dtype",
         "--grpc-port", "--tp", "--dp-size=2", "--admin", "--enable-metrics", "--is_embedding", "--device", "--MODEL",
         "--no_enable_sleep_mode", "-asc=2", "--chat_template=x", "=--port", "--port.x", "---", "--model=é"],
    ),
    "command": (["judge", "", "--port"], ["x" * 4097]),
    "value": (["", "x", "é"], ["x" * 4097]),
    "healthPath": (["/", "/health"], ["", "health", "/a b", "/é"]),
    "quantization": (["fp8", "awq"], ["", "FP8", "-x", "x" * 64]),
    "chatTemplate": (["{{ m }}", "/t.jinja", "{"], ["chatml", "", "-{", "--{{x}}", "x\n"]),
    "drainTimeout": (["60s", "1h30m", "24h", "1ms", "1m60s"], ["0s", "24h1ms", "9999999h", "1", "", "1.5s", "1s\n"]),
    "startupTimeout": (["1h", "90m", "24h", "1ms"], ["0s", "24h1ms", "25h", "", "1.5h", "1h\n"]),
    "timeout": (["300s", "2m", "24h"], ["0ms", "25h", "soon", "0h0m0s0ms", "1h1m1s1ms1h"]),
    "resource": (["nvidia.com/gpu", "a/b"], ["gpu", "", "A/b", "a/b/c"]),
    "serviceAccountName": (["judge"], ["", "Judge", "a b"]),
    "schedulerName": (["mine"], ["", "M"]),
    "priorityClassName": (["high"], ["", "H"]),
    "cidr": (
        ["10.0.0.0/8", "fd00::/8", "::/0", "::1/128", "1:2:3:4:5:6:7:8/64", "0.0.0.0/0"],
        ["10.0.0/8", "10.0.0.0/33", "256.0.0.0/8", "fd00::/129", "10.0.0.0", "", "1::2::3/8", "01.0.0.0/8", "::/00"],
    ),
    "values": (["a", "", "A.b-c"], ["-a", "a b", "é", "x" * 64]),
    "choice": (["yes", "no", "\\boxed{True}", "é"], ["", "x" * 257]),
    "judge": ([name for names in JUDGES.values() for name in names], ["x", ""]),
    "path": (["/x", "/x?level=1&y=%20"], ["", "x", "http://x/", "/x y", "/é", "/x#y", "/x\n", "/" + "x" * 253]),
    "body": (["{}", '{"tags": ["x"]}', "{\n}"], ["", "[]", " {}", "\n{}", "{" + "x" * 4096]),
}  # fmt: skip
WORDS.update({"except": WORDS["cidr"], "labels": WORDS["values"], "matchLabels": WORDS["values"]})


def _mended(dice: Dice, spec: dict[str, Any]) -> dict[str, Any]:
    if dice.below(2):
        spec["type"] = dice.one(["Generative", "Classifier", "External"])
    if isinstance(env := spec.get("env"), list) and dice.mostly():
        spec["env"] = env[:1]
        for variable in (one for one in spec["env"] if isinstance(one, dict) and dice.mostly()):
            variable.pop("valueFrom", None)
            variable.setdefault("value", "x")
    for peers in part(spec, "access").values():
        for peer in (
            one for one in (peers if isinstance(peers, list) else []) if isinstance(one, dict) and dice.mostly()
        ):
            if len(peer) != 1:
                peer.clear()
                peer["podSelector"] = {}
    if spec.get("type") == "External":
        drop(dice, spec, *(name for name in list(spec) if name not in ("type", "external", "scoring", "replicas")))
        if dice.mostly():
            spec.setdefault("external", {"url": "https://api.example.com/v1"})
            spec["replicas"] = 1
    else:
        drop(dice, spec, "external")
        if dice.mostly():
            spec.setdefault("model", {"uri": "hf://a/b"})
    scoring, engine, gpu, life = (part(spec, name) for name in ("scoring", "engine", "gpu", "lifecycle"))
    numbers = spec.get("type") == "Classifier" or part(spec, "external").get("format", "openai-chat") != "openai-chat"
    if numbers:
        drop(dice, scoring, *(key for key in list(scoring) if key not in _FOR_NUMBERS))
        if dice.mostly():
            scoring.pop("mode", None)
    elif scoring.get("mode") in ("classify", None):
        drop(dice, scoring, "mode")
    if scoring.get("mode") != "pairwise":
        drop(dice, scoring, "schedule", "aggregate", "compat")
    elif "compat" in scoring:
        drop(dice, scoring, "order", "schedule", "anchor", "normalise", "votes")
        if scoring.get("aggregate") == "bt":
            drop(dice, scoring, "aggregate")
    if scoring.get("mode") not in ("pairwise", "listwise"):
        drop(dice, scoring, "order", "anchor", "alone")
    else:
        if part(scoring, "alone").get("vs") != "pointwise":
            drop(dice, part(scoring, "alone"), "judge")
        drop(dice, scoring, "calibrate")
    if not any(scoring.get("mode", "pointwise") == mode and scoring.get("judge") in JUDGES[mode] for mode in JUDGES):
        drop(dice, scoring, "judge")
    if scoring.get("mode") == "listwise":
        drop(dice, part(scoring, "votes"), "combine")
        if scoring.get("order") in ("balanced", "both"):
            drop(dice, scoring, "order")
    for holder in ("preprocess", "postprocess"):
        mended_function(dice, part(scoring, holder))
    if "template" in scoring:
        drop(dice, scoring, "preprocess")
    if "parse" in scoring or scoring.get("mode") == "listwise":
        drop(dice, scoring, "postprocess")
    if ("template" in scoring or "preprocess" in scoring) and dice.mostly():
        scoring.pop("judge", None)
        if "postprocess" not in scoring and not numbers:
            scoring.setdefault("parse", {"kind": "boxed"})
    elif "template" not in scoring and "preprocess" not in scoring:
        drop(dice, scoring, "parse", *(() if numbers else ("postprocess",)))
    if part(spec, "external").get("format") in ("get-reward", "get-reward2", "openrlhf", "slime"):
        drop(dice, scoring, "preprocess")
    parse = part(scoring, "parse")
    if parse and scoring.get("mode") == "listwise" and dice.mostly():
        parse["kind"] = "ranking"
        drop(dice, parse, "values", "minimum", "maximum")
    kind = parse.get("kind")
    for field, of in (("tag", "tag"), ("pattern", "regex"), ("field", "json")):
        if kind != of:
            drop(dice, parse, field)
    if part(scoring, "sampling").get("seeded") is False:
        drop(dice, part(scoring, "sampling"), "seed")
    structured = part(part(scoring, "sampling"), "structured")
    reads_json = kind == "json" or scoring.get("judge") in ("five-criteria", "rider-json")
    if structured and dice.mostly():
        structured |= {"jsonObject": reads_json} | ({} if reads_json else {"choice": ["a", "b"]})
        drop(dice, structured, *(["choice"] if reads_json else []))
    if part(scoring, "onFailure").get("policy") != "value":
        drop(dice, part(scoring, "onFailure"), "value")
    if engine.get("name") != "custom":
        drop(dice, engine, "custom")
    elif dice.mostly():
        hooks = {name: {"path": "/x"} for name in ("sleep", "wake", "isSleeping")} if dice.below(2) else {}
        engine |= {"image": "x", "custom": {"command": ["x"], **hooks}}
        drop(dice, engine, "dtype", "quantization", "maxModelLen", "gpuMemoryUtilization", "chatTemplate")
        drop(dice, part(life, "sleep"), "onDrainTimeout", "level")
    for name in ("tensorParallel", "pipelineParallel", "dataParallel"):
        if isinstance(engine.get(name), int) and dice.mostly():
            engine[name] = min(engine[name], 2)
    if gpu.get("sharing") in ("SharedClaim", "Colocated") and dice.mostly():
        gpu["slots"] = [{"name": f"s{n}"} for n in range(1 + dice.below(2))]
        if gpu["sharing"] == "Colocated":
            size = engine.get("tensorParallel", 1) if isinstance(engine.get("tensorParallel", 1), int) else 1
            drop(dice, engine, "pipelineParallel", "dataParallel")
            for slot in gpu["slots"]:
                slot |= {"node": "n1", "devices": list(range(size))}
        if dice.mostly():
            spec["replicas"] = len(gpu["slots"])
        drop(dice, gpu, "nodes")
        drop(dice, spec, "env")
    else:
        drop(dice, gpu, "slots")
    if gpu.get("nodes", 1) != 1 and dice.mostly():
        gpu["nodes"] = engine["tensorParallel"] = 2
        spec["engine"] = engine
        drop(dice, part(life, "sleep"), "mode")
        drop(dice, life, "state")
    if "slots" in gpu or gpu.get("nodes", 1) != 1:
        drop(dice, part(spec, "rollout"), "surge")
    if part(life, "sleep").get("level") == 2:
        drop(dice, part(life, "sleep"), "mode")
        if dice.mostly():
            spec["model"] = {"uri": "hf://a/b", "revision": "0" * 40}
    if not str(part(spec, "model").get("uri")).startswith("hf://"):
        drop(dice, part(spec, "model"), "revision", "credentialsSecretRef")
    return spec


_FOR_NUMBERS: Final = (
    "mode", "preprocess", "postprocess", "normalise", "calibrate", "timeout", "onFailure", "canary",
)  # fmt: skip

GRAMMAR: Final = Grammar(
    CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"],
    WORDS,
    _mended,
    [*(case for case, _ in BROKEN.values()), *ACCEPTED.values()],
)
