"""Manifests of RewardModels, drawn from the CRD's own schema: valid, nearly valid, hostile.

The generator walks the schema, so a new field is tested from the day it is there. What a schema cannot say (which
strings a pattern likes, which values two rules quarrel about) comes from `WORDS`, by the field's name. It rolls its own
dice, from a seed that hypothesis draws: a draw for each of a manifest's hundred choices would cost more than the API
server's answer. `smallest` does by hand what hypothesis then cannot, and shrinks what was found.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, Final

from tests.unit.api.cases import ACCEPTED, BROKEN

WORDS: Final[Mapping[str, tuple[Sequence[Any], Sequence[Any]]]] = {
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
    "judge": (["boxed-true-false"], ["x", ""]),
    "path": (["/x", "/x?level=1&y=%20"], ["", "x", "http://x/", "/x y", "/é", "/x#y", "/x\n", "/" + "x" * 253]),
    "body": (["{}", '{"tags": ["x"]}', "{\n}"], ["", "[]", " {}", "\n{}", "{" + "x" * 4096]),
}  # fmt: skip
WORDS_BY_PARENT: Final = {"except": WORDS["cidr"], "labels": WORDS["values"], "matchLabels": WORDS["values"]}
MAP_KEYS: Final = ["app", "team", "app.io/x", "genrm.dev/serving", "genrm.dev.x/y", "genrm.dev/"]
QUANTITIES: Final = (
    ["1", 8, "500m", "16Gi", "0.5", 0, "1.5Gi", 2.0],
    ["", "-1", "1.5m", "1gi", "1 Gi", -1, 0.5, "1E", 10**15, "1Gi\n", True, "9" * 16],
)
JUNK: Final[list[Any]] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    1.0,
    1.5,
    1e30,
    2**63,
    "",
    "x",
    "1",
    [],
    {},
    [None],
    {"a": None},
    [[]],
    [{}],
]
RARE: Final = 24
"""One value in so many is bad, where a manifest is to be nearly valid."""


class Dice:
    """One manifest's luck. `wild`: one in how many values is bad; 0: none that the schema alone would refuse."""

    def __init__(self, luck: Random, wild: int) -> None:
        self._luck, self._wild = luck, wild

    def one(self, choices: Sequence[Any]) -> Any:
        return self._luck.choice(choices)

    def below(self, n: int) -> int:
        return self._luck.randrange(n)

    def bad(self) -> bool:
        return self._wild > 0 and self.below(self._wild) == 0

    def word(self, words: tuple[Sequence[Any], Sequence[Any]]) -> Any:
        return self.one(words[1] if self.bad() else words[0])


def _value(dice: Dice, schema: Mapping[str, Any], name: str) -> Any:
    if dice.bad() and dice.below(3) == 0:
        return dice.one(JUNK)
    if "enum" in schema:
        return dice.one([*schema["enum"], "Other"] if dice.bad() else schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return dice.word(QUANTITIES)
    match schema.get("type"):
        case "object":
            return _object(dice, schema, name)
        case "array":
            most = schema.get("maxItems", 3)
            size = most + 1 if dice.bad() and most <= 16 else schema.get("minItems", 0) + dice.below(3)
            return [_value(dice, schema["items"], name) for _ in range(size)]
        case "integer" | "number" as kind:
            return _number(dice, schema, kind)
        case "boolean":
            return dice.one([True, False])
        case _:
            return dice.word(WORDS_BY_PARENT.get(name) or WORDS.get(name) or (["x"], ["", "é" * 400]))


def _object(dice: Dice, schema: Mapping[str, Any], name: str) -> Any:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return dice.one([{}, {"nodeSelector": {"a": "b"}}, {"x": [None, {"y": None}], "z": None}])
    if (inner := schema.get("additionalProperties")) is not None:
        keys = MAP_KEYS[:3] if not dice.bad() else MAP_KEYS
        return {dice.one(keys): _value(dice, inner, name) for _ in range(dice.below(3))}
    out = {}
    properties = schema["properties"]
    there = dice.below(1 << len(properties))
    if dice.below(2):
        there &= dice.below(1 << len(properties))  # each with one chance in four
    for number, (key, prop) in enumerate(properties.items()):
        if not dice.bad() if key in schema.get("required", ()) else there >> number & 1:
            out[key] = _value(dice, prop, key)
    if dice.bad() and dice.below(3) == 0:
        out[dice.one(["unknown", "max_model_len", "served_name", ""])] = dice.one(JUNK)
    return out


def _mended(dice: Dice, spec: dict[str, Any]) -> dict[str, Any]:
    """Put right, mostly, what rules between fields would refuse; one such quarrel hides all others."""

    def mostly() -> bool:
        return dice.below(8) > 0

    def part(holder: dict[str, Any], name: str) -> dict[str, Any]:
        found = holder.get(name)
        return found if isinstance(found, dict) else {}

    def drop(holder: dict[str, Any], *names: str) -> None:
        for name in names:
            if mostly():
                holder.pop(name, None)

    if dice.below(2):
        spec["type"] = dice.one(["Generative", "Classifier", "External"])
    if isinstance(env := spec.get("env"), list) and mostly():
        spec["env"] = env[:1]
        for variable in (one for one in spec["env"] if isinstance(one, dict) and mostly()):
            variable.pop("valueFrom", None)
            variable.setdefault("value", "x")
    for peers in part(spec, "access").values():
        for peer in (one for one in (peers if isinstance(peers, list) else []) if isinstance(one, dict) and mostly()):
            if len(peer) != 1:
                peer.clear()
                peer["podSelector"] = {}
    if spec.get("type") == "External":
        drop(spec, *(name for name in list(spec) if name not in ("type", "external", "scoring", "replicas")))
        if mostly():
            spec.setdefault("external", {"url": "https://api.example.com/v1"})
            spec["replicas"] = 1
    else:
        drop(spec, "external")
        if mostly():
            spec.setdefault("model", {"uri": "hf://a/b"})
    scoring, engine, gpu, life = (part(spec, name) for name in ("scoring", "engine", "gpu", "lifecycle"))
    numbers = spec.get("type") == "Classifier" or part(spec, "external").get("format", "openai-chat") != "openai-chat"
    if numbers:
        drop(scoring, *(key for key in list(scoring) if key not in _FOR_NUMBERS))
        if mostly():
            scoring.pop("mode", None)
    elif scoring.get("mode") in ("classify", None):
        drop(scoring, "mode")
    if scoring.get("mode") != "pairwise":
        drop(scoring, "schedule", "aggregate")
    if scoring.get("mode") not in ("pairwise", "listwise"):
        drop(scoring, "order", "anchor")
    if "template" in scoring and mostly():
        scoring.pop("judge", None)
        scoring.setdefault("parse", {"kind": "boxed"})
    elif "template" not in scoring:
        drop(scoring, "parse")
    kind = part(scoring, "parse").get("kind")
    for field, of in (("tag", "tag"), ("pattern", "regex"), ("field", "json")):
        if kind != of:
            drop(part(scoring, "parse"), field)
    if part(scoring, "onFailure").get("policy") != "value":
        drop(part(scoring, "onFailure"), "value")
    if engine.get("name") != "custom":
        drop(engine, "custom")
    elif mostly():
        hooks = {name: {"path": "/x"} for name in ("sleep", "wake", "isSleeping")} if dice.below(2) else {}
        engine |= {"image": "x", "custom": {"command": ["x"], **hooks}}
        drop(engine, "dtype", "quantization", "maxModelLen", "gpuMemoryUtilization", "chatTemplate")
        drop(part(life, "sleep"), "onDrainTimeout", "level")
    for name in ("tensorParallel", "pipelineParallel", "dataParallel"):
        if isinstance(engine.get(name), int) and mostly():
            engine[name] = min(engine[name], 2)
    if gpu.get("sharing") in ("SharedClaim", "Colocated") and mostly():
        gpu["slots"] = [{"name": f"s{n}"} for n in range(1 + dice.below(2))]
        if gpu["sharing"] == "Colocated":
            size = engine.get("tensorParallel", 1) if isinstance(engine.get("tensorParallel", 1), int) else 1
            drop(engine, "pipelineParallel", "dataParallel")
            for slot in gpu["slots"]:
                slot |= {"node": "n1", "devices": list(range(size))}
        if mostly():
            spec["replicas"] = len(gpu["slots"])
        drop(gpu, "nodes")
        drop(spec, "env")
    else:
        drop(gpu, "slots")
    if gpu.get("nodes", 1) != 1 and mostly():
        gpu["nodes"] = engine["tensorParallel"] = 2
        spec["engine"] = engine
        drop(part(life, "sleep"), "mode")
        drop(life, "state")
    if part(life, "sleep").get("level") == 2:
        drop(part(life, "sleep"), "mode")
        if mostly():
            spec["model"] = {"uri": "hf://a/b", "revision": "0" * 40}
    if not str(part(spec, "model").get("uri")).startswith("hf://"):
        drop(part(spec, "model"), "revision", "credentialsSecretRef")
    return spec


_FOR_NUMBERS: Final = ("mode", "normalise", "calibrate", "timeout", "onFailure", "canary")


def _number(dice: Dice, schema: Mapping[str, Any], kind: str) -> Any:
    low, high = schema.get("minimum", 0), schema.get("maximum", 1000)
    good = [v for v in (low, high, (low + high) / 2, low + 1) if low <= v <= high]
    if kind == "integer":
        good = [int(v) for v in good]
    bad = [float(low), low - 1, high + 1, low, high, (low + high) / 2 + 0.25, str(low), 1e30, 2**70, -0.0]
    return dice.one(bad if dice.bad() else good)


def spec(luck: Random, schema: Mapping[str, Any]) -> Any:
    """One spec: valid but for rules between fields, nearly so, hostile, or with one rule's case laid over it."""
    case = luck.choice(CASES) if luck.randrange(3) == 0 else None
    dice = Dice(luck, 0 if case is not None else luck.choice([0, 0, RARE, RARE, 6]))
    found = _value(dice, schema, "spec")
    if not isinstance(found, dict):
        return found
    found = _mended(dice, found)
    return found if case is None else _laid_over(found, case)


CASES: Final = [*(case for case, _ in BROKEN.values()), *ACCEPTED.values()]
"""Each is about one rule; laid over something else it makes that rule speak in other company."""


def _laid_over(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return copy.deepcopy(above)
    merged = below | {key: _laid_over(below.get(key), value) for key, value in above.items()}
    return {key: value for key, value in merged.items() if value is not None or key not in above}


def text(luck: Random, schema: Mapping[str, Any]) -> str:
    """The JSON of one `spec` member, now and then with a key written twice."""
    found = json.dumps(spec(luck, schema), ensure_ascii=False)
    if found.startswith('{"') and luck.randrange(41) == 0:
        key = found[: found.index(":")]
        return f"{key}: null, {found[1:]}"
    return found


def smallest(found: str, differs: Callable[[str], bool]) -> str:
    """`found` without all that can be left out while it still makes the difference."""
    tree = json.loads(found)

    def parts(node: Any) -> Iterator[tuple[Any, Any]]:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            yield node, key
            yield from parts(node[key])

    def without_one() -> bool:
        for holder, key in list(parts(tree)):
            gone = holder.pop(key)
            if differs(json.dumps(tree, ensure_ascii=False)):
                return True
            if isinstance(holder, list):
                holder.insert(key, gone)
            else:
                holder[key] = gone
        return False

    if not differs(json.dumps(tree, ensure_ascii=False)):
        return found  # it was about how it is written
    while without_one():
        pass
    return json.dumps(tree, ensure_ascii=False)
