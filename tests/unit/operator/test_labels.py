"""Labels that an engine takes apart: asked behind the real door, and said so that nobody can miss it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import pytest
from genrm_api.rewardmodel import EngineName, RewardModel
from genrm_api.status import Reason
from genrm_operator import labels
from genrm_operator.cache import Cache
from genrm_operator.doors import Doors
from genrm_operator.engines import Adapter, adapter_for
from genrm_operator.engines.adapter import Call
from genrm_operator.errors import DoorUnreachable, EngineError
from genrm_operator.kube import Kube
from genrm_operator.labels import Heard, hear, standing, trouble_of
from genrm_operator.memory import Memory
from genrm_operator.metrics import Metrics
from genrm_operator.observed import DoorState, Pod, Transition
from genrm_operator.observing import Observer
from genrm_operator.reporting import Reporter
from genrm_operator.transitions import run
from genrm_operator.workqueue import WorkQueue

from tests.simulator import client
from tests.simulator.client import Simulator
from tests.unit.operator import test_pinning
from tests.unit.operator.test_lifecycle import make_door, make_pod
from tests.unit.operator.test_pinning import condition, seen
from tests.unit.operator.test_transitions import TOKEN, truth
from tests.unit.operator.test_transitions import target as bare_target

ADDRESS = "127.77.3.9"  # of this test alone, because doors listen on a fixed port
GENERATIVE = ["vllm", "sglang"]
VLLM = adapter_for(EngineName.VLLM)


def model(*words: str, known: dict[str, Any] | None = None, **spec: Any) -> RewardModel:
    parse = {"kind": "logprob", **({"values": {word: i for i, word in enumerate(words)}} if words else {})}
    return test_pinning.model(known=known, scoring={"template": "{{ response }}", "parse": parse}, **spec)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with client.running("--host", ADDRESS, port=8000) as simulator:
        yield simulator


async def asked(
    simulator: Simulator, kind: str, rm: RewardModel, faults: dict[str, Any] | None = None
) -> tuple[Heard | None, list[Any]]:
    """What is heard of an engine that has just started, and what it was asked for that."""
    made = bare_target(simulator, kind, address=ADDRESS)
    simulator.put(ADDRESS, faults=faults or {})
    async with Doors() as doors:
        pod = dataclasses.replace(made.pod, door=await doors.look(made.pod, TOKEN))
        heard = await hear(rm, made.adapter, None, [pod], (), lambda pod, call: doors.call_engine(pod, TOKEN, call, 5))
    return heard, [call["path"] for call in truth(simulator, ADDRESS)["calls"] if call["path"] == "/tokenize"]


@pytest.mark.parametrize("kind", GENERATIVE)
async def test_an_engine_is_asked_for_the_tokens_of_each_label_through_its_closed_door(
    simulator: Simulator, kind: str
) -> None:
    heard, calls = await asked(simulator, kind, model())
    assert heard is not None and (heard.labels, heard.split) == (tuple("0123456789"), ())
    assert len(calls) == 11, "a simulated engine has one token for each letter"
    heard, calls = await asked(simulator, kind, model("A", "good", "bad"))
    assert heard is not None and heard.split == ("good", "bad")
    assert truth(simulator, ADDRESS)["state"] == "closed"


@pytest.mark.parametrize("kind", GENERATIVE)
@pytest.mark.parametrize(("status", "again"), [(404, False), (400, False), (500, True), (503, True)])
async def test_an_engine_that_does_not_tell_serves_and_it_is_said(
    simulator: Simulator, kind: str, status: int, again: bool
) -> None:
    heard, _ = await asked(simulator, kind, model(), {"status": {"/tokenize": status}})
    assert heard is not None and heard.split is None and f"answered {status}" in heard.why
    assert (heard.again_at < math.inf) is again
    said = standing(model(), heard)
    assert said is not None and said[:2] == (None, Reason.LABELS_NOT_ASKED)
    assert trouble_of(model(), heard) is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"count": 3}, "cannot be read: KeyError"),
        ({"tokens": None}, "cannot be read: TypeError"),
        ({"tokens": []}, "cannot be read: ValueError"),
        ({"tokens": ["a"]}, "cannot be read: ValueError"),
        (EngineError("judge-0", "no"), "judge-0: no"),
        (DoorUnreachable("judge-0", "gone"), "gone"),
        (None, "no answer within 0.05 s"),
    ],
)
async def test_what_an_engine_answers_is_not_ours(answer: Any, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "ASK_SECONDS", 0.05)

    async def ask(pod: Pod, call: Call) -> Any:
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return labels.Answer(200, json.dumps(answer).encode())

    heard = await hear(model(), VLLM, None, [make_pod(door=make_door(DoorState.CLOSED))], (), ask)
    assert heard is not None and heard.split is None and why in heard.why


class Engine:
    """Counts; a text's letters are its tokens."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, pod: Pod, call: Call) -> Any:
        assert call.body is not None and call.body["add_special_tokens"] is False
        self.asked.append(pod.uid)
        return labels.Answer(200, json.dumps({"tokens": list(map(ord, call.body["prompt"]))}).encode())


async def test_an_engine_is_asked_once_for_each_boot_and_for_each_labels() -> None:
    engine, pods = Engine(), [make_pod(door=make_door(DoorState.CLOSED))]
    first = await hear(model("A", "B"), VLLM, None, pods, (), engine)
    asked = len(engine.asked)
    assert asked and await hear(model("A", "B"), VLLM, first, pods, (), engine) is first
    sleeps = [make_pod(door=make_door(DoorState.ASLEEP, asleep=True))]
    assert await hear(model("A", "B"), VLLM, first, sleeps, (), engine) is first
    assert len(engine.asked) == asked
    other = await hear(model("A", "no"), VLLM, first, pods, (), engine)
    assert other is not None and other.split == ("no",) and len(engine.asked) > asked
    asked = len(engine.asked)
    again = await hear(
        model("A", "no"), VLLM, other, [make_pod(door=make_door(DoorState.CLOSED, boot_id="b2"))], (), engine
    )
    assert again is not None and again.boot_id == "b2" and len(engine.asked) > asked
    late = dataclasses.replace(again, again_at=asyncio.get_running_loop().time() - 1)
    assert (
        await hear(
            model("A", "no"), VLLM, late, [make_pod(door=make_door(DoorState.SERVING, boot_id="b2"))], (), engine
        )
        == again
    )


@pytest.mark.parametrize(
    ("pod", "busy"),
    [
        (make_pod(door=None), ()),
        (make_pod(door=make_door(DoorState.GATED, asleep=None)), ()),
        (make_pod(door=make_door(DoorState.DRAINING)), ()),
        (make_pod(door=make_door(DoorState.ASLEEP, asleep=True)), ()),
        (make_pod(door=make_door(DoorState.CLOSED, asleep=True)), ()),
        (make_pod(door=make_door(DoorState.CLOSED, asleep=None)), ()),
        (make_pod(door=make_door(DoorState.SERVING), deleting=True), ()),
        (make_pod(door=make_door(DoorState.SERVING)), ("u0",)),
    ],
)
async def test_nobody_is_asked_who_cannot_answer(pod: Pod, busy: tuple[str, ...]) -> None:
    engine = Engine()
    assert await hear(model(), VLLM, None, [pod], busy, engine) is None and not engine.asked


@pytest.mark.parametrize(
    ("rm", "adapter"),
    [(test_pinning.model(), VLLM), (model(), adapter_for(EngineName.CUSTOM))],
)
async def test_nothing_is_asked_where_nothing_is_read_or_nobody_answers(rm: RewardModel, adapter: Adapter) -> None:
    engine = Engine()
    pods = [make_pod(door=make_door(DoorState.CLOSED))]
    assert await hear(rm, adapter, None, pods, (), engine) is None and not engine.asked


# ---------------------------------------------------------------------- what is said

SPLIT = Heard(("A", "no"), "b1", ("no",))
WHOLE = Heard(("A", "no"), "b1", ())
MUTE = Heard(("A", "no"), "b1", None, "judge-0: POST /tokenize answered 404")


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        (SPLIT, ("False", "LabelNotOneToken", "spec.scoring.parse.values: 'no' is more than one token to this model")),
        (WHOLE, ("True", "LabelsAreTokens", "each of 2 labels")),
        (MUTE, ("Unknown", "LabelsNotAsked", "the labels of spec.scoring.parse are not known to be tokens: judge-0")),
        (Heard(("Y", "N"), "b1", ("Y",)), None),
        (None, None),
    ],
)
def test_the_status_says_it(heard: Heard | None, expected: tuple[str, str, str] | None) -> None:
    said = condition(seen(model("A", "no"), labels=heard), "ScoringValid")
    if expected is None:
        assert said is None, "of other labels than those of now nothing is known"
    else:
        assert said is not None and (said["status"], said["reason"]) == expected[:2]
        assert said["message"].startswith(expected[2])


def test_a_model_whose_labels_nobody_can_read_is_degraded_and_not_ready_and_serves() -> None:
    pods = [make_pod(serving=True, labelled_boot_id="b1", door=make_door(DoorState.SERVING))]
    awake = test_pinning.Demand(test_pinning.Desired.AWAKE, "a run asks", (), (), None)
    told = seen(model("A", "no"), labels=SPLIT, pods=pods, demand=awake)
    for kind, status in (("Degraded", "True"), ("Ready", "False")):
        said = condition(told, kind)
        assert said is not None and (said["status"], said["reason"]) == (status, "LabelNotOneToken")
        assert "'no' is more than one token" in said["message"]
    assert (told["phase"], told["awake"]) == ("Serving", 1)
    for fine in (WHOLE, MUTE, None):
        ready = condition(seen(model("A", "no"), labels=fine, pods=pods, demand=awake), "Ready")
        assert ready is not None and ready["status"] == "True"


def test_a_new_operator_process_says_what_the_last_one_heard_of_the_same_spec() -> None:
    told = seen(model("A", "no"), labels=SPLIT)
    again = seen(model("A", "no", known=told))
    assert condition(again, "ScoringValid") == condition(told, "ScoringValid")
    degraded = condition(again, "Degraded")
    assert degraded is not None and degraded["status"] == "True"
    corrected = model("A", "B", known=told)
    corrected.metadata["generation"] = 2
    assert condition(seen(corrected), "ScoringValid") is None
    assert condition(seen(test_pinning.model(known=told)), "ScoringValid") is None, "nobody reads labels any more"


# ---------------------------------------------------------------------- in a look


@pytest.mark.parametrize("kind", GENERATIVE)
async def test_a_look_asks_a_closed_door_and_an_open_one_when_the_labels_change(
    simulator: Simulator, kind: str
) -> None:
    made, memory, cache = bare_target(simulator, kind, address=ADDRESS), Memory(), Cache()
    cache.pods["rl", "judge"]["u0"] = made.pod
    rm = partial(model, engine={"name": str(made.rm.spec.engine.name)})
    async with Doors() as doors:
        look = partial(Observer(cache, doors).observe, ("rl", "judge"), token=TOKEN, hooked=None)
        await look(rm(), made.adapter, memory)
        assert memory.labels is not None and memory.labels.split == ()
        await run(Transition.VERIFY, made, doors)
        await run(Transition.WAKE, made, doors)
        await look(rm("A", "no"), made.adapter, memory)
        assert memory.labels.split == ("no",) and truth(simulator, ADDRESS)["state"] == "serving"
        await look(test_pinning.model(), made.adapter, memory)
        assert memory.labels is None


class Kept:
    """The API server, as far as a status and Events go."""

    def __init__(self, obj: dict[str, Any]) -> None:
        self.obj = obj
        self.events: list[tuple[str, str]] = []

    async def apply_status(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self.obj = {**self.obj, "status": manifest["status"]}
        return self.obj

    async def create_event(self, regarding: dict[str, Any], reason: str, note: str, *, warning: bool) -> None:
        self.events += [(reason, note)] if warning else []


async def test_a_look_tells_it_once_and_another_time_when_it_is_wrong_again() -> None:
    rm, cache, memory = model("A", "no"), Cache(), Memory()
    kept = Kept({"metadata": {**rm.metadata, "resourceVersion": "1"}, "spec": {}, "status": {}})
    cache.put_reward_model(kept.obj, deleted=False)
    reporter = Reporter(cast("Kube", kept), cache, WorkQueue(lambda _: None), Metrics())
    wants = test_pinning.Demand(test_pinning.Desired.ASLEEP, "nobody asks", (), (), None)
    for heard, events in ((SPLIT, 1), (SPLIT, 1), (WHOLE, 1), (SPLIT, 2)):
        memory.labels = heard
        await reporter.look(rm, VLLM, memory, [], wants, None, {})
        told = [note for reason, note in kept.events if reason == "LabelNotOneToken"]
        assert len(told) == events and all("'no' is more than one token" in note for note in told)
        valid = condition(kept.obj["status"], "ScoringValid")
        assert valid is not None and valid["status"] == str(not heard.split)
