"""When engines are awake, and how they go to sleep."""

from __future__ import annotations

import enum
from typing import ClassVar

from pydantic import Field

from genrm_api import durations
from genrm_api.rules import ApiModel, Rule, rule
from genrm_api.values import Duration, Flag, Int


def camel(attribute: str) -> str:
    """The name of a Python attribute on the wire."""
    return "".join(word.title() if i else word for i, word in enumerate(attribute.split("_")))


def bounded_duration(attribute: str, where: str) -> Rule:
    """A duration of some length, at most a day: longer ones are typing errors that nobody would wait to find out."""
    name, longest = camel(attribute), durations.LONGEST
    sentence = f" is no time to wait; write more than 0s and at most {longest}"

    def found_wrong(found: object) -> str | None:
        text = getattr(found, attribute)
        fits = text is None or 0 < durations.milliseconds(text) <= durations.milliseconds(longest)
        return None if fits else f"{where}: {text}{sentence}"

    return Rule(
        cel=f"!has(self.{name}) || "
        f"(duration(self.{name}) > duration('0s') && duration(self.{name}) <= duration('{longest}'))",
        message=f"'{where}: ' + self.{name} + '{sentence}'",
        found_wrong=found_wrong,
    )


class LifecycleState(enum.StrEnum):
    AUTO = "Auto"
    AWAKE = "Awake"
    ASLEEP = "Asleep"
    OFF = "Off"


class SleepMode(enum.StrEnum):
    ENGINE = "Engine"
    RESTART = "Restart"
    SCALE_TO_ZERO = "ScaleToZero"
    NONE = "None"


class OnDrainTimeout(enum.StrEnum):
    SERVE = "Serve"
    ABORT = "Abort"


class Sleep(ApiModel):
    mode: SleepMode | None = Field(
        None,
        description="Engine: the engine gives its memory back and keeps running. Restart: its container starts "
        "anew and "
        "waits. ScaleToZero: the pods go. None: never. Default: None for an engine of your own without hooks, for "
        "replicas that span nodes, and with exclusive GPUs in state Auto or Awake, which the node keeps for the pod "
        "anyway; else Engine.",
    )
    level: Int = Field(
        1,
        ge=1,
        le=2,
        description="How deep mode Engine sleeps. 1: the weights stay in host memory. 2: they are dropped, and read "
        "again at each wake.",
    )
    drain_timeout: Duration = Field(
        "60s", description="How long requests inside may take to finish before the sleep is given up."
    )
    on_drain_timeout: OnDrainTimeout = Field(
        OnDrainTimeout.SERVE,
        description="What then. Serve: the pod goes back into service. Abort: what is inside is answered 503, and the "
        "pod sleeps (vllm only).",
    )
    timeout: Duration = Field("60s", description="How long the engine may take to sleep.")

    rules: ClassVar = (
        bounded_duration("drain_timeout", "spec.lifecycle.sleep.drainTimeout"),
        bounded_duration("timeout", "spec.lifecycle.sleep.timeout"),
        Rule(
            cel="self.level == 1 || !has(self.mode) || self.mode == 'Engine'",
            message="'spec.lifecycle.sleep.level: 2 with mode ' + self.mode + ', which keeps no weights either way; "
            "write level: 1 or mode: Engine'",
            found_wrong=lambda s: (
                f"spec.lifecycle.sleep.level: 2 with mode {s.mode}, which keeps no weights either way; "
                "write level: 1 or mode: Engine"
                if s.level != 1 and s.mode not in (None, SleepMode.ENGINE)
                else None
            ),
        ),
    )


class Wake(ApiModel):
    timeout: Duration = Field("120s", description="How long the engine may take to wake.")
    verify: Flag | None = Field(
        None,
        description="Compare what an engine computes of a few fixed texts with what was recorded, before it serves. "
        "Default: true for type Classifier and with SGLang; false for a generative model on vLLM, which dies of being "
        "asked for log-probabilities where its image has no C++ compiler.",
    )
    max_failures: Int = Field(
        5,
        ge=1,
        le=100,
        description="A pod whose engine so many times in a row failed to wake or hung, though its door answered, or "
        "computed other scores than those like it, is deleted, so that a new one comes; at most three in ten minutes. "
        "Nights between two wakes do not end the row.",
    )

    rules: ClassVar = (bounded_duration("timeout", "spec.lifecycle.wake.timeout"),)


def _off_before_sleep(idle: Idle) -> bool:
    if idle.sleep_after is None or idle.off_after is None:
        return False
    return durations.milliseconds(idle.off_after) < durations.milliseconds(idle.sleep_after)


class Idle(ApiModel):
    """For a model that is awake without a Lease: one that a run gives back sleeps at once."""

    sleep_after: Duration | None = Field(
        None, description="Sleep when the last request is this old. Absent: as soon as no run asks for the model."
    )
    off_after: Duration | None = Field(
        None, description="Take the pods away when the last request is this old. Absent: never."
    )

    rules: ClassVar = (
        bounded_duration("sleep_after", "spec.lifecycle.idle.sleepAfter"),
        bounded_duration("off_after", "spec.lifecycle.idle.offAfter"),
        Rule(
            cel="!has(self.sleepAfter) || !has(self.offAfter) || duration(self.offAfter) >= duration(self.sleepAfter)",
            message="'spec.lifecycle.idle.offAfter: ' + self.offAfter + ' comes before sleepAfter; write a "
            "longer time'",
            found_wrong=lambda i: (
                f"spec.lifecycle.idle.offAfter: {i.off_after} comes before sleepAfter; write a longer time"
                if _off_before_sleep(i)
                else None
            ),
        ),
    )


class Lifecycle(ApiModel):
    state: LifecycleState = Field(
        LifecycleState.AUTO,
        description="Auto: awake while a run's Lease asks for it, else asleep. Awake, Asleep: always. Off: no pods.",
    )
    sleep: Sleep = Field(default_factory=Sleep, description="How the engines go to sleep.")
    wake: Wake = Field(default_factory=Wake, description="How they wake.")
    idle: Idle = Field(default_factory=Idle, description="What idleness alone leads to.")

    rules: ClassVar = (
        rule(
            "self.state != 'Asleep' || !has(self.sleep) || !has(self.sleep.mode) || self.sleep.mode != 'None'",
            "spec.lifecycle.state: Asleep with sleep.mode None, which never sleeps; write state: Off, or another mode",
            lambda found: found.state is LifecycleState.ASLEEP and found.sleep.mode is SleepMode.NONE,
        ),
    )


class Rollout(ApiModel):
    pin_during_lease: Flag | None = Field(
        None,
        description="While a run holds a Lease, a change that would replace engine pods waits: one run is scored by "
        "one revision. Engines that never came up are replaced all the same. Default: true.",
    )
    surge: Flag | None = Field(
        None,
        description="true: the pod of a new revision comes beside the old ones, one at a time, and an old one goes "
        "once the new one is verified and serves; where no node has room for it, an old one goes first after all. "
        "false: an old one always goes first, so that nothing is preempted and no node is added for a rollout. "
        "Default: true, but for gpu.slots and gpu.nodes above 1, where it is refused.",
    )


class RoutingMode(enum.StrEnum):
    DIRECT = "Direct"
    ROUTER = "Router"


class Routing(ApiModel):
    mode: RoutingMode = Field(
        RoutingMode.DIRECT,
        description="Direct: clients reach the engine pods. Router: an sglang-router stands in front of them, "
        "too; it has no route for a Classifier on vLLM.",
    )
