"""One judgement end to end, against a real HTTP server that misbehaves on demand."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from genrm_api.rewardmodel import Sampling, Scoring
from genrm_scoring.balancing import LeastInFlight
from genrm_scoring.endpoints import Endpoint, Endpoints, Snapshot, StaticEndpoints
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.judges import PAIRWISE
from genrm_scoring.retries import RetryBudget
from genrm_scoring.scorer import Scorer
from genrm_scoring.transport import AiohttpTransport
from genrm_scoring.types import Judgement, Outcome, Question, Sample, Score

from tests.unit.scoring.scripted_judge import (
    Reaction,
    ScriptedJudge,
    drops_connection,
    garbage,
    hangs,
    says,
    status,
)

SAMPLE = Sample("What is 17 plus 25?", "42")
TRUE = says(r"\boxed{True}")


class ChangingEndpoints:
    """Endpoints that a test changes."""

    def __init__(self, *endpoints: Endpoint, problem: str | None = None) -> None:
        self._snapshot = Snapshot(1, endpoints, problem)
        self._changed = asyncio.Event()
        self.somebody_waits = asyncio.Event()

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def change(self, *endpoints: Endpoint) -> None:
        self._snapshot = Snapshot(self._snapshot.version + 1, endpoints)
        self._changed.set()

    async def wait_for_change(self, version: int, timeout: float) -> None:
        self.somebody_waits.set()
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return


@pytest.fixture
async def transport() -> AsyncIterator[AiohttpTransport]:
    transport = AiohttpTransport(connect_seconds=0.5)
    yield transport
    await transport.close()


def scorer(endpoints: Endpoints, transport: AiohttpTransport, timeout: str = "5s", **more: object) -> Scorer:
    balancer = LeastInFlight(eject_seconds=0.05, not_serving_seconds=0.02)
    scoring = Scoring(timeout=timeout, sampling=Sampling(seed=3))
    return Scorer(scoring, "judge", endpoints, transport, balancer, **more)  # type: ignore[arg-type]


def closed_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}"


async def test_a_verdict_comes_back_with_its_story(transport: AiohttpTransport) -> None:
    async with ScriptedJudge(TRUE) as judge:
        judgement, score = await scorer(StaticEndpoints([judge.url]), transport).score(SAMPLE)
    assert (judgement.outcome, score.value, judgement.attempts) == (Outcome.OK, 1.0, 1)
    assert judgement.endpoint == Endpoint(judge.url)
    assert judgement.answer is not None
    assert (judgement.answer.revision, judgement.answer.boot_id, judgement.answer.completion_tokens) == ("r1", "b1", 7)
    assert judge.requests[0]["model"] == "judge"


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (status(500, "boom"), "ServerFailed"),
        (status(503, "asleep"), "NotServing"),
        (status(429), "ServerFailed"),
        (garbage(), "ServerFailed"),
        (drops_connection(), "Disconnected"),
        (says("so far", "abort"), "Aborted"),
    ],
)
async def test_a_transient_failure_is_asked_again_with_the_same_seed(
    transport: AiohttpTransport, trouble: Reaction, error: str
) -> None:
    async with ScriptedJudge(trouble, TRUE) as judge:
        judgement = await scorer(StaticEndpoints([judge.url]), transport).judge(SAMPLE)
    assert (judgement.outcome, judgement.attempts) == (Outcome.OK, 2)
    assert [f.error for f in judgement.failures] == [error]
    assert judge.requests[0] == judge.requests[1]


@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [
        (says("no box"), Outcome.PARSE_FAILED),
        (says("on and on", "length"), Outcome.TRUNCATED),
        (says("", "content_filter"), Outcome.REFUSED),
        (status(404, "no model"), Outcome.REFUSED),
        (status(400, "maximum context length is 4096"), Outcome.TOO_LONG),
    ],
)
async def test_what_would_fail_again_is_not_asked_again(
    transport: AiohttpTransport, trouble: Reaction, outcome: Outcome
) -> None:
    async with ScriptedJudge(trouble) as judge:
        judgement, score = await scorer(StaticEndpoints([judge.url]), transport).score(SAMPLE)
    assert (judgement.outcome, judgement.attempts, len(judge.requests)) == (outcome, 1, 1)
    assert score.value is None
    assert judgement.detail


@pytest.mark.parametrize("trouble", [status(500), drops_connection(), says("", "abort")])
async def test_a_retry_goes_to_another_endpoint(transport: AiohttpTransport, trouble: Reaction) -> None:
    async with ScriptedJudge(trouble) as bad, ScriptedJudge(TRUE) as good:
        endpoints = StaticEndpoints([bad.url, good.url])
        judgements = [await scorer(endpoints, transport).judge(Sample(f"question {i}", "")) for i in range(8)]
    assert {j.outcome for j in judgements} == {Outcome.OK}
    assert {str(j.endpoint) for j in judgements} == {good.url}
    assert len(bad.requests) == sum(len(j.failures) for j in judgements) > 0


async def test_a_refused_connection_is_retried_elsewhere(transport: AiohttpTransport) -> None:
    async with ScriptedJudge(TRUE) as good:
        one = scorer(StaticEndpoints([closed_port(), good.url]), transport)
        judgements = await asyncio.gather(*(one.judge(Sample(f"question {i}", "")) for i in range(8)))
    assert {j.outcome for j in judgements} == {Outcome.OK}
    assert {f.error for j in judgements for f in j.failures} == {"ConnectFailed"}


async def test_a_server_that_is_never_there_ends_as_transport(transport: AiohttpTransport) -> None:
    judgement = await scorer(StaticEndpoints([closed_port()]), transport, timeout="300ms").judge(SAMPLE)
    assert judgement.outcome is Outcome.TRANSPORT
    assert "ConnectFailed" in {f.error for f in judgement.failures}


async def test_a_hanging_server_costs_its_share_of_the_deadline_only(transport: AiohttpTransport) -> None:
    async with ScriptedJudge(hangs()) as stuck, ScriptedJudge(TRUE) as good:
        one = scorer(StaticEndpoints([stuck.url, good.url]), transport, timeout="1s")
        judgements = await asyncio.gather(*(one.judge(Sample(f"question {i}", "")) for i in range(4)))
    assert {j.outcome for j in judgements} == {Outcome.OK}
    assert "AttemptTimeout" in {f.error for j in judgements for f in j.failures}
    assert all(j.seconds < 0.9 for j in judgements)


async def test_a_lone_hanging_server_ends_as_timeout_at_the_deadline(transport: AiohttpTransport) -> None:
    async with ScriptedJudge(hangs()) as stuck:
        judgement = await scorer(StaticEndpoints([stuck.url]), transport, timeout="300ms").judge(SAMPLE)
    assert judgement.outcome is Outcome.TIMEOUT
    assert 0.25 < judgement.seconds < 2.0


async def test_a_sleeping_fleet_is_waited_for(transport: AiohttpTransport) -> None:
    async with ScriptedJudge(TRUE) as judge:
        endpoints = ChangingEndpoints()
        waiting = asyncio.create_task(scorer(endpoints, transport).judge(SAMPLE))
        await asyncio.wait_for(endpoints.somebody_waits.wait(), 5)
        assert not judge.requests
        endpoints.change(Endpoint(judge.url, "judge-0"))
        judgement = await asyncio.wait_for(waiting, 5)
    assert (judgement.outcome, judgement.attempts) == (Outcome.OK, 1)


async def test_a_fleet_that_never_wakes_ends_as_asleep(transport: AiohttpTransport) -> None:
    judgement = await scorer(ChangingEndpoints(), transport, timeout="100ms").judge(SAMPLE)
    assert (judgement.outcome, judgement.attempts) == (Outcome.ASLEEP, 0)


async def test_a_door_that_stays_closed_ends_as_asleep_and_spends_no_retries(transport: AiohttpTransport) -> None:
    budget = RetryBudget(start=0.0, earned=0.0)
    async with ScriptedJudge(status(503, "asleep")) as judge:
        one = scorer(StaticEndpoints([judge.url]), transport, timeout="300ms", budget=budget)
        judgement = await one.judge(SAMPLE)
    assert judgement.outcome is Outcome.ASLEEP
    assert judgement.attempts > 2


async def test_moments_left_after_a_late_wake_are_not_called_a_slow_engine(transport: AiohttpTransport) -> None:
    """The last attempt is cut by the deadline; nearly all of the time before it, nobody served."""
    async with ScriptedJudge(hangs()) as judge:
        endpoints = ChangingEndpoints()
        waiting = asyncio.create_task(scorer(endpoints, transport, timeout="1s").judge(SAMPLE))
        asyncio.get_running_loop().call_later(0.8, endpoints.change, Endpoint(judge.url, "judge-0"))
        judgement = await asyncio.wait_for(waiting, 5)
    assert (judgement.outcome, judgement.attempts) == (Outcome.ASLEEP, 1)
    assert judgement.failures[0].error == "AttemptTimeout"


async def judged(
    transport: AiohttpTransport, spec: dict[str, Any], *script: Reaction
) -> tuple[Judgement, Score, list[Any]]:
    async with ScriptedJudge(*script) as judge:
        one = Scorer(Scoring.model_validate(spec), "judge", StaticEndpoints([judge.url]), transport)
        return *await one.score(SAMPLE), judge.requests


async def test_a_judge_of_ones_own_asks_and_is_read_as_its_spec_says(transport: AiohttpTransport) -> None:
    spec = {"template": "Grade {{ response }}.", "parse": {"kind": "tag", "tag": "g", "minimum": 0, "maximum": 10}}
    judgement, score, (request,) = await judged(transport, spec, says("<think>9</think>Good. <g>7</g>"))
    assert request["messages"] == [{"role": "user", "content": "Grade 42."}]
    assert (judgement.outcome, score.value) == (Outcome.OK, 7.0)
    judgement, score, _ = await judged(transport, spec, says("<g>70</g>"))
    assert (judgement.outcome, score.value, judgement.detail) == (Outcome.PARSE_FAILED, None, "70 is more than 10")


async def test_a_score_is_calibrated_and_its_own_number_is_kept(transport: AiohttpTransport) -> None:
    spec = {"judge": "pointwise-1-10", "calibrate": {"kind": "affine", "scale": 0.1, "offset": -0.5}}
    judgement, score, _ = await judged(transport, spec, says("<score>7</score>"))
    assert score.value == pytest.approx(0.2)
    assert judgement.verdict is not None and judgement.verdict.facts == {"uncalibrated": 7.0}


async def test_a_score_that_calibration_loses_is_none(transport: AiohttpTransport) -> None:
    spec = {"judge": "pointwise-1-10", "calibrate": {"kind": "affine", "scale": 1.7e308}}
    judgement, score, _ = await judged(transport, spec, says("<score>7</score>"))
    assert (judgement.outcome, score.value) == (Outcome.PARSE_FAILED, None)


async def test_votes_are_asked_with_seeds_of_their_own_and_combined(transport: AiohttpTransport) -> None:
    spec = {"judge": "pointwise-1-10", "sampling": {"seed": 3}, "votes": {"count": 4, "combine": "median"}}
    script = [says(f"<score>{grade}</score>") for grade in (2, 8, 6)] + [says("no idea")]
    judgement, score, requests = await judged(transport, spec, *script)
    assert (judgement.outcome, score.value, judgement.attempts) == (Outcome.OK, 6.0, 4)
    assert judgement.verdict is not None and judgement.verdict.facts == {"votes": 3.0, "votes_failed": 1.0}
    assert len({request["seed"] for request in requests}) == 4
    assert {vote.outcome for vote in judgement.votes} == {Outcome.OK, Outcome.PARSE_FAILED}


async def test_a_retry_has_the_seed_of_what_it_repeats_and_the_next_run_has_it_too(transport: AiohttpTransport) -> None:
    spec: dict[str, Any] = {"judge": "pointwise-1-10", "votes": {"count": 2}}
    grade = says("<score>2</score>")
    _, _, first = await judged(transport, spec, status(500), grade)
    _, _, second = await judged(transport, spec, grade)
    assert len(first) == 3 and len(second) == 2
    assert {request["seed"] for request in first} == {request["seed"] for request in second}
    assert len({request["seed"] for request in second}) == 2
    _, _, without = await judged(transport, spec | {"sampling": {"seeded": False}}, grade)
    assert not any("seed" in request for request in without)


async def test_votes_without_a_majority_are_no_score(transport: AiohttpTransport) -> None:
    spec = {"judge": "pointwise-1-10", "votes": {"count": 2}}
    judgement, score, _ = await judged(transport, spec, says("<score>2</score>"), says("no idea"))
    assert (judgement.outcome, score.value) == (Outcome.PARSE_FAILED, None)


async def test_a_verdict_may_be_read_from_probabilities(transport: AiohttpTransport) -> None:
    spec = {"template": "{{ response }}", "parse": {"kind": "logprob", "values": {"A": 1, "B": 0}}}
    top = [{"token": token, "logprob": math.log(p)} for token, p in (("A", 0.6), ("B", 0.3), ("C", 0.1))]
    tokens = [{"token": "A", "logprob": math.log(0.6), "top_logprobs": top}]
    judgement, score, (request,) = await judged(transport, spec, says("A", "length", logprobs=tokens))
    assert request["logprobs"] is True
    assert score.value == pytest.approx(2 / 3)
    assert judgement.verdict is not None and judgement.verdict.facts["missing"] == pytest.approx(0.1)


async def test_a_judge_of_pairs_is_asked_and_says_which_it_prefers(transport: AiohttpTransport) -> None:
    async with ScriptedJudge(says("<result>B</result>")) as judge:
        one = Scorer(Scoring(), "judge", StaticEndpoints([judge.url]), transport, judge=PAIRWISE["pairwise-abtie"])
        judgement = await one.ask(Question("What is 17 plus 25?", ("42", "43")))
    assert judgement.verdict is not None and judgement.verdict.value == 0.0
    (message,) = judge.requests[0]["messages"]
    assert message["content"].index("<response_a>\n42") < message["content"].index("<response_b>\n43")


async def test_a_sample_that_lacks_what_is_asked_about_is_not_asked_about(transport: AiohttpTransport) -> None:
    judgement, score, requests = await judged(transport, {"judge": "five-criteria"}, says("{}"))
    assert (judgement.outcome, score.value, judgement.attempts, requests) == (Outcome.SKIPPED, None, 0, [])
    assert "reference" in judgement.detail


async def test_a_letter_that_is_none_does_not_stop_a_judgement(transport: AiohttpTransport) -> None:
    async with ScriptedJudge(TRUE) as judge:
        judgement = await scorer(StaticEndpoints([judge.url]), transport).judge(Sample("\ud800", "\udfff"))
    assert judgement.outcome is Outcome.OK


async def test_a_judge_that_cannot_work_makes_no_scorer(transport: AiohttpTransport) -> None:
    scoring = Scoring.model_validate({"template": "{{ respnse }}", "parse": {"kind": "number"}})
    with pytest.raises(ConfigurationError, match="did you mean response"):
        Scorer(scoring, "judge", StaticEndpoints(["http://127.0.0.1:1"]), transport)


async def test_unknown_endpoints_end_as_transport_and_say_why(transport: AiohttpTransport) -> None:
    endpoints = ChangingEndpoints(problem="the last list is 900 s old")
    judgement = await scorer(endpoints, transport, timeout="100ms").judge(SAMPLE)
    assert (judgement.outcome, judgement.detail) == (Outcome.TRANSPORT, "the last list is 900 s old")


async def test_an_empty_purse_ends_a_judgement_with_its_last_failure(transport: AiohttpTransport) -> None:
    budget = RetryBudget(start=0.0, earned=0.0)
    async with ScriptedJudge(status(500)) as judge:
        judgement = await scorer(StaticEndpoints([judge.url]), transport, budget=budget).judge(SAMPLE)
    assert (judgement.outcome, len(judge.requests)) == (Outcome.TRANSPORT, 1)


async def test_many_judgements_share_the_endpoints_evenly(transport: AiohttpTransport) -> None:
    async with (
        ScriptedJudge(says(r"\boxed{True}", after=0.05)) as a,
        ScriptedJudge(says(r"\boxed{False}", after=0.05)) as b,
    ):
        one = scorer(StaticEndpoints([a.url, b.url]), transport)
        scores = await asyncio.gather(*(one.score(Sample(f"question {i}", "")) for i in range(40)))
    assert {s.value for _, s in scores} == {0.0, 1.0}
    assert abs(len(a.requests) - len(b.requests)) <= 2


async def test_a_cancelled_judgement_leaves_nothing_in_flight(transport: AiohttpTransport) -> None:
    async with ScriptedJudge(hangs()) as judge:
        balancer = LeastInFlight()
        one = Scorer(Scoring(), "judge", StaticEndpoints([judge.url]), transport, balancer)
        task = asyncio.create_task(one.judge(SAMPLE))
        await asyncio.wait_for(judge.asked.wait(), 5)
        assert balancer.in_flight(Endpoint(judge.url)) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert balancer.in_flight(Endpoint(judge.url)) == 0
