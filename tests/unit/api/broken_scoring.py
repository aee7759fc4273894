"""What `spec.scoring` may not say, with what is said of it."""

from __future__ import annotations

from typing import Any

from tests.unit.api.shapes import PAIR, TEMPLATE, external, scoring

BROKEN_SCORING: dict[str, tuple[dict[str, Any], str]] = {
    "two judges": (
        scoring(judge="boxed-true-false", template=TEMPLATE, parse={"kind": "number"}),
        "spec.scoring.template: found beside judge; write one of them",
    ),
    "one question for all": (
        scoring(template="Is it good?", parse={"kind": "number"}),
        "spec.scoring.template: asks the same of every response; write {{ }} where the sample goes, or the name of "
        "a built-in judge as judge",
    ),
    "a template nobody can read": (
        scoring(template=TEMPLATE),
        "spec.scoring.parse: a template needs one, and a built-in judge brings its own; write template and parse, or",
    ),
    "a template in two ways": (
        scoring(template=TEMPLATE, preprocess={"function": "f"}, parse={"kind": "number"}),
        "spec.scoring.preprocess: found beside judge or template, which ask, too; write one of them",
    ),
    "a judge and a function that asks": (
        scoring(judge="rider-json", preprocess={"function": "f"}),
        "spec.scoring.preprocess: found beside judge or template, which ask, too; write one of them",
    ),
    "read in two ways": (
        scoring(template=TEMPLATE, parse={"kind": "number"}, postprocess={"function": "f"}),
        "spec.scoring.postprocess: found beside judge or parse, which read the answer, too; write one of them",
    ),
    "a judge and a function that reads": (
        scoring(judge="rider-json", postprocess={"function": "f"}),
        "spec.scoring.postprocess: found beside judge or parse, which read the answer, too; write one of them",
    ),
    "asked by a function, and read by nobody": (
        scoring(preprocess={"function": "f"}),
        "spec.scoring.preprocess: who asks a model that answers in words in a way of their own reads the answer in "
        "one, too; write preprocess or template, and postprocess or parse, or none of them",
    ),
    "read by a function, and asked by nobody": (
        scoring(postprocess={"function": "f"}),
        "spec.scoring.preprocess: who asks a model that answers in words in a way of their own reads",
    ),
    "a parser of nobody's question": (
        scoring(parse={"kind": "number"}),
        "spec.scoring.parse: a template needs one, and a built-in judge brings its own; write template and parse",
    ),
    "an order as a number": (
        scoring(mode="listwise", template=TEMPLATE, postprocess={"function": "f"}),
        "spec.scoring.postprocess: gives a number, and mode listwise asks for an order; write parse with kind: ranking",
    ),
    "a function of a file and of a ConfigMap": (
        scoring(
            preprocess={"function": "rider.f", "configMap": {"name": "own"}}, postprocess={"function": "g"},
        ),
        "spec.scoring.preprocess.function: rider.f names a file of the run, and there is a configMap; write the name "
        "of the function alone, or remove configMap",
    ),
    "another function of a file and of a ConfigMap": (
        scoring(preprocess={"function": "f"}, postprocess={"function": "a.g", "configMap": {"name": "own"}}),
        "spec.scoring.postprocess.function: a.g names a file of the run, and there is a configMap",
    ),
    "a function in a folder": (scoring(preprocess={"function": "a.b.c"}, postprocess={"function": "g"}), "function"),
    "a function without name": (scoring(preprocess={"promptKey": "x"}, postprocess={"function": "g"}), "function"),
    "a prompt of no column": (
        scoring(preprocess={"function": "f", "promptKey": ""}, postprocess={"function": "g"}), "promptKey",
    ),
    "a column of an answer": (
        scoring(preprocess={"function": "f"}, postprocess={"function": "g", "promptKey": "a"}), "promptKey",
    ),
    "an object that a function reads": (
        scoring(
            preprocess={"function": "f"}, postprocess={"function": "g"}, sampling={"structured": {"jsonObject": True}},
        ),
        "spec.scoring.sampling.structured.jsonObject: the judge reads no JSON",
    ),
    "a reward server asked otherwise": (
        external(format="slime") | scoring(preprocess={"function": "f"}),
        "spec.scoring.preprocess: found for format slime, whose requests have one form, so that nothing else can be "
        "asked; remove it",
    ),
    "the same vote again": (
        scoring(votes={"count": 3}, sampling={"temperature": 0}),
        "spec.scoring.votes.count: more than 1 at temperature 0 repeats one answer; write 1, or a temperature above 0",
    ),
    "the same vote on pairs again": (
        scoring(mode="pairwise", votes={"count": 2}, sampling={"temperature": 0}),
        "spec.scoring.votes.count: more than 1 at temperature 0 repeats one answer; write 1, or a temperature above 0",
    ),
    "a tournament of one": (
        scoring(aggregate="elo"),
        "spec.scoring.aggregate needs a mode that compares responses; remove it or write mode: pairwise",
    ),
    "an order of one": (
        scoring(order="both", mode="pointwise"),
        "spec.scoring.order needs a mode that compares responses; remove it or write mode: pairwise or listwise",
    ),
    "a ranking of one": (
        scoring(template=TEMPLATE, parse={"kind": "ranking"}),
        "spec.scoring.parse.kind: ranking needs several responses; write mode: listwise, or another kind",
    ),
    "a judge of one asked for pairs": (
        scoring(mode="pairwise", judge="pointwise-1-10"),
        "spec.scoring.judge: pointwise-1-10 looks at one response; write mode: pointwise, or remove it",
    ),
    "a judge of one asked for lists": (
        scoring(mode="listwise", judge="boxed-true-false"),
        "spec.scoring.judge: boxed-true-false looks at one response; write mode: pointwise, or remove it",
    ),
    "a judge of pairs asked about one": (
        scoring(judge="pairwise-abtie"),
        "spec.scoring.judge: pairwise-abtie compares two responses; write mode: pairwise, or remove it",
    ),
    "a judge of lists asked for pairs": (
        scoring(mode="pairwise", judge="listwise-ranking"),
        "spec.scoring.judge: listwise-ranking puts all responses in an order; write mode: listwise, or remove it",
    ),
    "a list in half of its pairs": (
        scoring(mode="listwise", order="balanced"),
        "spec.scoring.order: balanced is of pairs, and mode listwise shows a whole list; write hash or given, or",
    ),
    "a list both ways": (
        scoring(mode="listwise", order="both"),
        "spec.scoring.order: both is of pairs, and mode listwise shows a whole list; write hash or given, or remove",
    ),
    "the median order": (
        scoring(mode="listwise", votes={"count": 3, "combine": "median"}),
        "spec.scoring.votes.combine: median is of numbers, and votes on an order are averaged over its pairs; write "
        "mean, or remove it",
    ),
    "a tournament calibrated": (
        scoring(mode="pairwise", calibrate={"kind": "sigmoid"}),
        "spec.scoring.calibrate: scores of responses that were compared are on the scale of spec.scoring.aggregate; "
        "remove it, or write spec.scoring.normalise",
    ),
    "rankings calibrated": (
        scoring(mode="listwise", calibrate={"kind": "affine", "offset": 1}),
        "spec.scoring.calibrate: scores of responses that were compared are on the scale of",
    ),
    "a list read as a number": (
        scoring(mode="listwise", template=TEMPLATE, parse={"kind": "number"}),
        "spec.scoring.parse.kind: number orders nothing, and mode listwise asks for an order; write ranking",
    ),
    "an order within bounds": (
        scoring(mode="listwise", template=TEMPLATE, parse={"kind": "ranking", "maximum": 10}),
        "spec.scoring.parse.kind: ranking gives no number; remove values, minimum and maximum",
    ),
    "alone where all are": (
        scoring(alone={"vs": "reference"}),
        "spec.scoring.alone needs a mode that compares responses; remove it or write mode: pairwise or listwise",
    ),
    "a judge of one beside a text": (
        scoring(mode="pairwise", alone={"vs": "baseline", "judge": "pointwise-1-10"}),
        "spec.scoring.alone.judge: found with vs baseline, where the judge of spec.scoring compares; remove it or "
        "write vs: pointwise",
    ),
    "RM-Gallery of one": (
        scoring(compat="rm-gallery", judge="pointwise-1-10"),
        "spec.scoring.compat: rm-gallery is of pairs; write mode: pairwise, or for its pointwise and listwise scores "
        "normalise: minmax instead",
    ),
    "a rule that RM-Gallery has not": (
        scoring(mode="pairwise", compat="rm-gallery", aggregate="bt"),
        "spec.scoring.aggregate: bt is no rule of RM-Gallery; write winrate, copeland, dgr or elo, or remove",
    ),
    "RM-Gallery without bias": (
        scoring(mode="pairwise", compat="rm-gallery", order="balanced"),
        "spec.scoring.order: found beside compat, which shows, asks and scales as RM-Gallery does; remove one of them",
    ),
    "RM-Gallery in a circle": (
        scoring(mode="pairwise", compat="rm-gallery", schedule={"kind": "circular"}),
        "spec.scoring.schedule: found beside compat",
    ),
    "RM-Gallery with a yardstick": (
        scoring(mode="pairwise", compat="rm-gallery", anchor="chosen"),
        "spec.scoring.anchor: found beside compat",
    ),
    "RM-Gallery scaled again": (
        scoring(mode="pairwise", compat="rm-gallery", normalise="rank"),
        "spec.scoring.normalise: found beside compat",
    ),
    "RM-Gallery with votes": (
        scoring(mode="pairwise", compat="rm-gallery", votes={"count": 3}),
        "spec.scoring.votes: found beside compat",
    ),
    "a tag without name": (
        scoring(template=TEMPLATE, parse={"kind": "tag"}),
        "spec.scoring.parse.tag: missing with kind tag; write the name of the tag",
    ),
    "a regex without pattern": (
        scoring(template=TEMPLATE, parse={"kind": "regex"}),
        "spec.scoring.parse.pattern: missing with kind regex; write a regular expression",
    ),
    "a tag of no tag": (
        scoring(template=TEMPLATE, parse={"kind": "number", "tag": "x"}),
        "spec.scoring.parse.tag: found with kind number; remove it or write kind: tag",
    ),
    "a field of no JSON": (
        scoring(template=TEMPLATE, parse={"kind": "number", "field": "x"}),
        "spec.scoring.parse.field: found with kind number; remove it or write kind: json",
    ),
    "a pattern of no regex": (
        scoring(template=TEMPLATE, parse={"kind": "boxed", "pattern": "x"}),
        "spec.scoring.parse.pattern: found with kind boxed; remove it or write kind: regex",
    ),
    "a JSON verdict nowhere": (
        scoring(template=TEMPLATE, parse={"kind": "json"}),
        "spec.scoring.parse.field: missing with kind json; write the path to the verdict",
    ),
    "probabilities of nothing": (
        scoring(template=TEMPLATE, parse={"kind": "logprob", "values": {"yes": 1}}),
        "spec.scoring.parse.values: fewer than two with kind logprob; write each label and what it is worth, or",
    ),
    "no number between": (
        scoring(template=TEMPLATE, parse={"kind": "number", "minimum": 1, "maximum": 1}),
        "spec.scoring.parse.minimum: not below maximum, so that no number is a verdict; write a smaller one",
    ),
    "a budget for all": (
        scoring(mode="pairwise", schedule={"budget": 9}),
        "spec.scoring.schedule.budget: found with kind all, which judges every pair; remove it, or write kind: "
        "circular",
    ),
    "rounds of a circle": (
        scoring(mode="pairwise", schedule={"kind": "circular", "rounds": 2}),
        "spec.scoring.schedule.rounds: found with kind circular; remove it or write kind: active",
    ),
    "all scores alike": (
        scoring(calibrate={"kind": "affine", "scale": 0}),
        "spec.scoring.calibrate.scale: 0 makes all scores equal; write another factor",
    ),
    "a seed that is not sent": (
        scoring(sampling={"seed": 1, "seeded": False}),
        "spec.scoring.sampling.seed: found with seeded: false, which sends none; remove one of them",
    ),
    "an answer of no form": (
        scoring(sampling={"structured": {}}),
        "spec.scoring.sampling.structured: an answer has one form; write choice or jsonObject: true",
    ),
    "an answer of two forms": (
        scoring(judge="rider-json", sampling={"structured": {"choice": ["a", "b"], "jsonObject": True}}),
        "spec.scoring.sampling.structured: an answer has one form; write choice or jsonObject: true",
    ),
    "an object that nobody reads": (
        scoring(sampling={"structured": {"jsonObject": True}}),
        "spec.scoring.sampling.structured.jsonObject: the judge reads no JSON; remove it, or write judge: "
        "five-criteria or rider-json, or parse.kind: json",
    ),
    "a canary that knows nothing": (
        scoring(canary={"pairs": [PAIR | {"worse": "4"}]}),
        "spec.scoring.canary.pairs: better and worse are the same text; write two that a sane model tells apart",
    ),
}  # fmt: skip
