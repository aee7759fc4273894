"""What the generator of manifests must know of RewardFleets."""

from __future__ import annotations

from typing import Any, Final

import yaml

from dev.bootstrap import ROOT
from tests.cluster.manifests import Dice, Grammar, Words, drop, mended_function, part
from tests.unit.api.fleet_cases import ACCEPTED, BROKEN

CRD: Final = yaml.safe_load((ROOT / "crds" / "genrm.dev_rewardfleets.yaml").read_text())
WORDS: Final[dict[str, Words]] = {
    "name": (["a", "b", "c_1"], ["", "A", "a-b", "1", "x" * 41, "max", "if", "é", "a\n"]),
    "term": (["a", "b"], ["", "A", "z", "a-b"]),
    "expression": (
        ["a", "a + b", "clip(a, 0, 1) if b >= 0.5 else -a", "a*a", "(a", "a b", "2a"],
        ["", "z", "a + z", "1", "a'", "a\n", "é", "a.b.c", "a[0]", "1e5*a", "lambda a", "__a__", "a" * 513],
    ),
    "url": (
        ["http://r.rl.svc:6009/get_reward", "https://a", "http://x"],
        ["", "a.b", "https://u:p@a", "https://a/../b", "http://a\n", "x" * 513],
    ),
    "timeout": (["60s", "24h", "1ms"], ["0s", "25h", "x", ""]),
    "tag": (["answer", "A-b_1"], ["", "1a", "<a>", "x" * 64]),
    "tags": (["think", "answer", "x"], ["", "1a", "a b"]),
    "after": (["####", "é"], ["", "x" * 65]),
    "pattern": (["x", "(\\d+)"], ["", "x" * 513]),
    "function": (["f", "_f1", "a.f"], ["", "1f", "a.b.c", ".f", "a.", "é"]),
    "promptKey": (["rm_prompt_0", "é"], ["", "x" * 254]),
    "key": (["rules.py", "k"], ["", "a b", "é"]),
}
_SOURCES: Final = ("rewardModel", "rule", "api")


def _mended(dice: Dice, spec: dict[str, Any]) -> dict[str, Any]:
    found = spec.get("terms")
    terms = [term for term in found if isinstance(term, dict)] if isinstance(found, list) else []
    for term, name in zip(terms, "abcdefghijklmnopqr", strict=False):
        if dice.mostly():
            term["name"] = name
        source = dice.one(_SOURCES)
        drop(dice, term, *(other for other in _SOURCES if other != source))
        if dice.mostly():
            term.setdefault(source, {"kind": "exact"} if source == "rule" else {"name": "m", "url": "http://x"})
        if source == "api":
            _mended_api(dice, part(term, "api"))
        if source != "rewardModel":
            drop(dice, term, "critic", "preprocess", "postprocess")
        if "preprocess" in term or "postprocess" in term:
            drop(dice, term, "critic")
        for holder in ("preprocess", "postprocess", "rule"):
            mended_function(dice, part(term, holder))
        if source == "rewardModel":
            drop(dice, part(term, "rewardModel"), "url")
            if dice.mostly():
                term["rewardModel"] = {"name": "judge-1"}
            if "critic" in term and dice.mostly():
                term["critic"] = {"name": "critic-1"}
        if term.get("weight") == 0:
            drop(dice, term, "weight")
        _mended_rule(dice, part(term, "rule"))
        steps = term.get("transform")
        for step in steps if isinstance(steps, list) else []:
            if isinstance(step, dict):
                _mended_step(dice, step)
        normalise = part(term, "normalise")
        if normalise.get("kind") != "zscore" or normalise.get("scope") != "running":
            drop(dice, normalise, "halfLife")
        if normalise.get("kind") == "rank":
            drop(dice, normalise, "scope")
        _mended_value(dice, part(term, "onFailure"))
        gate = part(term, "gate")
        _mended_value(dice, part(gate, "else"))
        drop(dice, gate, dice.one(["equals", "atLeast"]))
    if terms and any("gate" in term for term in terms) and dice.mostly():
        terms[0].pop("gate", None)
        terms[0] |= {"name": "a", "rule": {"kind": "exact"}}
        for source in ("rewardModel", "api", "critic", "preprocess", "postprocess"):
            terms[0].pop(source, None)
        for term in terms[1:]:
            if "gate" in term:
                term["gate"] = part(term, "gate") | {"term": "a"}
    if spec.get("combine") == "expression":
        if dice.mostly():
            spec.setdefault("expression", "a")
        for term in terms:
            drop(dice, term, "combine", "gate")
    else:
        drop(dice, spec, "expression")
    if spec.get("combine", "add") not in ("add", "mul"):
        drop(dice, spec, "initial", "compat")
        for term in terms:
            drop(dice, term, "combine")
    if "compat" in spec:
        drop(dice, spec, "initial")
        for term in terms:
            drop(dice, term, "gate")
        if terms and dice.mostly():
            for name in ("rewardModel", "api", "critic", "preprocess", "postprocess", "combine"):
                terms[0].pop(name, None)
            terms[0]["rule"] = {"kind": "exact"}
    _mended_value(dice, part(spec, "onFailure"))
    return spec


def _mended_api(dice: Dice, api: dict[str, Any]) -> None:
    drop(dice, api, "name", "credentialsSecretRef")
    if dice.mostly():
        api |= {"url": dice.one(["http://x", "https://a/v1"])}
    if api.get("format") != "openai-embeddings":
        drop(dice, api, "model")
    elif dice.mostly():
        api.setdefault("model", "bge")


def _mended_value(dice: Dice, policy: dict[str, Any]) -> None:
    if policy.get("policy") != "value":
        drop(dice, policy, "value")
    elif dice.mostly():
        policy.setdefault("value", 0.5)


_OF_RULES: Final = {
    "exact": ("extract", "tag", "after", "ignoreCase"),
    "numeric": ("extract", "tag", "after", "tolerance"),
    "math": ("extract", "tag", "after"),
    "regex": ("pattern",),
    "format": ("tags",),
    "length": ("unit", "minimum", "maximum", "margin"),
    "python": ("function", "configMap"),
}


def _mended_rule(dice: Dice, rule: dict[str, Any]) -> None:
    kept = ("kind", *_OF_RULES.get(str(rule.get("kind")), ()))
    drop(dice, rule, *(name for name in list(rule) if name not in kept))
    for way in ("tag", "after"):
        if rule.get("extract") != way:
            drop(dice, rule, way)
        elif dice.mostly():
            rule.setdefault(way, "x")
    needed = {"regex": ("pattern", "x"), "format": ("tags", ["think"]), "python": ("function", "f")}
    if (need := needed.get(str(rule.get("kind")))) is not None and dice.mostly():
        rule.setdefault(*need)
    if rule.get("kind") == "length" and dice.mostly():
        rule |= {"minimum": 1, "maximum": 1 + dice.below(2)}


_OF_STEPS: Final = {
    "affine": ("scale", "offset"),
    "sigmoid": ("scale", "offset"),
    "clip": ("minimum", "maximum"),
    "piecewise": ("points",),
}


def _mended_step(dice: Dice, step: dict[str, Any]) -> None:
    kept = ("kind", *_OF_STEPS.get(str(step.get("kind")), ()))
    drop(dice, step, *(name for name in list(step) if name not in kept))
    if step.get("scale") == 0:
        drop(dice, step, "scale")
    if step.get("kind") == "clip" and dice.mostly():
        step |= {"minimum": 0, "maximum": dice.one([1, 0.5])}
    if step.get("kind") == "piecewise" and dice.mostly():
        step["points"] = [{"score": x, "value": dice.below(3)} for x in (-1, 0.5, 2)[: 2 + dice.below(2)]]


GRAMMAR: Final = Grammar(
    CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"],
    WORDS,
    _mended,
    [*(case for case, _ in BROKEN.values() if case), *ACCEPTED.values()],
)
