"""Rules between the parts of a spec: what a type forbids, and which parts must agree.

Every rule stands at `spec`, where all parts are in sight. A part that is absent is `!has(…)` in CEL, because the API
server injects defaults only below what is there; in Python the defaults are always there, and `model_fields_set` says
what was written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from genrm_api.comparing import ScoringMode
from genrm_api.engine import EngineName
from genrm_api.functions import ASKS_AND_READS, ONE_WAY, asks_and_reads
from genrm_api.gpu import Sharing
from genrm_api.lifecycle import LifecycleState, OnDrainTimeout, RoutingMode, SleepMode, camel
from genrm_api.model import COMMIT_PATTERN, TOKEN_ENV
from genrm_api.rules import AnyRule, Rule, quoted, rule, with_found
from genrm_api.scoring import IN_WORDS

_FOR_PODS: Final = (
    "weights", "engine", "gpu", "resources", "env", "service_account_name", "image_pull_secrets", "scheduler_name",
    "priority_class_name", "access", "lifecycle", "rollout", "routing", "pod_template",
)  # fmt: skip
"""Fields that mean nothing where there are no pods."""


def _on_the_wire(field: str) -> str:
    return "model" if field == "weights" else camel(field)


def _first_written(holder: Any, fields: tuple[str, ...]) -> str | None:
    return next((_on_the_wire(field) for field in fields if field in holder.model_fields_set), None)


def _none_of(
    fields: tuple[str, ...], root: str, unless: str, before: str, after: str, judge: Callable[[Any], Any]
) -> Rule:
    """None of `fields` below `root` is written.

    Args:
        unless: CEL for "the rule does not apply".
        before: the sentence up to the field's name, a plain text.
        after: the rest, a CEL expression.
        judge: the field and the rest of the sentence, or `None`.
    """
    names = [_on_the_wire(name) for name in fields]
    any_of = " || ".join(f"has({root}.{name})" for name in names)
    first = " : ".join(f"has({root}.{name}) ? '{name}'" for name in names[:-1]) + f" : '{names[-1]}'"

    def found_wrong(spec: Any) -> str | None:
        found = judge(spec)
        return None if found is None else f"{before}{found[0]}{found[1]}"

    return Rule(
        cel=f"{unless} || !({any_of})", message=f"{quoted(before)} + ({first}) + {after}", found_wrong=found_wrong
    )


_NO_PODS_SENTENCE: Final = " has no meaning for type External, which has no pods; remove it"


def _for_pods(spec: Any) -> tuple[str, str] | None:
    name = _first_written(spec, _FOR_PODS) if spec.is_external else None
    return None if name is None else (name, _NO_PODS_SENTENCE)


_NUMBERS: Final = (
    "(self.type == 'Classifier' || (self.type == 'External' && has(self.external) "
    "&& self.external.format != 'openai-chat'))"
)
_WHO: Final = "(self.type == 'Classifier' ? 'type Classifier' : 'format ' + self.external.format)"


def _who(spec: Any) -> str | None:
    """What answers with a number; `None` if it answers in words."""
    if spec.type == "Classifier":
        return "type Classifier"
    if spec.is_external and spec.external is not None and not spec.external.format.asks_in_words:
        return f"format {spec.external.format}"
    return None


def _mode_in_words(spec: Any) -> str | None:
    who, mode = _who(spec), spec.scoring.mode
    if who is None or mode in (None, ScoringMode.CLASSIFY):
        return None
    return f"spec.scoring.mode: {mode} asks in words, and {who} gives a number; write classify"


def _asked_in_words(spec: Any) -> tuple[str, str] | None:
    who, name = _who(spec), _first_written(spec.scoring, IN_WORDS)
    return None if who is None or name is None else (name, f": found for {who}, which gives a number; remove it")


_FIXED_FORMATS: Final = ("get-reward", "get-reward2", "openrlhf", "slime")
_FIXED_FORM: Final = ", whose requests have one form, so that nothing else can be asked; remove it"


def _fixed_form(spec: Any) -> str | None:
    external = spec.external
    if spec.scoring.preprocess is None or external is None or external.format not in _FIXED_FORMATS:
        return None
    return f"spec.scoring.preprocess: found for format {external.format}{_FIXED_FORM}"


_TOO_LONG: Final = (
    "spec.scoring.sampling.maxTokens: %d leaves no room for the question in spec.engine.maxModelLen; write less, or a "
    "longer maxModelLen"
)
_MODEL_LEN: Final = "self.engine.maxModelLen"
_ANSWER: Final = "self.scoring.sampling.maxTokens"


def _answer_too_long(spec: Any) -> str | None:
    longest, answer = spec.engine.max_model_len, spec.scoring.sampling.max_tokens
    return _TOO_LONG % answer if longest is not None and answer is not None and answer >= longest else None


def _twice(spec: Any) -> str | None:
    names = [variable.name for variable in spec.env or ()]
    again = next((name for name in names if names.count(name) > 1), None)
    return None if again is None else f"spec.env: {again} is set more than once; write it once"


_SLEEP: Final = "(has(self.lifecycle) && has(self.lifecycle.sleep))"
_MODE: Final = f"({_SLEEP} && has(self.lifecycle.sleep.mode) ? self.lifecycle.sleep.mode : '')"
_LEVEL_2: Final = f"({_SLEEP} && self.lifecycle.sleep.level == 2)"
_CUSTOM: Final = "(has(self.engine) && self.engine.name == 'custom')"
_HOOKS: Final = "(has(self.engine) && has(self.engine.custom) && has(self.engine.custom.sleep))"


def _level_2(spec: Any) -> bool:
    return bool(spec.lifecycle.sleep.level == 2)


_SLOTS: Final = "has(self.gpu) && has(self.gpu.slots)"
_SLOT_COUNT: Final = "spec.gpu.slots: %d for another number of spec.replicas; write one for each replica"


def _slots(spec: Any) -> list[Any]:
    return spec.gpu.slots or [] if spec.gpu is not None else []


def _slot_of_other_size(spec: Any) -> str | None:
    wrong = (slot for slot in _slots(spec) if slot.devices is not None and len(slot.devices) != spec.engine.gpus)
    return next((f"spec.gpu.slots: {slot.name}{_SIZE_SENTENCE}" for slot in wrong), None)


_SIZE_SENTENCE: Final = (
    " has another number of devices than tensorParallel x pipelineParallel x dataParallel of spec.engine; write as many"
)
_VISIBLE: Final = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
"""Variables that choose among a node's GPUs: where slots do that, nobody else does."""
_VISIBLE_SENTENCE: Final = " chooses GPUs, which spec.gpu.slots does; remove it"
_A_VISIBLE: Final = "v.name in [" + ", ".join(map(quoted, _VISIBLE)) + "]"


def _chooses_gpus(spec: Any) -> str | None:
    found = next((v.name for v in spec.env or () if v.name in _VISIBLE), None) if _slots(spec) else None
    return None if found is None else f"spec.env: {found}{_VISIBLE_SENTENCE}"


_SPANS: Final = "(has(self.gpu) && self.gpu.nodes > 1)"


def _spans(spec: Any) -> bool:
    return spec.gpu is not None and spec.gpu.nodes > 1


_KEEPS_PODS: Final = (SleepMode.ENGINE, SleepMode.RESTART)
"""Sleeps of the pod with the door alone: of a replica over several nodes the workers would stay as they are."""
_SPANNING_SLEEP: Final = (
    "spec.lifecycle.sleep.mode: %d with spec.gpu.nodes more than 1, and no sleep over several nodes is proved; "
    "write None or ScaleToZero, or remove it"
)
_SURGES: Final = "(has(self.rollout) && has(self.rollout.surge) && self.rollout.surge)"

_UNEVEN: Final = (
    "spec.gpu.nodes: %d does not divide tensorParallel x pipelineParallel of spec.engine; write a number of nodes that "
    "each have as many of its GPUs"
)
_GPUS: Final = (
    "(has(self.engine) ? self.engine.tensorParallel * self.engine.pipelineParallel * self.engine.dataParallel : 1)"
)
_WORLD: Final = "(has(self.engine) ? self.engine.tensorParallel * self.engine.pipelineParallel : 1)"
_OTHER_SIZE: Final = f"self.gpu.slots.filter(s, has(s.devices) && s.devices.size() != {_GPUS})"

SPEC_RULES: Final[tuple[AnyRule, ...]] = (
    rule(
        "self.type == 'External' || has(self.model)",
        "spec.model: missing; write uri: hf://org/name, or where else the weights are",
        lambda s: not s.is_external and s.weights is None,
    ),
    rule(
        "self.type != 'External' || has(self.external)",
        "spec.external: missing with type External; write the url of the endpoint",
        lambda s: s.is_external and s.external is None,
    ),
    Rule(
        cel="self.type == 'External' || !has(self.external)",
        message="'spec.external: found with type ' + self.type + '; remove it or write type: External'",
        found_wrong=lambda s: (
            f"spec.external: found with type {s.type}; remove it or write type: External"
            if not s.is_external and s.external is not None
            else None
        ),
    ),
    _none_of(_FOR_PODS, "self", "self.type != 'External'", "spec.", quoted(_NO_PODS_SENTENCE), _for_pods),
    rule(
        "self.type != 'External' || self.replicas == 1",
        "spec.replicas: type External has no pods to count; remove it",
        lambda s: s.is_external and s.replicas != 1,
    ),
    Rule(
        cel=f"!{_NUMBERS} || !has(self.scoring) || !has(self.scoring.mode) || self.scoring.mode == 'classify'",
        message=f"'spec.scoring.mode: ' + self.scoring.mode + ' asks in words, and ' + {_WHO} + ' gives a "
        f"number; write "
        "classify'",
        found_wrong=_mode_in_words,
    ),
    _none_of(
        IN_WORDS,
        "self.scoring",
        f"!{_NUMBERS} || !has(self.scoring)",
        "spec.scoring.",
        f"': found for ' + {_WHO} + ', which gives a number; remove it'",
        _asked_in_words,
    ),
    rule(
        f"{_NUMBERS} || !has(self.scoring) || ({ASKS_AND_READS.format('self.scoring')})",
        f"spec.scoring.preprocess: {ONE_WAY}",
        lambda s: _who(s) is None and not asks_and_reads(s.scoring),
    ),
    Rule(
        cel=f"!has(self.external) || !(self.external.format in [{', '.join(map(quoted, _FIXED_FORMATS))}]) || "
        "!has(self.scoring) || !has(self.scoring.preprocess)",
        message=f"'spec.scoring.preprocess: found for format ' + self.external.format + {quoted(_FIXED_FORM)}",
        found_wrong=_fixed_form,
    ),
    rule(
        f"{_NUMBERS} || !has(self.scoring) || !has(self.scoring.mode) || self.scoring.mode != 'classify'",
        "spec.scoring.mode: classify needs a model that gives a number; write pointwise, or type: Classifier",
        lambda s: _who(s) is None and s.scoring.mode is ScoringMode.CLASSIFY,
    ),
    Rule(
        cel="!has(self.env) || self.env.all(a, self.env.exists_one(b, a.name == b.name))",
        message="'spec.env: ' + self.env.map(v, v.name).filter(n, !self.env.exists_one(b, b.name == n))[0] + "
        "' is set more than once; write it once'",
        found_wrong=_twice,
    ),
    rule(
        "!has(self.env) || !has(self.model) || !has(self.model.credentialsSecretRef) || "
        f"!self.env.exists(v, v.name == '{TOKEN_ENV}')",
        f"spec.env: {TOKEN_ENV} is set by spec.model.credentialsSecretRef; remove one of them",
        lambda s: (
            s.weights is not None
            and s.weights.credentials_secret_ref is not None
            and any(v.name == TOKEN_ENV for v in s.env or ())
        ),
    ),
    rule(
        "self.type != 'Classifier' || !has(self.routing) || self.routing.mode != 'Router' || "
        "(has(self.engine) && self.engine.name != 'vllm')",
        "spec.routing.mode: Router with type Classifier and spec.engine.name vllm, whose /classify sglang-router does "
        "not pass on; write Direct, or engine sglang",
        lambda s: s.type == "Classifier" and s.engine.name is EngineName.VLLM and s.routing.mode is RoutingMode.ROUTER,
    ),
    rule(
        f"!{_CUSTOM} || {_HOOKS} || !has(self.lifecycle) || self.lifecycle.state != 'Asleep'",
        "spec.lifecycle.state: Asleep with spec.engine.name custom, which cannot sleep; write Off",
        lambda s: not s.engine.can_sleep and s.lifecycle.state is LifecycleState.ASLEEP,
    ),
    rule(
        f"!{_CUSTOM} || {_HOOKS} || {_MODE} != 'Engine'",
        "spec.lifecycle.sleep.mode: Engine with spec.engine.name custom, which cannot sleep; write None, or remove it",
        lambda s: not s.engine.can_sleep and s.lifecycle.sleep.mode is SleepMode.ENGINE,
    ),
    rule(
        f"!{_CUSTOM} || {_HOOKS} || !{_LEVEL_2}",
        "spec.lifecycle.sleep.level: 2 with spec.engine.name custom, which cannot sleep; remove it",
        lambda s: not s.engine.can_sleep and _level_2(s),
    ),
    rule(
        f"!{_CUSTOM} || !{_HOOKS} || !{_LEVEL_2}",
        "spec.lifecycle.sleep.level: 2 with spec.engine.custom.sleep, which sleeps as deep as the server makes it; "
        "remove it",
        lambda s: s.engine.name is EngineName.CUSTOM and s.engine.can_sleep and _level_2(s),
    ),
    rule(
        f"!{_CUSTOM} || !{_SLEEP} || self.lifecycle.sleep.onDrainTimeout != 'Abort'",
        "spec.lifecycle.sleep.onDrainTimeout: Abort with spec.engine.name custom, whose requests the operator cannot "
        "end; write Serve, or remove it",
        lambda s: s.engine.name is EngineName.CUSTOM and s.lifecycle.sleep.on_drain_timeout is OnDrainTimeout.ABORT,
    ),
    rule(
        f"!{_LEVEL_2} || !has(self.model) || !self.model.uri.startsWith('hf://') || "
        f"(has(self.model.revision) && self.model.revision.matches('{COMMIT_PATTERN}'))",
        "spec.lifecycle.sleep.level: 2 reads the weights again at each wake, and a branch may have moved by "
        "then; write "
        "spec.model.revision: the commit, 40 hex digits, or level: 1",
        lambda s: _level_2(s) and s.weights is not None and not s.weights.reloads_the_same,
    ),
    Rule(
        cel=f"!({_SLOTS}) || self.replicas == 0 || self.gpu.slots.size() == self.replicas",
        message=with_found(_SLOT_COUNT, "self.gpu.slots.size()"),
        found_wrong=lambda s: (
            _SLOT_COUNT % len(_slots(s)) if _slots(s) and s.replicas not in (0, len(_slots(s))) else None
        ),
    ),
    Rule(
        cel=f"!({_SLOTS}) || {_OTHER_SIZE}.size() == 0",
        message=with_found(f"spec.gpu.slots: %d{_SIZE_SENTENCE}", f"{_OTHER_SIZE}[0].name"),
        found_wrong=_slot_of_other_size,
    ),
    Rule(
        cel=f"!({_SLOTS}) || !has(self.env) || !self.env.exists(v, {_A_VISIBLE})",
        message=with_found(f"spec.env: %d{_VISIBLE_SENTENCE}", f"self.env.filter(v, {_A_VISIBLE})[0].name"),
        found_wrong=_chooses_gpus,
    ),
    Rule(
        cel=f"!{_SPANS} || {_WORLD} % self.gpu.nodes == 0",
        message=with_found(_UNEVEN, "self.gpu.nodes"),
        found_wrong=lambda s: (
            _UNEVEN % s.gpu.nodes
            if _spans(s) and s.engine.tensor_parallel * s.engine.pipeline_parallel % s.gpu.nodes
            else None
        ),
    ),
    rule(
        f"!{_SPANS} || !{_CUSTOM}",
        "spec.gpu.nodes: more than 1 with spec.engine.name custom, whose parts the operator cannot bring together; "
        "remove it, or write engine vllm or sglang",
        lambda s: _spans(s) and s.engine.name is EngineName.CUSTOM,
    ),
    Rule(
        cel=f"!{_SPANS} || !({_MODE} in [{', '.join(map(quoted, _KEEPS_PODS))}])",
        message=with_found(_SPANNING_SLEEP, _MODE),
        found_wrong=lambda s: (
            _SPANNING_SLEEP.replace("%d", s.lifecycle.sleep.mode)
            if _spans(s) and s.lifecycle.sleep.mode in _KEEPS_PODS
            else None
        ),
    ),
    rule(
        f"!{_SPANS} || !has(self.lifecycle) || self.lifecycle.state != 'Asleep'",
        "spec.lifecycle.state: Asleep with spec.gpu.nodes more than 1, and no sleep over several nodes is proved; "
        "write Off",
        lambda s: _spans(s) and s.lifecycle.state is LifecycleState.ASLEEP,
    ),
    rule(
        f"!({_SLOTS}) || !{_SURGES}",
        "spec.rollout.surge: true with spec.gpu.slots, and a second pod can have the GPUs of none; remove it, or write "
        "false",
        lambda s: bool(_slots(s)) and s.rollout.surge is True,
    ),
    rule(
        f"!{_SPANS} || !{_SURGES}",
        "spec.rollout.surge: true with spec.gpu.nodes more than 1, whose groups of pods are replaced one after "
        "another; remove it, or write false",
        lambda s: _spans(s) and s.rollout.surge is True,
    ),
    Rule(
        cel=f"!has(self.engine) || !has({_MODEL_LEN}) || !has(self.scoring) || !has(self.scoring.sampling) || "
        f"!has({_ANSWER}) || {_ANSWER} < {_MODEL_LEN}",
        message=with_found(_TOO_LONG, _ANSWER),
        found_wrong=_answer_too_long,
    ),
)

PODS_EXIST: Final = "(has(oldSelf.status) && has(oldSelf.status.replicas) && oldSelf.status.replicas > 0)"


def in_gpu(side: str, field: str, default: str) -> str:
    """CEL for a field of `spec.gpu` of the old or the new object."""
    return f"(has({side}.spec.gpu) && has({side}.spec.gpu.{field}) ? {side}.spec.gpu.{field} : {default})"


def sharing_of(spec: Any) -> Sharing:
    return Sharing.EXCLUSIVE if spec.gpu is None else Sharing(spec.gpu.sharing)
