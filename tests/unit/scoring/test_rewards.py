"""Scores as a function, and as frameworks call it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from genrm_scoring.errors import ConfigurationError, FailureRaised, SampleDropped
from genrm_scoring.frameworks import slime_reward, trl_reward, verifiers_reward
from genrm_scoring.rewards import Opened, Rewards, rewards_from, rewards_of_file
from genrm_scoring.types import Outcome, Sample, Score, ScoreSource

RULES = """
apiVersion: genrm.dev/v1alpha1
kind: RewardFleet
metadata: {name: answers}
spec:
  terms:
    - {name: right, rule: {kind: exact}}
    - {name: scaled, rule: {kind: exact}, normalise: {kind: minmax}, combine: none}
---
apiVersion: genrm.dev/v1alpha1
kind: RewardFleet
metadata: {name: mine}
spec:
  terms:
    - {name: size, rule: {kind: python, function: size}}
"""
CHAT = [{"role": "user", "content": "2 + 2?"}]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


@pytest.fixture
def rewards(spec: Path) -> Iterator[Rewards]:
    made = rewards_of_file(spec, "answers")
    yield made
    made.close()


def answers(*responses: str, reference: str | None = "4") -> list[Sample]:
    return [Sample("2 + 2?", response, reference=reference) for response in responses]


def test_a_breaker_that_cannot_count_steps_is_said_to_be_none(
    tmp_path: Path, rewards: Rewards, caplog: pytest.LogCaptureFixture
) -> None:
    assert not caplog.messages, "nobody has written one"
    path = tmp_path / "stops.yaml"
    path.write_text(RULES.split("---")[0] + "  breaker: {maxFailedFraction: 0.5}\n")
    rewards_of_file(path).close()
    (said,) = caplog.messages
    assert said.startswith("RewardFleet answers spec.breaker: stops verl runs only")


def test_samples_are_scored_in_groups_and_come_back_in_their_order(rewards: Rewards) -> None:
    mixed = [Sample("a", "4", reference="4"), Sample("b", "5", reference="4"), Sample("a", "5", reference="4")]
    scores = rewards.score(mixed)
    assert [score.value for score in scores] == [1.0, 0.0, 0.0]
    assert [score.terms[1].value for score in scores] == [1.0, 0.0, -1.0], "b is alone in its group"
    as_one = rewards.score(mixed, groups=[0, 0, 0])
    assert [score.terms[1].value for score in as_one] == [1.0, -1.0, -1.0]
    with pytest.raises(ValueError, match="2 groups for 3 samples"):
        rewards.score(mixed, groups=[0, 0])


async def test_an_event_loop_is_not_held_up(rewards: Rewards) -> None:
    found = await asyncio.gather(*(rewards.ascore(answers("4", "5")) for _ in range(20)))
    assert all([score.value for score in scores] == [1.0, 0.0] for scores in found)


def test_what_cannot_be_opened_is_said_where_it_is_made(spec: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name: found None; write one of answers, mine"):
        rewards_of_file(spec)
    with pytest.raises(ConfigurationError, match="size is wanted, and no Python file was given"):
        rewards_of_file(spec, "mine")
    with pytest.raises(ConfigurationError, match=r"rules: .*away\.py cannot be read"):
        rewards_of_file(spec, "mine", rules=tmp_path / "away.py")
    with pytest.raises(ConfigurationError, match="GENRM_TARGET: missing"):
        rewards_from({})


def test_a_file_that_a_framework_loads_is_told_by_its_environment(spec: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("def size(response, ground_truth):\n    return float(len(response))\n")
    made = rewards_from({"GENRM_SPEC": str(spec), "GENRM_TARGET": "mine", "GENRM_RULES": str(own)})
    assert [score.value for score in made.score(answers("a", "abc"))] == [1.0, 3.0]
    made.close()


def test_who_calls_may_say_what_a_failure_means(spec: Path, tmp_path: Path) -> None:
    policy = {"policy": "value", "value": -1}
    for made in (
        rewards_of_file(spec, "answers", on_failure=policy),
        rewards_from(
            {"GENRM_SPEC": str(spec), "GENRM_TARGET": "answers", "GENRM_ON_FAILURE": "{policy: value, value: -1}"}
        ),
    ):
        (score,) = made.score(answers("4", reference=None))
        assert (score.value, score.outcome, score.source) == (-1, Outcome.REFUSED, ScoreSource.POLICY)
        made.close()
    raising = rewards_of_file(spec, "answers", on_failure={"policy": "raise"})
    with pytest.raises(FailureRaised):
        raising.score(answers("4", reference=None))
    raising.close()
    with pytest.raises(ConfigurationError, match=r"^on_failure\.value: missing under policy value; write"):
        rewards_of_file(spec, "answers", on_failure={"policy": "value"})
    for written in ("drop", "{policy"):
        with pytest.raises(ConfigurationError, match=r"^GENRM_ON_FAILURE: found '"):
            rewards_from({"GENRM_SPEC": str(spec), "GENRM_TARGET": "answers", "GENRM_ON_FAILURE": written})


@dataclass
class FakeLease:
    inside: int = 0
    most: int = 0
    ended: int = 0

    @asynccontextmanager
    async def scoring(self) -> Any:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            yield
        finally:
            self.inside -= 1
            self.ended += 1


@dataclass
class Fails:
    """A source whose responses `x` have no score, whose `!` stops the run, and whose `...` take their time."""

    groups: list[int] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    async def scores(self, samples: Sequence[Sample]) -> Sequence[Score]:
        self.groups.append(len(samples))
        if any(sample.response == "..." for sample in samples):
            try:
                await asyncio.sleep(60)
            finally:
                self.ended.set()
        if any(sample.response == "!" for sample in samples):
            raise FailureRaised("a score", Outcome.TIMEOUT, "late")
        failed = Score(None, Outcome.PARSE_FAILED, ScoreSource.DROPPED, detail="no verdict")
        return [failed if s.response == "x" else Score(1.0, Outcome.OK, ScoreSource.JUDGE) for s in samples]

    async def close(self) -> None:
        pass


def made(source: Fails, lease: FakeLease | None = None) -> Rewards:
    @asynccontextmanager
    async def opening() -> Any:
        yield Opened(source, lease)  # type: ignore[arg-type]

    return Rewards(opening)


def test_the_models_are_held_awake_while_a_call_is_on_its_way() -> None:
    lease, source = FakeLease(), Fails()
    rewards = made(source, lease)
    rewards.score(answers("a"))
    with pytest.raises(FailureRaised):
        rewards.score(answers("!"))
    rewards.close()
    assert (lease.most, lease.inside, lease.ended, source.groups) == (1, 0, 2, [1, 1])


def test_who_stops_the_run_ends_what_is_asked_about_others() -> None:
    rewards = made(source := Fails())
    with pytest.raises(FailureRaised):
        rewards.score(answers("...", "!"), ["slow", "stops"])
    assert source.ended.is_set(), "nobody goes on asking when the models may sleep"
    rewards.close()


def test_trl_is_told_of_a_missing_score_by_none(rewards: Rewards) -> None:
    reward = trl_reward(rewards, reference="answer", name="judge")
    assert reward.__name__ == "judge"
    completions = [[{"role": "assistant", "content": text}] for text in ("4", "5", "4")]
    found = reward([CHAT] * 3, completions, answer=["4", "4", None], completion_ids=[[1], [2], [3]], trainer_state=None)
    assert found == [1.0, 0.0, None]


@pytest.mark.parametrize("columns", [{"images": [["x"]]}, {"image": ["x"]}, {"step_labels": [[1, 0]]}])
def test_trl_is_refused_what_is_more_than_text(rewards: Rewards, columns: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"columns.{next(iter(columns))}: "):
        trl_reward(rewards)([CHAT], ["4"], **columns)
    shown = [{"role": "user", "content": [{"type": "image"}]}]
    with pytest.raises(ConfigurationError, match="prompts: a message has a part of type image"):
        trl_reward(rewards)([shown], ["4"])


async def test_slime_gets_a_number_or_those_of_a_group(rewards: Rewards) -> None:
    def sample(response: str) -> SimpleNamespace:
        return SimpleNamespace(prompt=CHAT, response=response, label="4", metadata={"level": 1})

    custom_rm = slime_reward(rewards)
    assert inspect.iscoroutinefunction(custom_rm)
    assert await custom_rm(None, sample("4")) == 1.0
    assert await custom_rm(None, [sample("4"), sample("5")], evaluation=True) == [1.0, 0.0]


async def test_verifiers_calls_it_with_a_group(rewards: Rewards) -> None:
    reward = verifiers_reward(rewards)
    completions = [[{"role": "assistant", "content": text}] for text in ("4", "5")]
    assert await reward(prompts=[CHAT] * 2, completions=completions, answers=["4", "4"], states=[{}, {}]) == [1.0, 0.0]
    assert {"prompts", "completions", "answers"} <= set(inspect.signature(reward).parameters)


async def test_who_has_no_word_for_no_score_gets_an_exception_that_has_one() -> None:
    rewards = made(Fails())
    sample = SimpleNamespace(prompt="p", response="x", label=None, metadata=None)
    with pytest.raises(SampleDropped, match="parse_failed: no verdict"):
        await slime_reward(rewards)(None, sample)
    with pytest.raises(SampleDropped):
        await verifiers_reward(rewards)(prompts=["p"], completions=["x"], answers=[""])
    assert trl_reward(rewards)(["p"], ["x"]) == [None]
    assert trl_reward(rewards)(["p"], ["y"]) == [1.0]
    rewards.close()
