"""Four reward models on real engines, side by side: vLLM and SGLang, generative and classifier.

Each is made by applying a RewardModel, and asked through its Service and, where the router has a route for it, through
an sglang-router; each sleeps and wakes again and again, and says the same every time. No engine dies of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest

from dev import sglang_cpu
from dev.bootstrap import ensure_env
from dev.stack import SMALL, Stack
from tests.e2e.conftest import wait_for
from tests.e2e.contract.dialects import CHAT, DIALECTS, MODEL, Dialect

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

QUESTIONS = [f"Is {i} + 2 = {i + 2}?" for i in range(4)]
ENGINES: dict[str, dict[str, Any]] = {
    "vllm": {"name": "vllm", "args": list(SMALL), "maxModelLen": 2048},
    "sglang": {"name": "sglang", "args": list(sglang_cpu.ARGUMENTS), "maxModelLen": 2048},
}


@dataclass(frozen=True)
class Routed:
    """How a model is asked through sglang-router, which has few routes, and passes on of a chat what it knows."""

    at: str
    ask: Callable[[str], Mapping[str, Any]]
    verdict: Callable[[Any], Any]


_TRUE_OR_FALSE = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": {"enum": ["True", "False"]}}}


def _as_openai(text: str) -> dict[str, Any]:
    """vLLM's own structured_outputs would not come through."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 16,
        "temperature": 0,
        "response_format": _TRUE_OR_FALSE,
    }


def _true_or_false(answer: Any) -> str:
    verdict = str(json.loads(answer["choices"][0]["message"]["content"]))
    assert verdict in ("True", "False")
    return verdict


def _embedding(answer: Any) -> float:
    (row,) = answer["data"]
    (value,) = row["embedding"]
    return round(float(value), 3)


ROUTED: Mapping[str, Routed] = {
    "vllm": Routed(CHAT, _as_openai, _true_or_false),
    "sglang": Routed(CHAT, DIALECTS["sglang"].ask, DIALECTS["sglang"].verdict),
    "sglang-embedding": Routed("/v1/embeddings", lambda text: {"model": MODEL, "input": text}, _embedding),
}
VLLM_ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # A generative vLLM compiles what log-probabilities, and so its canary, need at their first use. It dies where there
    # is no C++ compiler, as in our image.
    "TORCH_COMPILE_DISABLE": "1",
}


@dataclass
class Lineup:
    """The models whose engines the selected tests ask for. Each start keeps one core busy for half a minute and more:
    together, four would starve each other. One starts while the tests of the one before it run.
    """

    stack: Stack
    waiting: list[str]
    started: list[str] = field(default_factory=list)

    def serving(self, kind: str) -> Stack:
        """Wait until it serves; the next one is on its way then."""
        while kind in self.waiting:
            self._start_next()
            self.stack.wait_for_phase(f"four-{self.started[-1]}", "Serving", timeout=300)
        self.stack.wait_for_phase(f"four-{kind}", "Serving", timeout=300)
        if kind == self.started[-1]:
            self._start_next()
        return self.stack

    def _start_next(self) -> None:
        if self.waiting:
            self.started.append(kind := self.waiting.pop(0))
            self.stack.apply(reward_model(self.stack, DIALECTS[kind], f"four-{kind}"))


@pytest.fixture(scope="module")
def engines(node: Stack, request: pytest.FixtureRequest) -> Iterator[Lineup]:
    node.cluster.ensure_sglang(ensure_env("sglang-cpu"))
    node.cluster.ensure_router(ensure_env("router"))
    ours = (item for item in request.session.items if item.path == request.path and isinstance(item, pytest.Function))
    lineup = Lineup(node, list(dict.fromkeys(str(item.callspec.params["kind"]) for item in ours)))
    yield lineup
    for kind in lineup.started:
        node.kubectl("-n", node.namespace, "delete", "rm", f"four-{kind}", "--wait")
    for kind in lineup.started:
        node.wait_for_no_children(f"four-{kind}", timeout=120)


def reward_model(stack: Stack, dialect: Dialect, name: str) -> dict[str, Any]:
    engine, _, kind = dialect.kind.partition("-")
    models = stack.prepared.models
    env = {"HF_HUB_OFFLINE": "1", **(VLLM_ENV if engine == "vllm" else {})}
    spec = {
        "type": "Classifier" if kind else "Generative",
        "model": {"uri": f"file://{models.classifier if kind else models.judge}", "servedName": "judge"},
        "engine": ENGINES[engine],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "6Gi"}},
        "lifecycle": {"state": "Awake", "wake": {"verify": True}},
        "routing": {"mode": "Router" if dialect.kind in ROUTED else "Direct"},
    }
    return {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel", "metadata": {"name": name}, "spec": spec}


def set_state(stack: Stack, name: str, state: str) -> None:
    set_lifecycle(stack, name, {"state": state})


def set_lifecycle(stack: Stack, name: str, wanted: Mapping[str, Any]) -> None:
    patch = json.dumps({"spec": {"lifecycle": wanted}})
    stack.kubectl("-n", stack.namespace, "patch", "rm", name, "--type=merge", "-p", patch)


def address(stack: Stack, service: str) -> str:
    return f"http://{stack.get('services', service)['spec']['clusterIP']}"


def post(url: str, body: Mapping[str, Any]) -> httpx.Response:
    return httpx.post(url, json=body, timeout=120, trust_env=False)


def answer(url: str, body: Mapping[str, Any]) -> Any | None:
    try:
        found = post(url, body)
    except httpx.TransportError:
        return None  # kube-proxy has not heard of the pod yet
    return found.json() if found.status_code == 200 else None


def verdicts(stack: Stack, dialect: Dialect, name: str) -> list[Any]:
    """Asked through the Service, as by clients outside our plugins."""
    url = address(stack, name) + dialect.scores_at
    return [dialect.verdict(wait_for(q, partial(answer, url, dialect.ask(q)), 30)) for q in QUESTIONS]


def routed_verdicts(stack: Stack, routed: Routed, name: str) -> list[Any]:
    """Asked through the router, which is told who serves a moment after the label says it."""
    url = address(stack, f"{name}-router") + routed.at
    return [routed.verdict(wait_for(f"routed: {q}", partial(answer, url, routed.ask(q)), 90)) for q in QUESTIONS]


def sleeps(stack: Stack, dialect: Dialect, name: str) -> dict[str, float]:
    """What the pod's own metrics say: the sleep state where the engine has one, else what runs."""
    (pod,) = stack.items("pods", f"genrm.dev/reward-model={name},genrm.dev/component=engine")
    text = httpx.get(f"http://{pod['status']['podIP']}:8000/metrics", timeout=30, trust_env=False).text
    wanted = "vllm:engine_sleep_state" if dialect.sleep_metric else "sglang:num_running_reqs"
    rows = [line.rpartition(" ") for line in text.splitlines() if line.startswith(wanted)]
    assert rows, f"{name} shows no {wanted}"
    return {head.partition('sleep_state="')[2].rstrip('"}') or "running": float(value) for head, _, value in rows}


@pytest.mark.parametrize("kind", DIALECTS)
def test_it_serves_sleeps_and_wakes_and_says_the_same(engines: Lineup, kind: str) -> None:
    nights(engines.serving(kind), kind, 3)


@pytest.mark.proof
@pytest.mark.parametrize("kind", DIALECTS)
def test_it_does_so_twenty_times(engines: Lineup, kind: str) -> None:
    nights(engines.serving(kind), kind, 20)


@pytest.mark.parametrize("kind", [pytest.param("vllm", marks=pytest.mark.proof), "sglang"])
def test_it_sleeps_by_its_end_and_the_kubelet_does_not_mind(engines: Lineup, kind: str) -> None:
    """The same pod, and the same container: its engine ends, waits at its gate, and starts again."""
    stack, dialect, name = engines.serving(kind), DIALECTS[kind], f"four-{kind}"

    def container() -> dict[str, Any]:
        (pod,) = stack.items("pods", f"genrm.dev/reward-model={name},genrm.dev/component=engine")
        (found,) = pod["status"]["containerStatuses"]
        return {"pod": pod["metadata"]["uid"], "container": found["containerID"], "restarts": found["restartCount"]}

    before, verdict = container(), verdicts(stack, dialect, name)
    try:
        set_lifecycle(stack, name, {"state": "Asleep", "sleep": {"mode": "Restart"}})
        slept = stack.wait_for_phase(name, "Asleep", timeout=60)
        assert [e["state"] for e in slept["endpoints"]] == ["Gated"]
        set_lifecycle(stack, name, {"state": "Awake"})
        woken = stack.wait_for_phase(name, "Serving", timeout=300, patient=True)
        assert container() == before and verdicts(stack, dialect, name) == verdict
        print(f"{kind}: ended in {slept['lastSleepSeconds']} s, up again in {woken['lastWakeSeconds']} s")
        ailing = [e for e in stack.items("events") if e["involvedObject"].get("uid") == before["pod"]]
        dead = [e.get("count", 1) for e in ailing if e["message"].startswith("Liveness probe failed")]
        assert sum(dead) <= 1, "at most once, between the end of the engine and the gate"
    except BaseException:
        print(stack.story(name))
        raise
    finally:
        set_lifecycle(stack, name, {"state": "Awake", "sleep": {"mode": "Engine"}})


@pytest.mark.parametrize("kind", ["sglang-embedding"])
def test_a_router_sends_no_question_to_a_classifier_that_would_end_it(engines: Lineup, kind: str) -> None:
    """An SGLang that embeds dies of generating. The router has the route, and the door does not."""
    stack, routed, name = engines.serving(kind), ROUTED[kind], f"four-{kind}"
    values = routed_verdicts(stack, routed, name)
    assert values == verdicts(stack, DIALECTS[kind], name), "/classify and /v1/embeddings say one number"
    assert post(address(stack, f"{name}-router") + CHAT, _as_openai("Is it?")).status_code == 404
    assert post(address(stack, f"{name}-router") + "/classify", {"text": "x"}).status_code == 404, (
        "no route of the router"
    )
    assert routed_verdicts(stack, routed, name) == values


def nights(stack: Stack, kind: str, many: int) -> None:
    dialect, routed, name = DIALECTS[kind], ROUTED.get(kind), f"four-{kind}"
    awake = {"awake": 1.0, "weights_offloaded": 0.0, "discard_all": 0.0} if dialect.sleep_metric else {"running": 0.0}
    asleep = {"awake": 0.0, "weights_offloaded": 1.0, "discard_all": 0.0} if dialect.sleep_metric else {"running": 0.0}
    try:
        before = verdicts(stack, dialect, name)
        before_routed = routed_verdicts(stack, routed, name) if routed is not None else []
        boots = {e["bootId"] for e in stack.status(name)["endpoints"]}
        for _ in range(many):
            set_state(stack, name, "Asleep")
            slept = stack.wait_for_phase(name, "Asleep", timeout=60)
            assert sleeps(stack, dialect, name) == asleep
            if routed is not None:
                assert post(address(stack, f"{name}-router") + routed.at, routed.ask("Is it?")).status_code == 503
            set_state(stack, name, "Awake")
            woken = stack.wait_for_phase(name, "Serving", timeout=60)
            assert sleeps(stack, dialect, name) == awake
            assert verdicts(stack, dialect, name) == before
            if routed is not None:
                assert routed_verdicts(stack, routed, name) == before_routed
            print(f"{kind}: asleep in {slept['lastSleepSeconds']} s, awake in {woken['lastWakeSeconds']} s")
            scores = [(c["status"], c["reason"]) for c in woken["conditions"] if c["type"] == "ScoresVerified"]
            assert scores in ([("True", "NotConfirmed")], [("True", "AsRecorded")]), "as it is alone, or was once not"
        assert {e["bootId"] for e in stack.status(name)["endpoints"]} == boots, "no engine died"
    except BaseException:
        print(stack.story(name))
        raise
