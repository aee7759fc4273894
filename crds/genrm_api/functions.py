"""Functions that somebody wrote in Python: their names, where their text is, and those around a model.

`preprocess` makes of a sample what the model is asked, in the place of a template; `postprocess` makes a score of what
it answers, in the place of a parser. They are for what no template and no parser says, and for files that other
frameworks call in the same way. Like rules of kind python they run in the trainer or the gateway, in a process of their
own, and never in the operator.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, StringConstraints

from genrm_api.pods import DataKey, ObjectName
from genrm_api.rules import ApiModel, Rule, in_cel, rule, with_found

FunctionName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)?$", max_length=128),
]
"""Of a function, or of a file and its function."""
_NAME: Final = f"self.{in_cel('function')}"


class FunctionSource(ApiModel):
    name: ObjectName = Field(description="Name of the ConfigMap, in the namespace of the resource.")
    key: DataKey = Field("rules.py", description="Key inside it: the text of a Python module.")


def file_rule(where: str) -> Rule:
    """A function of a ConfigMap is in the file that the ConfigMap's key is."""
    sentence = (
        f"{where}.function: %d names a file of the run, and there is a configMap; write the name of the function "
        "alone, or remove configMap"
    )

    def found_wrong(found: Any) -> str | None:
        if found.config_map is None or found.function is None or "." not in found.function:
            return None
        return sentence.replace("%d", found.function)

    return Rule(
        cel=f"!has(self.configMap) || !has({_NAME}) || !{_NAME}.contains('.')",
        message=with_found(sentence, _NAME),
        found_wrong=found_wrong,
    )


class Function(ApiModel):
    function: FunctionName = Field(
        description="Name of the function; where a run brings several files, FILE.FUNCTION: rider_reward.rm_preprocess."
    )
    config_map: FunctionSource | None = Field(
        None, description="Where its module is. A run must approve it by its hash. Absent: the run's own Python files."
    )


class Preprocess(Function):
    """Makes what the model is asked: a text, or messages."""

    prompt_key: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = Field(
        None,
        description="Key of the sample's extra whose text is text_prompts: rm_prompt_0, for VeRL-with-RMs' data. "
        "Absent: the prompt itself.",
    )

    rules: ClassVar = (file_rule("spec.scoring.preprocess"),)


class Postprocess(Function):
    """Makes the score of what the model answers."""

    rules: ClassVar = (file_rule("spec.scoring.postprocess"),)


class TermPreprocess(Preprocess):
    rules: ClassVar = (file_rule("spec.terms.preprocess"),)


class TermPostprocess(Postprocess):
    rules: ClassVar = (file_rule("spec.terms.postprocess"),)


ASKS_AND_READS: Final = "(has({0}.template) || has({0}.preprocess)) == (has({0}.parse) || has({0}.postprocess))"
ONE_WAY: Final = (
    "who asks a model that answers in words in a way of their own reads the answer in one, too; write preprocess or "
    "template, and postprocess or parse, or none of them"
)


def asks_and_reads(scoring: Any) -> bool:
    """Whether a question of one's own is read in a way of one's own, and a built-in one in its own."""
    reads = scoring.parse is not None or scoring.postprocess is not None
    return bool(scoring.asks_its_own == reads)


SCORING_RULES: Final = (
    rule(
        "!has(self.preprocess) || !(has(self.judge) || has(self.template))",
        "spec.scoring.preprocess: found beside judge or template, which ask, too; write one of them",
        lambda s: s.preprocess is not None and (s.judge is not None or s.template is not None),
    ),
    rule(
        "!has(self.postprocess) || !(has(self.judge) || has(self.parse))",
        "spec.scoring.postprocess: found beside judge or parse, which read the answer, too; write one of them",
        lambda s: s.postprocess is not None and (s.judge is not None or s.parse is not None),
    ),
    rule(
        f"({ASKS_AND_READS.format('self')}) || !(has(self.template) || has(self.parse))",
        "spec.scoring.parse: a template needs one, and a built-in judge brings its own; write template and parse, or "
        "neither (preprocess stands for a template, postprocess for parse)",
        lambda s: not asks_and_reads(s) and (s.template is not None or s.parse is not None),
    ),
    rule(
        "!has(self.postprocess) || !has(self.mode) || self.mode != 'listwise'",
        "spec.scoring.postprocess: gives a number, and mode listwise asks for an order; write parse with kind: ranking",
        lambda s: s.postprocess is not None and s.mode == "listwise",
    ),
)
"""Of `Scoring`. Functions alone are complete for a model that gives a number; for one that answers in words
`crossing` asks for both ways."""
