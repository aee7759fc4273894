"""Groups whose members come one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from genrm_scoring.gathering import LONGEST, Gathering
from genrm_scoring.types import Outcome, Sample, Score, ScoreSource

from tests.unit.scoring import virtual_time

SOON = 0.05


class Judge:
    """Scores a group by how many there are, and where each is."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []

    async def __call__(self, samples: Sequence[Sample]) -> Sequence[Score]:
        self.groups.append([sample.response for sample in samples])
        return [Score(float(len(samples)), Outcome.OK, ScoreSource.JUDGE) for _ in samples]


async def come(gathering: Gathering, judge: Judge, size: int, *responses: str, key: str = "p") -> list[float | None]:
    asked = (gathering.score(key, size, Sample("p", response), judge) for response in responses)
    return [score.value for score in await asyncio.gather(*asked)]


async def test_members_wait_for_each_other_and_are_scored_once_together() -> None:
    gathering, judge = Gathering(60), Judge()
    assert await come(gathering, judge, 3, "a", "b", "c") == [3.0, 3.0, 3.0]
    assert judge.groups == [["a", "b", "c"]] and gathering.waiting == 0
    await gathering.close()


async def test_the_next_group_of_the_same_name_is_another() -> None:
    gathering, judge = Gathering(60), Judge()
    await come(gathering, judge, 2, "a", "b")
    await come(gathering, judge, 2, "c", "d")
    assert judge.groups == [["a", "b"], ["c", "d"]]
    await gathering.close()


async def test_groups_of_different_names_do_not_meet() -> None:
    gathering, judge = Gathering(60), Judge()
    found = await asyncio.gather(come(gathering, judge, 2, "a", "b"), come(gathering, judge, 2, "c", "d", key="q"))
    assert found == [[2.0, 2.0], [2.0, 2.0]] and sorted(judge.groups) == [["a", "b"], ["c", "d"]]
    await gathering.close()


async def test_a_member_that_never_comes_holds_nobody_up_and_enough_are_scored() -> None:
    gathering, judge = Gathering(SOON), Judge()
    assert await come(gathering, judge, 4, "a", "b", "c") == [3.0, 3.0, 3.0]
    await gathering.close()


async def test_too_few_are_not_scored_as_if_they_were_a_group() -> None:
    gathering = Gathering(SOON)
    score = await gathering.score("p", 4, Sample("p", "a"), Judge())
    assert score.source is ScoreSource.GROUP_DROPPED and score.value is None
    assert "only 1 of 4 responses to this prompt came" in score.detail
    await gathering.close()


@pytest.mark.parametrize("every", [9.0, 3.0])
def test_members_who_come_just_in_time_do_not_keep_the_first_waiting_for_ever(every: float) -> None:
    async def first_of_many() -> tuple[Score, float]:
        gathering, judge, size = Gathering(10), Judge(), round(70 / every)

        async def come(place: int) -> Score:
            await asyncio.sleep(place * every)
            return await gathering.score("p", size, Sample("p", "a"), judge)

        members = [asyncio.create_task(come(place)) for place in range(size)]
        first = await members[0]
        at = asyncio.get_running_loop().time()
        assert all(score.value is not None for score in await asyncio.gather(*members)), "those who are late too"
        await gathering.close()
        return first, at

    first, at = virtual_time.run(first_of_many())
    assert at == pytest.approx(LONGEST * 10), "patience since the last one would never have ended"
    assert first.value == 1 + 40 // every


async def test_who_comes_late_is_scored_among_those_before() -> None:
    gathering, judge = Gathering(0.5), Judge()
    early = asyncio.create_task(come(gathering, judge, 3, "a", "b"))
    assert await early == [2.0, 2.0]
    assert await come(gathering, judge, 3, "late") == [3.0]
    assert judge.groups == [["a", "b"], ["a", "b", "late"]]
    await gathering.close()


async def test_what_fails_fails_for_all_who_wait() -> None:
    async def fails(_: Sequence[Sample]) -> Sequence[Score]:
        raise RuntimeError("no judge")

    gathering = Gathering(60)
    asked = [gathering.score("p", 2, Sample("p", r), fails) for r in ("a", "b")]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(error) for error in found] == ["no judge", "no judge"]
    await gathering.close()


async def test_a_member_whose_client_left_still_counts() -> None:
    gathering, judge = Gathering(60), Judge()
    left = asyncio.create_task(gathering.score("p", 2, Sample("p", "a"), judge))
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert await come(gathering, judge, 2, "b") == [2.0] and judge.groups == [["a", "b"]]
    await gathering.close()
