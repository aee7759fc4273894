"""Nights and mornings: every status, every state, the engine's word, the answers before and after."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import pytest
from genrm_api.rewardmodel import RewardModelType
from genrm_operator import golden, pairs

from tests.e2e.contract.engines import ADMIN, REVISION, SAME, Engine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NIGHTS = 3


def test_it_is_born_closed(engine: Engine) -> None:
    born = dict(engine.born)
    assert born["bootId"] and born["startedAt"]
    seen = {name: born[name] for name in ("state", "inside", "engine", "revision", "asleep", "served", "ledger")}
    assert seen == {
        "state": "closed",
        "inside": 0,
        "engine": engine.dialect.door,
        "revision": REVISION,
        "asleep": False,
        "served": 0,
        "ledger": [],
    }
    assert (born["epoch"], born["lastRequestAt"]) == (None, None)
    assert born["weights"]["revision"].startswith("sha256:") and born["weights"]["bytes"] > 0


def test_the_operator_asks_first_through_the_closed_door_and_nobody_else(engine: Engine) -> None:
    assert engine.put("closed").status_code == 200
    before = engine.document()
    assert engine.ask().status_code == 503
    assert engine.ask(headers={"Authorization": "Bearer x"}).status_code == 401
    engine.dialect.verdict(engine.ask(headers=ADMIN).json())
    after = engine.document()
    assert (after["served"], after["lastRequestAt"]) == (before["served"], before["lastRequestAt"])


def test_a_night_and_a_morning(engine: Engine) -> None:
    """The whole cycle as the operator drives it."""
    Act = Callable[[], httpx.Response]
    dialect = engine.dialect
    first, last = dialect.sleep[0], dialect.sleep[-1]
    score: Act = engine.ask
    put: Callable[[str], Act] = lambda state: lambda: engine.put(state)  # noqa: E731
    night: Act = lambda: engine.carry_out(*dialect.sleep)  # noqa: E731
    morning: Act = lambda: engine.carry_out(*dialect.wake)  # noqa: E731
    engine.serve()
    steps: list[tuple[str, Act, int, str, bool]] = [
        ("score", score, 200, "serving", False),
        ("sleep while serving", lambda: engine.order(first), 409, "serving", False),
        ("release while serving", lambda: engine.order(last), 409, "serving", False),
        ("asleep while serving", put("asleep"), 409, "serving", False),
        ("drain", put("draining"), 200, "draining", False),
        ("score while draining", score, 503, "draining", False),
        ("sleep", night, 200, "draining", True),
        ("asleep", put("asleep"), 200, "asleep", True),
        ("score while asleep", score, 503, "asleep", True),
        ("sleep again", night, 200, "asleep", True),
        ("serve a sleeper", put("serving"), 409, "asleep", True),
        ("health", lambda: engine.http.get("/health"), 200, "asleep", True),
        *[(f"read {path}", lambda path=path: engine.http.get(path), 200, "asleep", True) for path in dialect.reads],
        ("wake", morning, 200, "asleep", False),
        ("score before the door opens", score, 503, "asleep", False),
        ("wake again", morning, 200, "asleep", False),
        ("serve", put("serving"), 200, "serving", False),
        ("score again", score, 200, "serving", False),
    ]
    for name, act, status, state, asleep in steps:
        began = time.monotonic()
        answer = act()
        seconds = time.monotonic() - began
        document = engine.document()
        seen = (answer.status_code, document["state"], document["asleep"])
        assert seen == (status, state, asleep), f"{name}: {answer.text}"
        assert engine.sleep_metric() == (
            None if not dialect.sleep_metric else "weights_offloaded" if asleep else "awake"
        )
        if status == 503:
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["state"] == state
            assert seconds < 1, "refused at once, not after the engine was asked"
        if name.startswith("score") and status == 200:
            assert answer.headers["genrm-revision"] == REVISION
            assert answer.headers["genrm-boot-id"] == document["bootId"]
            dialect.verdict(answer.json())


def test_golden_rows_are_the_same_after_a_night_and_tell_texts_apart(engine: Engine) -> None:
    """What the operator asks through the closed door, of texts as long as the tiny models take."""
    dialect, kind = (
        engine.dialect,
        RewardModelType.CLASSIFIER if "-" in engine.dialect.kind else RewardModelType.GENERATIVE,
    )

    def rows() -> list[golden.Values]:
        assert engine.put("closed").status_code == 200
        answers = [engine.order(dialect.golden(golden.text(i, 512))) for i in range(len(golden.TEXTS))]
        assert [answer.status_code for answer in answers] == [200] * len(answers), answers[0].text
        return [tuple(dialect.numbers(answer.json())) for answer in answers]

    engine.serve()
    repeats = [rows() for _ in range(golden.REPEATS)]
    recorded = [golden.Row.of([once[i] for once in repeats]) for i in range(len(golden.TEXTS))]
    assert all(map(golden.usable, recorded))
    engine.sleep()
    engine.serve()
    for row, again in zip(recorded, rows(), strict=True):
        print(
            f"{len(row.values)} values, spread {row.spread:.2g}, {golden.distance(row.values, again):.2g} after a night"
        )
        assert golden.distance(row.values, again) <= golden.allowed(row, kind)
    if kind is RewardModelType.GENERATIVE:
        assert min(len(row.values) for row in recorded) > 32
        assert golden.distance(recorded[0].values[:32], recorded[1].values[:32]) > golden.allowed(recorded[0], kind)


def test_a_pair_is_asked_in_the_tokens_of_the_engines_own_chat_template(engine: Engine) -> None:
    dialect, generates = engine.dialect, "-" not in engine.dialect.kind
    engine.serve()
    assert engine.put("closed").status_code == 200

    def tokens(messages: list[dict[str, str]], *, opens: bool) -> tuple[int, ...]:
        answer = engine.order(dialect.rendering(messages, opens=opens))
        assert answer.status_code == 200, answer.text
        return tuple(dialect.tokens(answer.json()))

    def row(whole: tuple[int, ...]) -> tuple[float, ...]:
        answer = engine.order(dialect.golden(whole))
        assert answer.status_code == 200, answer.text
        return tuple(dialect.numbers(answer.json()))

    question = "How much is 2 + 2?"
    prompt = tokens(pairs.asks(question), opens=True)
    wholes = [tokens(pairs.answered(question, text), opens=False) for text in ("It is 4.", "It is not known.")]
    assert all(whole[: len(prompt)] == prompt for whole in wholes), "a response begins where the head of an answer ends"
    rows = [row(whole) for whole in wholes]
    found = [
        pairs.likelihood(prompt, whole, values) if generates else pairs.score(values)
        for whole, values in zip(wholes, rows, strict=True)
    ]
    print(f"{[len(whole) for whole in wholes]} tokens, {len(prompt)} of them the prompt's: {found}")
    assert None not in found and len(set(found)) == 2
    if generates:
        common = len(prompt) - 1
        assert golden.distance(rows[0][:common], rows[1][:common]) <= SAME, "the same prompt, whatever comes after it"


def test_the_answers_and_the_metrics_are_the_same_after_every_night(engine: Engine) -> None:
    questions = [f"Is {i} + 2 = {i + 2}?" for i in range(6)]
    engine.serve()
    before = [engine.weight(question) for question in questions]
    for night in range(NIGHTS):
        began = time.monotonic()
        engine.sleep()
        slept = time.monotonic()
        assert engine.document()["memory"] == engine.dialect.memory
        engine.serve()
        print(f"night {night}: asleep in {slept - began:.3f} s, serving in {time.monotonic() - slept:.3f} s")
        assert [engine.weight(question) for question in questions] == pytest.approx(before, abs=SAME)
        seen = {(name, tuple(sorted(labels))) for name, labels, _ in engine.metrics()}
        assert seen >= engine.dialect.metrics
    assert len(set(before)) > 1, "an engine that always says the same shows nothing"
