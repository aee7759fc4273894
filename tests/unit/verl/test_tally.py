"""What all processes of a run report to one place: complete, in few messages, and never in the way of a score."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from genrm_scoring.errors import RunStopped
from genrm_scoring.types import Judgement, Outcome, Sample, Score, ScoreSource, TermScore, Verdict
from genrm_verl import tally as tallies
from genrm_verl.tally import Batch, Reporter, Tally
from genrm_verl.translate import RunSection

from dev.grpo import read_lines

GOOD = Score(1.0, Outcome.OK, ScoreSource.JUDGE)
LOST = Score(None, Outcome.TIMEOUT, ScoreSource.DROPPED, detail="120 s are over " * 99)
YES = Judgement(Outcome.OK, 0.1, 1, Verdict("yes", 1.0))
CUT = Judgement(Outcome.TRUNCATED, 0.1, 1)


def tally(log: Path | None = None, **breaker: Any) -> Tally:
    section = RunSection("run-1", "static", breaker=breaker, judgement_log=None if log is None else str(log))
    return Tally(asdict(section))


def sample(session: int = 0, step: int | None = 1) -> Sample:
    return Sample("p", "r", uid="u", session=session, step=step)


async def test_what_workers_see_apart_is_one_step_of_the_run(tmp_path: Path) -> None:
    run = tally(tmp_path)
    workers = [Reporter(run.take) for _ in range(8)]
    for number, worker in enumerate(workers):
        worker.judged("judge", CUT if number else YES)
        await worker.scored(sample(number), GOOD)
    assert (await run.step_ended()).said == ("step 1: 8 scores (ok 8), 8 judgements (truncated 7, ok 1)"), (
        "what a policy or votes cover up is said, too"
    )
    assert (await run.step_ended()).said is None, "there was nothing in it"
    (line,) = read_lines(tmp_path, "steps")
    assert (line["run"], line["step"], line["samples"]) == ("run-1", 1, 8)
    assert line["judgements"] == {"judge": {"ok": 1, "truncated": 7}}


async def test_the_old_trainer_knows_no_steps_and_ends_them_all_the_same(tmp_path: Path) -> None:
    run = tally(tmp_path, maxFailedFraction=0.5, minimumCount=2)
    worker = Reporter(run.take)
    for _ in range(3):
        await worker.scored(sample(step=None), LOST)
        assert (await run.step_ended()).said == "this step: 1 scores (timeout 1)"
    assert [line["step"] for line in read_lines(tmp_path, "steps")] == [None] * 3
    await worker.scored(sample(step=None), GOOD)
    await worker.scored(sample(step=None), LOST)
    with pytest.raises(RunStopped, match="prompt u"):
        await worker.scored(sample(step=None), LOST)


async def test_the_breaker_counts_what_all_of_them_see() -> None:
    run = tally(maxFailedFraction=0.5, minimumCount=4)
    first, second = Reporter(run.take), Reporter(run.take)
    told = asyncio.create_task(run.stopped())
    await first.scored(sample(0), LOST)
    await second.scored(sample(1), LOST)
    await first.scored(sample(2), GOOD)
    with pytest.raises(RunStopped, match=r"3 of the first 4 scores .*breaker.maxFailedFraction 0.5"):
        await second.scored(sample(3), LOST)
    assert "response 0: timeout: 120 s are over" in await asyncio.wait_for(told, 5)
    await first.scored(sample(4), GOOD)  # what has not failed may be trained on until the run has stopped
    with pytest.raises(RunStopped):
        await first.scored(sample(5), LOST)
    assert "3 of the first 4" in str((await run.step_ended()).stop)


async def test_what_one_process_cannot_judge_stops_the_run_and_is_no_failed_score() -> None:
    run = tally(maxFailedFraction=1)
    one, other = Reporter(run.take), Reporter(run.take)
    told = asyncio.create_task(run.stopped())
    await other.scored(sample(0), GOOD)
    await asyncio.gather(one.refused("data.images: found images"), one.refused("data.videos: found videos"))
    assert await asyncio.wait_for(told, 5) == "data.images: found images", "the first counts"
    with pytest.raises(RunStopped, match="found images"):
        await other.scored(sample(1), LOST)
    end = await run.step_ended()
    assert end.said == "step 1: 2 scores (ok 1, timeout 1)" and end.stop == "data.images: found images"


async def test_who_is_refused_while_the_tally_is_away_does_not_wait_for_it() -> None:
    async def gone(batch: Batch) -> str | None:
        raise ConnectionError("the actor is dead")

    async with asyncio.timeout(5):
        for _ in range(5):
            await Reporter(gone).refused("data.images: found images")


async def test_a_run_that_says_nothing_has_the_breaker_of_a_fleet() -> None:
    run = Reporter(tally().take)
    for number in range(31):
        await run.scored(sample(number), LOST)
    with pytest.raises(RunStopped, match=r"32 of the first 32 .*breaker.maxFailedFraction 0.2"):
        await run.scored(sample(31), LOST)


class Held:
    """Takes batches, each when it is let."""

    def __init__(self, run: Tally) -> None:
        self.run, self.let, self.sizes = run, asyncio.Semaphore(0), list[int]()
        self.asked = asyncio.Event()
        self.arrived = asyncio.Semaphore(0)
        """Let for each score."""

    async def __call__(self, batch: Batch) -> str | None:
        self.sizes.append(len(batch.scores))
        self.asked.set()
        await self.let.acquire()
        why = await self.run.take(batch)
        for _ in batch.scores:
            self.arrived.release()
        return why


async def test_reports_travel_together_and_no_score_leaves_before_its_own_has_arrived() -> None:
    run = tally()
    held = Held(run)
    worker = Reporter(held)
    leaving = [asyncio.create_task(worker.scored(sample(0), GOOD))]
    await held.asked.wait()
    leaving += [asyncio.create_task(worker.scored(sample(n), GOOD)) for n in range(1, 100)]
    held.let.release()
    await asyncio.wait_for(leaving[0], 5)
    assert not any(task.done() for task in leaving[1:])
    held.let.release()
    await asyncio.wait_for(asyncio.gather(*leaving), 5)
    assert held.sizes == [1, 99]
    assert (await run.step_ended()).said == "step 1: 100 scores (ok 100)"


async def test_a_tally_that_hangs_keeps_nobody_and_misses_nothing_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tallies, "ARRIVAL_SECONDS", 0.05)
    run = tally()
    held = Held(run)
    worker = Reporter(held)
    async with asyncio.timeout(5):
        await asyncio.gather(*(worker.scored(sample(n), LOST) for n in range(20)))
        monkeypatch.setattr(tallies, "ARRIVAL_SECONDS", 3600)
        await worker.scored(sample(20), LOST)  # nobody waits for what is known to be away
        for _ in range(3):
            held.let.release()
        await worker.scored(sample(21), GOOD)
        for _ in range(22):
            await held.arrived.acquire()
    assert (await run.step_ended()).said == "step 1: 22 scores (timeout 21, ok 1)"
    assert [message for message in caplog.messages if "goes on" in message or "go on" in message] == [
        "scores go on uncounted, the run's tally does not take them: no answer within 0.05 s"
    ]


async def test_a_tally_that_is_gone_costs_no_score(caplog: pytest.LogCaptureFixture) -> None:
    async def gone(batch: Batch) -> str | None:
        raise ConnectionError("the actor is dead")

    worker = Reporter(gone)
    async with asyncio.timeout(5):
        for number in range(5):
            await worker.scored(sample(number), LOST)
    assert len(caplog.messages) == 1 and "ConnectionError: the actor is dead" in caplog.messages[0]


async def test_what_travels_is_small_and_may_leave_its_process() -> None:
    sent: list[bytes] = []

    async def send(batch: Batch) -> str | None:
        sent.append(pickle.dumps(batch))
        return None

    term = TermScore("judged", None, Outcome.TIMEOUT, ScoreSource.DROPPED, detail="y" * 10**5)
    worker = Reporter(send)
    worker.judged("judge", CUT)
    long = Sample("q" * 10**5, "r" * 10**5, uid="u", session=1, step=1)
    await worker.scored(long, Score(None, Outcome.TIMEOUT, ScoreSource.DROPPED, (term,), "x" * 10**5))
    assert len(sent[0]) < 3000
    (one,) = pickle.loads(sent[0]).scores
    assert one.scored.length == 10**5 and one.scored.score.detail.startswith("xxx")


async def test_votes_are_counted_one_by_one(tmp_path: Path) -> None:
    run = tally(tmp_path)
    worker = Reporter(run.take)
    worker.judged("judge", Judgement(Outcome.OK, 0.1, 3, Verdict("yes", 1.0), votes=(YES, CUT, CUT)))
    await worker.scored(sample(), GOOD)
    await run.step_ended()
    (line,) = read_lines(tmp_path, "steps")
    assert line["judgements"] == {"judge": {"ok": 1, "truncated": 2}} and line["failed"] == 0.0
    assert line["judgements_truncated"] == pytest.approx(2 / 3, abs=1e-6)


async def test_a_jump_is_warned_of_once_in_the_run(caplog: pytest.LogCaptureFixture) -> None:
    run = tally(maxFailedFraction=1)
    workers = [Reporter(run.take) for _ in range(4)]
    for step in range(1, 10):
        for number, worker in enumerate(workers):
            await worker.scored(sample(number, step), LOST if step >= 7 else GOOD)
        await run.step_ended()
    assert [m for m in caplog.messages if m.startswith("failed is")] == [
        "failed is 1.00 in this step of 4 samples, and was 0.00 ± 0.00 in the 6 before"
    ]
