"""RewardFleets that are refused, with what is said of them, and such as are accepted; as `cases` for RewardModels."""

from __future__ import annotations

from typing import Any

CORRECT = {"name": "correct", "rule": {"kind": "exact"}}
JUDGE = {"name": "judged", "rewardModel": {"name": "judge"}}
GATED = JUDGE | {"gate": {"term": "correct"}}


def fleet(*terms: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"terms": list(terms), **spec}


def one(**found: Any) -> dict[str, Any]:
    """A fleet of one term, of a reward model unless it says so."""
    return fleet({k: v for k, v in {**JUDGE, **found}.items() if v is not None})


def by_rule(**rule: Any) -> dict[str, Any]:
    return fleet({"name": "correct", "rule": rule})


def step(**transform: Any) -> dict[str, Any]:
    return one(transform=[transform])


def api(**found: Any) -> dict[str, Any]:
    return one(rewardModel=None, api={"url": "http://rules.rl.svc:6009/get_reward2", **found})


def said(expression: str, *terms: dict[str, Any]) -> dict[str, Any]:
    return fleet(*(terms or (CORRECT, JUDGE)), combine="expression", expression=expression)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no terms": ({}, "terms"),
    "an empty list of terms": (fleet(), "terms"),
    "an unknown field": (fleet(JUDGE, weights=[1]), "weights"),
    "a term by its Python name": (fleet(JUDGE | {"rewardModel": None, "reward_model": {"name": "x"}}), "reward_model"),
    "a name that no expression can say": (one(name="Judged-1"), "name"),
    "a name that no model has": (one(rewardModel={"name": "1judge"}), "rewardModel"),
    "text for a weight": (one(weight="1"), "weight"),
    "an unknown way to combine": (fleet(JUDGE, combine="sum"), "combine"),
    "nothing to be asked": (
        one(rewardModel=None),
        "spec.terms: judged names none or several of rewardModel, rule and api; write exactly one of them",
    ),
    "two to be asked": (one(rule={"kind": "exact"}), "spec.terms: judged names none or several of rewardModel"),
    "a term that hides": (
        one(weight=0),
        "spec.terms: judged has weight 0, which hides what it does; write combine: none, or another weight",
    ),
    "a term called like a function": (one(name="max"), "spec.terms: max is a word of expressions; write another name"),
    "a term twice": (
        fleet(JUDGE, CORRECT, JUDGE),
        "spec.terms: judged is there more than once; write it once",
    ),
    "a gate on nothing": (
        fleet(CORRECT, JUDGE | {"gate": {"term": "corect"}}),
        "spec.terms: judged has a gate on a term that is no rule, or that has a gate itself; write the name of a rule",
    ),
    "a gate on a model": (
        fleet(JUDGE, {"name": "second", "rewardModel": {"name": "b"}, "gate": {"term": "judged"}}),
        "spec.terms: second has a gate on a term that is no rule",
    ),
    "a gate behind a gate": (
        fleet(CORRECT, {"name": "short", "rule": {"kind": "exact"}, "gate": {"term": "correct"}},
              JUDGE | {"gate": {"term": "short"}}),
        "spec.terms: judged has a gate on a term that is no rule, or that has a gate itself",
    ),
    "a gate of two kinds": (
        fleet(CORRECT, JUDGE | {"gate": {"term": "correct", "equals": 1, "atLeast": 0.5}}),
        "spec.terms.gate.atLeast: found beside equals; write one of them",
    ),
    "a gate without a number": (
        fleet(CORRECT, JUDGE | {"gate": {"term": "correct", "else": {"policy": "value"}}}),
        "spec.terms.gate.else.value: missing under policy value; write what the term counts as",
    ),
    "a gate with a number too many": (
        fleet(CORRECT, JUDGE | {"gate": {"term": "correct", "else": {"value": 0}}}),
        "spec.terms.gate.else.value: found under policy skip, which has no use for it; remove it or write",
    ),
    "a fleet of nothing": (
        fleet(JUDGE | {"combine": "none"}),
        "spec.terms: no term is part of the score; remove combine: none from one",
    ),
    "a product among minima": (
        fleet(CORRECT, JUDGE | {"combine": "mul"}, combine="min"),
        "spec.terms: judged joins in a way of its own, which has a meaning only where the fleet's combine is add or "
        "mul; remove its combine, or write none",
    ),
    "a root of the negative": (
        fleet(CORRECT, JUDGE | {"weight": -1}, combine="geomean"),
        "spec.terms: judged has a negative weight, with which a geomean has no meaning; write a positive one, or",
    ),
    "a beginning of a minimum": (
        fleet(JUDGE, combine="min", initial=1),
        "spec.initial: found with a combine that has no beginning; remove it, or write combine: add or mul",
    ),
    "a product that begins with nothing": (
        fleet(JUDGE, combine="mul", initial=0),
        "spec.initial: 0 makes every product 0; write another number, or remove it",
    ),
    "an expression without": (
        fleet(JUDGE, combine="expression"),
        "spec.expression: belongs to combine: expression; write both, or neither",
    ),
    "an expression of no use": (fleet(JUDGE, expression="judged"), "spec.expression: belongs to combine: expression"),
    "an expression about nobody": (
        said("correct + 0.5 * judge"),
        "spec.expression: judge is no term, and no word of expressions (abs, clip, exp, log, max, min, sqrt, and, else",
    ),
    "an expression that would import": (said("__import__(correct)"), "spec.expression: __import__ is no term"),
    "an expression with an exponent": (said("correct + 1e5"), "spec.expression: e5 is no term"),
    "an expression with a string": (said("correct + 'a'"), "expression"),
    "an expression of numbers": (
        said("max(1, 2)"),
        "spec.expression: names no term, so that all scores are equal; write names of spec.terms",
    ),
    "an expression of what may be missing": (
        said("correct + judged", CORRECT, GATED),
        "spec.terms: judged may be skipped by its gate, and an expression needs every number; write gate.else with",
    ),
    "a compat without rule": (
        fleet(JUDGE, CORRECT, compat="verl-with-rms"),
        "spec.compat: verl-with-rms counts terms where the first is 1; write a rule first, without combine",
    ),
    "a compat with gates": (
        fleet(CORRECT, GATED, compat="verl-with-rms"),
        "spec.compat: verl-with-rms gates every term but the first; remove their gates",
    ),
    "a compat of minima": (
        fleet(CORRECT, JUDGE, compat="verl-with-rms", combine="min"),
        "spec.compat: verl-with-rms adds and multiplies only; write combine: add or mul",
    ),
    "a compat with a beginning": (
        fleet(CORRECT, JUDGE, compat="verl-with-rms", initial=1),
        "spec.initial: found with compat verl-with-rms, which begins with the first term; remove it",
    ),
    "an unknown compat": (fleet(CORRECT, compat="trl"), "compat"),
    "a failure without number": (
        fleet(JUDGE, onFailure={"policy": "value"}),
        "spec.onFailure.value: missing under policy value; write the score of a failed judgement",
    ),
    "a failure with a number too many": (
        fleet(JUDGE, onFailure={"policy": "group_mean", "value": 1}),
        "spec.onFailure.value: found under policy group_mean, which has no use for it",
    ),
    "a term's failure without number": (
        one(onFailure={"policy": "value"}),
        "spec.terms.onFailure.value: missing under policy value; write what the term counts as",
    ),
    "a term's failure with a number too many": (
        one(onFailure={"value": 1}),
        "spec.terms.onFailure.value: found under policy drop, which has no use for it",
    ),
    "a breaker that always trips": (fleet(JUDGE, breaker={"maxFailedFraction": 0}), "maxFailedFraction"),
    "a breaker of nothing": (fleet(JUDGE, breaker={"minimumCount": 0}), "minimumCount"),
    # Transforms and normalisation.
    "a factor for a clip": (
        step(kind="clip", minimum=0, scale=2),
        "spec.terms.transform.scale: found with kind clip; remove it or write kind: affine or sigmoid",
    ),
    "an offset for a clip": (
        step(kind="clip", minimum=0, offset=2),
        "spec.terms.transform.offset: found with kind clip; remove it",
    ),
    "a bound of a sigmoid": (
        step(kind="sigmoid", minimum=0),
        "spec.terms.transform.minimum: found with kind sigmoid; remove it or write kind: clip",
    ),
    "an upper bound of an affine": (
        step(kind="affine", maximum=0),
        "spec.terms.transform.maximum: found with kind affine; remove it or write kind: clip",
    ),
    "points of an affine": (
        step(kind="affine", points=[{"score": 0, "value": 0}, {"score": 1, "value": 1}]),
        "spec.terms.transform.points: found with kind affine; remove it or write kind: piecewise",
    ),
    "a factor of nothing": (
        step(kind="affine", scale=0),
        "spec.terms.transform.scale: 0 makes all scores equal; write another factor",
    ),
    "a clip of nothing": (
        step(kind="clip"),
        "spec.terms.transform.minimum: missing with kind clip, and maximum too; write one of them, or both",
    ),
    "a clip between nothing": (
        step(kind="clip", minimum=1, maximum=1),
        "spec.terms.transform.minimum: not below maximum, which makes all scores equal; write a smaller one",
    ),
    "lines through nothing": (
        step(kind="piecewise"),
        "spec.terms.transform.points: missing with kind piecewise; write two or more",
    ),
    "a line through one point": (step(kind="piecewise", points=[{"score": 0, "value": 0}]), "points"),
    "lines that go back": (
        step(kind="piecewise", points=[{"score": 1, "value": 0}, {"score": 0.5, "value": 1}]),
        "spec.terms.transform.points: score does not rise from each to the next; sort them, each score once",
    ),
    "a jump": (
        step(kind="piecewise", points=[{"score": 1, "value": 0}, {"score": 1.0, "value": 1}]),
        "spec.terms.transform.points: score does not rise from each to the next",
    ),
    "places in a run": (
        one(normalise={"kind": "rank", "scope": "running"}),
        "spec.terms.normalise.scope: running with kind rank, which needs the scores themselves; write group",
    ),
    "a group that forgets": (
        one(normalise={"kind": "zscore", "halfLife": 100}),
        "spec.terms.normalise.halfLife: has a meaning for kind zscore with scope running only; remove it",
    ),
    # Rules.
    "an answer's place for a length": (
        by_rule(kind="length", minimum=1, extract="boxed"),
        "spec.terms.rule.extract: found with kind length; remove it or write kind: exact or numeric or math",
    ),
    "case of numbers": (
        by_rule(kind="numeric", ignoreCase=True),
        "spec.terms.rule.ignoreCase: found with kind numeric; remove it or write kind: exact",
    ),
    "nearly the same text": (
        by_rule(kind="exact", tolerance=0.1),
        "spec.terms.rule.tolerance: found with kind exact; remove it or write kind: numeric",
    ),
    "a pattern of no regex": (
        by_rule(kind="exact", pattern="x"),
        "spec.terms.rule.pattern: found with kind exact; remove it or write kind: regex",
    ),
    "tags of no format": (
        by_rule(kind="exact", tags=["a"]),
        "spec.terms.rule.tags: found with kind exact; remove it or write kind: format",
    ),
    "units of no length": (by_rule(kind="exact", unit="words"), "spec.terms.rule.unit: found with kind exact"),
    "a shortest of no length": (by_rule(kind="exact", minimum=1), "spec.terms.rule.minimum: found with kind exact"),
    "a longest of no length": (by_rule(kind="exact", maximum=1), "spec.terms.rule.maximum: found with kind exact"),
    "a margin of no length": (by_rule(kind="exact", margin=1), "spec.terms.rule.margin: found with kind exact"),
    "a function of a built-in": (
        by_rule(kind="exact", function="f"),
        "spec.terms.rule.function: found with kind exact; remove it or write kind: python",
    ),
    "a module of a built-in": (
        by_rule(kind="exact", configMap={"name": "c"}),
        "spec.terms.rule.configMap: found with kind exact; remove it or write kind: python",
    ),
    "a regex without pattern": (
        by_rule(kind="regex"),
        "spec.terms.rule.pattern: missing with kind regex; write a regular expression",
    ),
    "a format without tags": (
        by_rule(kind="format"),
        "spec.terms.rule.tags: missing with kind format; write the names of the tags",
    ),
    "a format with a tag twice": (
        by_rule(kind="format", tags=["a", "b", "a"]),
        "spec.terms.rule.tags: the same tag twice; write each once",
    ),
    "a function without name": (
        by_rule(kind="python"),
        "spec.terms.rule.function: missing with kind python; write the name of the function",
    ),
    "a tag without name": (
        by_rule(kind="exact", extract="tag"),
        "spec.terms.rule.tag: missing with extract tag; write the name of the tag",
    ),
    "a tag of no tag": (
        by_rule(kind="exact", tag="answer"),
        "spec.terms.rule.tag: found without extract: tag; remove it or write extract: tag",
    ),
    "after nothing": (
        by_rule(kind="exact", extract="after"),
        "spec.terms.rule.after: missing with extract after; write the text before the answer",
    ),
    "a text before no answer": (
        by_rule(kind="exact", extract="boxed", after="####"),
        "spec.terms.rule.after: found without extract: after; remove it or write extract: after",
    ),
    "any length": (
        by_rule(kind="length"),
        "spec.terms.rule.minimum: missing with kind length, and maximum too; write one of them, or both",
    ),
    "no length": (
        by_rule(kind="length", minimum=2, maximum=1),
        "spec.terms.rule.minimum: above maximum, so that no length is worth 1; write a smaller one",
    ),
    # Reward APIs.
    "no route": (
        api(url="rules:6009"),
        "spec.terms.api.url: rules:6009 is no base URL; write one like https://api.example.com/v1",
    ),
    "a key in the clear": (
        api(url="http://api.example.com", credentialsSecretRef={"name": "s"}),
        "spec.terms.api.url: http:// outside the cluster would show the key of credentialsSecretRef to the network",
    ),
    "no time to answer": (
        api(timeout="0s"),
        "spec.terms.api.timeout: 0s is no time to wait; write more than 0s and at most 24h",
    ),
    "a reward API that asks in words": (api(format="openai-chat"), "format"),
    "embeddings of no model": (
        api(format="openai-embeddings"), "spec.terms.api.model: belongs to format: openai-embeddings; write both",
    ),
    "a model of a service": (
        api(format="get-bge-sim", model="bge"), "spec.terms.api.model: belongs to format: openai-embeddings",
    ),
    "functions around no model": (
        fleet(CORRECT | {"preprocess": {"function": "f"}}),
        "spec.terms: correct has preprocess or postprocess, and no rewardModel around which they are; remove them",
    ),
    "a function behind an API": (
        fleet({"name": "judged", "api": {"url": "http://x"}, "postprocess": {"function": "f"}}),
        "spec.terms: judged has preprocess or postprocess, and no rewardModel",
    ),
    "functions and a critic": (
        one(critic={"name": "c"}, postprocess={"function": "f"}),
        "spec.terms: judged has preprocess or postprocess beside a critic, which says what the model reads; remove one",
    ),
    "a function of a file and of a ConfigMap": (
        one(preprocess={"function": "a.f", "configMap": {"name": "own"}}),
        "spec.terms.preprocess.function: a.f names a file of the run, and there is a configMap; write the name of the",
    ),
    "another function of a file and of a ConfigMap": (
        one(postprocess={"function": "a.f", "configMap": {"name": "own"}}),
        "spec.terms.postprocess.function: a.f names a file of the run, and there is a configMap",
    ),
    "a rule of a file and of a ConfigMap": (
        by_rule(kind="python", function="a.f", configMap={"name": "own"}),
        "spec.terms.rule.function: a.f names a file of the run, and there is a configMap",
    ),
    "a critic alone": (
        fleet(CORRECT | {"critic": {"name": "critic"}}),
        "spec.terms: correct has a critic and no rewardModel that would read its critique",
    ),
}  # fmt: skip

UNFIT = "must be DNS-1035 (a-z, 0-9, -), at most 40 characters"
BROKEN_NAMES: dict[str, str] = {
    name: f"metadata.name: {name} {UNFIT}" for name in ("Fleet", "1fleet", "f" * 41, "fleet-")
}
ACCEPTED_NAMES = ("f", "math-1", "f" * 40)

ACCEPTED: dict[str, dict[str, Any]] = {
    "a model": fleet(JUDGE),
    "nulls are absent": fleet(JUDGE | {"weight": None, "gate": None}, initial=None, combine=None, onFailure=None),
    "a judge behind a rule": fleet(CORRECT, GATED),
    "a product of its own": fleet(CORRECT, JUDGE | {"combine": "mul"}, initial=0),
    "a rule that only gates": fleet(CORRECT | {"combine": "none"}, GATED, combine="geomean"),
    "the worst of two": fleet(CORRECT, JUDGE | {"weight": -0.5}, combine="min"),
    "an expression": said("correct * (0.5 + 0.5 * clip(judged, 0, 1)) if judged >= 0.1 and correct > 0 else -1"),
    "an expression of what is always there": said(
        "correct + judged", CORRECT, JUDGE | {"gate": {"term": "correct", "else": {"policy": "value", "value": 0}}}
    ),
    "as VeRL-with-RMs": fleet(
        CORRECT, JUDGE | {"weight": 0.3}, {"name": "sim", "rewardModel": {"name": "bge"}, "combine": "add"},
        compat="verl-with-rms", combine="mul",
    ),
    "everything of a term": fleet(
        CORRECT,
        JUDGE | {
            "weight": 0.5,
            "transform": [
                {"kind": "piecewise", "points": [{"score": 0.65, "value": 0.1}, {"score": 0.85, "value": 1}]},
                {"kind": "affine", "scale": 2, "offset": -1}, {"kind": "clip", "maximum": 1}, {"kind": "sigmoid"},
            ],
            "normalise": {"kind": "zscore", "scope": "running", "halfLife": 10000, "clip": 5},
            "gate": {"term": "correct", "atLeast": 0.5, "else": {"policy": "value", "value": -1}},
            "onFailure": {"policy": "value", "value": 0},
        },
        onFailure={"policy": "group_drop"}, breaker={"maxFailedFraction": 1, "minimumCount": 1},
    ),
    "functions around a model": one(
        preprocess={"function": "rider_reward.rm_preprocess", "promptKey": "rm_prompt_0"},
        postprocess={"function": "rm_postprocess", "configMap": {"name": "rider-reward"}},
    ),
    "a function behind a model": one(postprocess={"function": "rm_postprocess"}),
    "a function of one of several files": by_rule(kind="python", function="rw_custom.compute_score"),
    "a critic": fleet(JUDGE | {"critic": {"name": "critic"}}),
    "a similarity": api(format="openai-embeddings", model="BAAI/bge-m3"),
    "a similarity by a service": api(format="get-bge-sim"),
    "a reward API": api(credentialsSecretRef={"name": "key"}, timeout="5s", format="slime"),
    "exact": by_rule(kind="exact", extract="tag", tag="answer", ignoreCase=True),
    "numeric": by_rule(kind="numeric", extract="after", after="####", tolerance=0),
    "math": by_rule(kind="math", extract="boxed"),
    "a format": by_rule(kind="format", tags=["think", "answer"]),
    "a regex": by_rule(kind="regex", pattern=r"^\d+$"),
    "a length": by_rule(kind="length", unit="words", minimum=5, maximum=5, margin=0),
    "a function of the run": by_rule(kind="python", function="compute_score"),
    "a function of a ConfigMap": by_rule(kind="python", function="_f", configMap={"name": "rules", "key": "a.py"}),
}  # fmt: skip


def manifest(spec: dict[str, Any], name: str = "math") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "rl"}, "spec": spec}
