"""A coordinator without Ray: groups, logs, and the sentence with which a run is stopped."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from genrm_api.judging import OnFailure
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from genrm_scoring.errors import ConfigurationError, FailureRaised, RunStopped
from genrm_scoring.types import Outcome, Sample, Score, ScoreSource
from genrm_verl.target import Target
from genrm_verl.translate import RunSection

from dev.grpo import read_lines
from tests.unit.scoring.scripted_judge import Request, ScriptedJudge, says, status
from tests.unit.verl.local_run import LocalRun

MADE: list[LocalRun] = []


@pytest.fixture(autouse=True)
async def made() -> AsyncIterator[list[LocalRun]]:
    """All that a test makes are closed in its end."""
    MADE.clear()
    yield MADE
    for coordinator in MADE:
        await coordinator.close()


def started(section: RunSection) -> LocalRun:
    MADE.append(LocalRun(asdict(section)))
    return MADE[-1]


def static(url: str, log: Path | None = None, **scoring: Any) -> LocalRun:
    section = RunSection(
        run="run-1",
        discovery="static",
        served_name="judge",
        engine="vllm",
        scoring={"timeout": "5s", **scoring},
        endpoints=(url,),
        judgement_log=None if log is None else str(log),
        coordinators=1,
        settles=not scoring,
    )
    return started(section)


def of_fleet(
    spec: dict[str, Any], models: Sequence[RewardModel] = (), own: OnFailure | None = None, **section: Any
) -> LocalRun:
    fleet = RewardFleet.model_validate({"metadata": {"name": "team", "namespace": "rl"}, "spec": spec})
    text = Target(fleet, tuple(models), run_policy=own).text()
    return started(RunSection(run="run-1", discovery="k8s", target=text, coordinators=1, **section))


def external(name: str, url: str, **scoring: Any) -> RewardModel:
    spec = {"type": "External", "external": {"url": f"{url}/v1"}, "scoring": {"timeout": "5s", **scoring}}
    return RewardModel.model_validate({"metadata": {"name": name, "namespace": "rl", "uid": name}, "spec": spec})


def group(*responses: str, step: int = 1, reference: str | None = None) -> list[Sample]:
    return [Sample("p", r, uid="u", session=i, step=step, reference=reference) for i, r in enumerate(responses)]


async def scored(coordinator: LocalRun, samples: list[Sample], key: str = "u") -> list[float | None]:
    found = await asyncio.gather(*(coordinator.score(key, len(samples), sample) for sample in samples))
    return [score.value for score in found]


def longer(request: Request) -> str:
    text = request["messages"][0]["content"]
    return f"<result>{'A' if text.index('a long answer') < text.index('short') else 'B'}</result>"


async def test_a_tournament_is_held_and_written_down(tmp_path: Path) -> None:
    async with ScriptedJudge(says(longer)) as judge:
        coordinator = static(judge.url, tmp_path, mode="pairwise")
        assert await scored(coordinator, group("short", "a long answer")) == [0.0, 1.0]
    (question,), lines = read_lines(tmp_path, "judgements"), read_lines(tmp_path, "scores")
    assert [(line["session"], line["score"]) for line in sorted(lines, key=lambda x: x["session"])] == [
        (0, 0.0),
        (1, 1.0),
    ]
    assert question["asked"] == "judge" and set(question["responses"]) == {line["response"] for line in lines}
    assert question["outcome"] == "ok" and question["run"] == lines[0]["run"] == "run-1"


async def test_a_validation_of_one_response_a_prompt_has_the_win_rate_against_the_reference() -> None:
    async with ScriptedJudge(says(longer)) as judge:
        coordinator = static(judge.url, mode="pairwise", alone={"vs": "reference"})
        assert await scored(coordinator, group("a long answer", reference="short"), key="v1") == [1.0]
        assert await scored(coordinator, group("short", reference="a long answer"), key="v2") == [0.0]
        assert len(judge.requests) == 4
        assert await scored(coordinator, group("short", "a long answer", reference="short")) == [0.0, 1.0]
    assert len(judge.requests) == 5, "in a group of several the reference does not play"


async def test_a_failure_under_policy_raise_stops_the_run_and_says_why() -> None:
    async with ScriptedJudge(says("I cannot tell.")) as judge:
        coordinator = static(judge.url, onFailure={"policy": "raise"})
        told = asyncio.create_task(coordinator.stopped())
        with pytest.raises(FailureRaised):
            await scored(coordinator, group("a", "b"))
        assert "parse_failed under policy raise" in await asyncio.wait_for(told, 5)


MINUS = {"onFailure": {"policy": "value", "value": -1}}
MADE_OF: dict[str, Callable[[str, Path], LocalRun]] = {
    "one model": lambda url, log: static(url, log, normalise="minmax", **MINUS),
    "pairs": lambda url, log: static(url, log, mode="pairwise", **MINUS),
    "a ranking": lambda url, log: static(url, log, mode="listwise", **MINUS),
    "a fleet": lambda url, log: of_fleet(
        {"terms": [{"name": "good", "rewardModel": {"name": "judge"}}], **MINUS},
        [external("judge", url)],
        judgement_log=str(log),
    ),
}


@pytest.mark.parametrize("made_of", MADE_OF)
async def test_what_engines_turn_down_is_a_failure_for_the_policy_and_the_breaker_whatever_a_score_is_made_of(
    tmp_path: Path, made_of: str
) -> None:
    async with ScriptedJudge(status(400)) as judge:
        run = MADE_OF[made_of](judge.url, tmp_path)
        assert await scored(run, group("a", "b")) == [-1.0, -1.0]
        end = await run.tally.step_ended()
        assert end.stop is None, "two are fewer than the breaker counts from"
        for number in range(15):
            await scored(run, group("a", "b", step=2), key=f"u{number}")
        with pytest.raises(
            RunStopped, match=r"32 of the first 32 scores .*(\n  prompt u, response \d: refused: .*){3}"
        ):
            await scored(run, group("a", "b", step=2))
    assert [line["outcomes"] for line in read_lines(tmp_path, "steps")] == [{"refused": 2}]


async def test_a_runs_own_policy_takes_the_place_of_those_of_a_fleet_and_of_its_terms(tmp_path: Path) -> None:
    terms = [{"name": "right", "rule": {"kind": "exact"}, "onFailure": {"policy": "value", "value": 0.5}}]
    spec = {"terms": terms, "onFailure": {"policy": "group_drop"}}
    quiet: dict[str, Any] = {"breaker": {"maxFailedFraction": 1}, "judgement_log": str(tmp_path)}
    assert await scored(of_fleet(spec, **quiet), group("4", "5")) == [0.5, 0.5], "there is no ground truth"
    policy = {"policy": "value", "value": -1.0}
    run = of_fleet(spec, own=OnFailure.model_validate(policy), on_failure=policy, **quiet)
    assert await scored(run, group("4", "5")) == [-1.0, -1.0]
    await run.step_ended()
    (line,) = read_lines(tmp_path, "steps")
    assert line["on_failure"] == policy and line["outcomes"] == {"refused": 2}
    stops = of_fleet(spec, own=OnFailure.model_validate({"policy": "raise"}), **quiet)
    with pytest.raises(FailureRaised, match="refused under policy raise: right"):
        await scored(stops, group("4", "5"))
    assert "under policy raise" in await asyncio.wait_for(stops.stopped(), 5)


async def test_a_fleet_that_mostly_fails_stops_the_run_in_the_step_in_which_it_does() -> None:
    right = {"name": "right", "rule": {"kind": "exact"}}
    breaker = {"maxFailedFraction": 0.5, "minimumCount": 4}
    coordinator = of_fleet({"terms": [right]}, breaker=breaker)
    assert await scored(coordinator, group("4", "5", reference="4")) == [1.0, 0.0]
    assert await scored(coordinator, group("4", "5")) == [None, None], "there is no ground truth"
    await coordinator.step_ended()
    assert await scored(coordinator, group("4", "5", "6", step=2)) == [None] * 3, "a step is judged by itself"
    with pytest.raises(RunStopped, match="prompt u, response"):
        await scored(coordinator, group("4", "5", step=2))
    assert "maxFailedFraction 0.5" in await asyncio.wait_for(coordinator.stopped(), 5)


GOOD = Score(1.0, Outcome.OK, ScoreSource.JUDGE)
LOST = Score(None, Outcome.TIMEOUT, ScoreSource.DROPPED)


@pytest.mark.parametrize(
    ("made", "kept"),
    [
        ([GOOD, GOOD, GOOD, LOST], 3),
        ([GOOD, GOOD, LOST, LOST], 2),
        ([GOOD, LOST, LOST, LOST], 0),
        ([GOOD, GOOD, LOST], 2),
        ([GOOD, LOST], 0),
        ([LOST, LOST], 0),
    ],
)
async def test_a_group_that_lost_too_many_scores_loses_the_others(made: list[Score], kept: int) -> None:
    coordinator = static("http://127.0.0.1:9")
    found = await asyncio.gather(*(coordinator.settled("u", len(made), score) for score in made))
    assert sum(score.value is not None for score in found) == kept
    assert all(after.source is ScoreSource.DROPPED for before, after in zip(made, found, strict=True) if before is LOST)


async def test_a_rollout_that_failed_is_a_lost_score_that_nobody_waits_for() -> None:
    coordinator = static("http://127.0.0.1:9")
    waiting = [asyncio.create_task(coordinator.settled("u", 4, GOOD)) for _ in range(2)]
    await coordinator.lost("u", 4)
    await coordinator.lost("u", 4)
    assert [score.value for score in await asyncio.wait_for(asyncio.gather(*waiting), 5)] == [1.0, 1.0]
    alone = asyncio.create_task(coordinator.settled("w", 2, GOOD))
    await coordinator.lost("w", 2)
    assert (await asyncio.wait_for(alone, 5)).source is ScoreSource.GROUP_DROPPED


async def test_the_users_own_functions_score_and_a_file_that_is_away_stops_the_run(tmp_path: Path) -> None:
    rules = tmp_path / "rules.py"
    rules.write_text("def size(response, ground_truth):\n    return float(len(response))\n")
    spec = {"terms": [{"name": "size", "rule": {"kind": "python", "function": "size"}}]}
    assert await scored(of_fleet(spec, rules=(str(rules),)), group("a", "abc")) == [1.0, 3.0]
    away = of_fleet(spec, rules=(str(tmp_path / "away.py"),))
    with pytest.raises(ConfigurationError, match=r"reward_model.rules: .*away.py cannot be read"):
        await scored(away, group("a"))
    assert "away.py" in await asyncio.wait_for(away.stopped(), 5)


async def test_the_users_own_functions_ask_and_read_at_endpoints_that_the_run_names(tmp_path: Path) -> None:
    (rules := tmp_path / "mine.py").write_text(
        "def ask(text_prompts, text_responses):\n    return [text_prompts[0] + ': ' + text_responses[0]]\n"
        "def read(results, response):\n    return [len(text) for text in results]\n"
    )
    functions = {"preprocess": {"function": "ask"}, "postprocess": {"function": "read"}}
    async with ScriptedJudge(says("four")) as judge:
        section = RunSection(
            "run-1", "static", served_name="judge", engine="vllm", endpoints=(judge.url,), rules=(str(rules),),
            scoring={"timeout": "60s", "mode": "pointwise", **functions}, coordinators=1,
        )  # fmt: skip
        assert await scored(started(section), group("a")) == [4.0]
    assert judge.requests[0]["messages"] == [{"role": "user", "content": "p: a"}]


async def test_siblings_do_not_wait_for_a_response_that_will_never_come() -> None:
    async with ScriptedJudge(says(longer)) as judge:
        coordinator = static(judge.url, mode="pairwise")
        waiting = [asyncio.create_task(coordinator.score("u", 3, s)) for s in group("short", "a long answer")]
        await coordinator.lost("u", 3)
        async with asyncio.timeout(5):
            assert [score.value for score in await asyncio.gather(*waiting)] == [0.0, 1.0]


async def test_a_steps_numbers_are_written_down_and_a_jump_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedJudge(says(longer)) as judge:
        coordinator = static(judge.url, tmp_path, mode="pairwise", anchor="reference", aggregate="dgr")
        for step in range(1, 8):
            short, long = ("a long answer", "short") if step < 7 else ("short", "short")
            members = group(short, long, step=step, reference="a long answer, which is good")
            judge.script = [says(longer_or_tie)]
            await scored(coordinator, members, key=f"u{step}")
            await coordinator.step_ended()
        await coordinator.step_ended()
    lines = read_lines(tmp_path, "steps")
    assert [line["step"] for line in lines] == list(range(1, 8)) and {line["samples"] for line in lines} == {2}
    assert lines[0]["outcomes"] == {"ok": 2} and lines[0]["zero_spread"] == 0.0 and lines[6]["zero_spread"] == 1.0
    assert set(lines[0]["anchor"]) == {"score", "beats_anchor", "policy_mean", "conflicts"}
    assert [record.message for record in caplog.records if "zero_spread is 1.00" in record.message]


def cut_off_or_first(request: Request) -> str:
    """Of the responses named in it one is never read to its end; of the others the first is better."""
    text = request["messages"][0]["content"]
    return "It runs on and on" if "never ending" in text[text.find("<response_a>") :] else "<result>A</result>"


async def test_what_failed_inside_a_tournament_is_seen_although_all_its_scores_are_there(tmp_path: Path) -> None:
    async with ScriptedJudge(says(cut_off_or_first)) as judge:
        coordinator = static(judge.url, tmp_path, mode="pairwise", order="both", aggregate="bt")
        assert None not in await scored(coordinator, group("one", "two", "three"), key="u")
        found = await scored(coordinator, group("four", "five", "never ending"), key="w")
        assert found[:2] == [0.0, 0.0] and found[2] is None, "nobody said anything of it"
        await coordinator.step_ended()
    (line,) = read_lines(tmp_path, "steps")
    assert line["judgements"] == {"judge": {"ok": 8, "parse_failed": 4}}
    assert (line["questions"], line["questions_failed"]) == (12, {"parse_failed": 4})
    assert line["judgements_failed"] == line["judgements_parse_failed"] == pytest.approx(1 / 3, abs=1e-6)
    assert line["disagreement_rate"] == line["first_preferred"] == 1.0, "whoever is read first wins"
    assert line["first_bias"] > 0


async def test_each_term_of_a_fleet_is_counted_whatever_a_policy_wrote_for_it(tmp_path: Path) -> None:
    value = {"policy": "value", "value": 0.0}
    terms = [
        {"name": "exact", "rule": {"kind": "exact"}, "onFailure": value},
        {"name": "near", "rule": {"kind": "numeric"}, "onFailure": value},
        {"name": "short", "rule": {"kind": "length", "maximum": 9}},
    ]
    coordinator = of_fleet({"terms": terms}, breaker={"maxFailedFraction": 1}, judgement_log=str(tmp_path))
    await scored(coordinator, group("4", "5", reference="4"), key="u")
    await scored(coordinator, group("4", "5", reference="four"), key="w")
    await scored(coordinator, group("4", "5"), key="x")
    await coordinator.step_ended()
    (line,) = read_lines(tmp_path, "steps")
    assert line["outcomes"] == {"ok": 2, "refused": 4}
    assert line["terms"] == {
        "exact": {"ok": 4, "refused": 2},
        "near": {"ok": 2, "refused": 4},
        "short": {"ok": 6},
    }
    assert (line["term_failed/exact"], line["term_failed/near"]) == (pytest.approx(1 / 3, abs=1e-6), 0.666667)
    assert line["term_failed/short"] == 0.0


async def test_a_fleets_judgements_are_counted_and_written_down_by_the_term_that_asked(tmp_path: Path) -> None:
    value = {"policy": "value", "value": 0.0}
    async with ScriptedJudge(says(cut_off_or_first)) as judge:
        models = [external("one", judge.url, mode="pairwise", order="both"), external("other", judge.url)]
        terms = [
            {"name": "compared", "rewardModel": {"name": "one"}},
            {"name": "looked_at", "rewardModel": {"name": "other"}, "onFailure": value},
            {"name": "away", "api": {"url": "http://127.0.0.1:9/get_reward2", "timeout": "1s"}, "onFailure": value},
        ]
        run = of_fleet({"terms": terms}, models, breaker={"maxFailedFraction": 1}, judgement_log=str(tmp_path))
        await scored(run, group("a", "b"))
        await run.step_ended()
    (line,) = read_lines(tmp_path, "steps")
    assert line["judgements"]["compared"] == {"ok": 2} and line["judgements"]["looked_at"] == {"parse_failed": 2}
    assert sum(line["judgements"]["away"].values()) == 2 and "ok" not in line["judgements"]["away"]
    assert line["judgements_failed"] == pytest.approx(2 / 3, abs=1e-6)
    assert (line["judgements_failed/compared"], line["judgements_failed/away"]) == (0.0, 1.0)
    asked = Counter(question["asked"] for question in read_lines(tmp_path, "judgements"))
    assert asked == {"compared": 2, "looked_at": 2, "away": 2}


def longer_or_tie(request: Request) -> str:
    text = request["messages"][0]["content"]
    first, second = (
        text[text.rindex(f"<response_{mark}>") : text.rindex(f"</response_{mark}>")] for mark in ("a", "b")
    )
    return f"<result>{'A' if len(first) > len(second) else 'B'}</result>"
