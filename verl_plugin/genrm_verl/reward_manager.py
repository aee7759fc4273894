"""The reward workers' part: verl hands in one rollout at a time, genrm_scoring brings its score.

verl loads the class by name (`reward.reward_manager.source=importlib`), one instance per reward worker process. Where a
response is judged by itself, that happens here; where its siblings count, at the coordinator of its group. A sample
without a score leaves as an exception: verl 0.9's trainer then trains on the rest of the group. Where too few of one
keep a score the rest is dropped too: a lone survivor would get its raw score as advantage. Whoever judged tells the
run's tally how it ended. The tally is told, too, of what no policy is for: a row that cannot be judged, a judge that
cannot be asked as its spec says. An exception alone would cost these samples, and the run would train on the others.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from genrm_scoring.errors import ConfigurationError, SampleDropped
from genrm_scoring.journal import JudgementLog, record
from genrm_scoring.scorer import Scorer
from genrm_scoring.types import Judgement, Sample, Score, ScoreSource
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from genrm_verl.agent_loops import VALIDATE
from genrm_verl.ahead import RayHerald
from genrm_verl.coordinators import RayGroups
from genrm_verl.opening import opened_scorer
from genrm_verl.samples import group_of, sample_of
from genrm_verl.tally import reporter
from genrm_verl.translate import RunSection, group_size


class GenrmRewardManager(RewardManagerBase):  # type: ignore[misc]
    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **_: Any) -> None:
        super().__init__(config, tokenizer, compute_score)
        section = RunSection.of(config)
        if section is None:
            raise ConfigurationError("reward_model.discovery", "the configuration has no section genrm")
        self._section = section
        self._run_config = config
        self._opening = asyncio.Lock()
        self._open = AsyncExitStack()  # closed by the end of the worker process
        self._scorer: Scorer | None = None
        self._groups = RayGroups(section) if section.coordinators else None
        self._herald = RayHerald(section.run) if section.prewake else None
        self._reports = reporter(section.run)
        self._judges = section.settles or self._groups is None
        alone = section.judgement_log is not None and self._judges
        self._log = JudgementLog(Path(str(section.judgement_log))) if alone else None

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Score the last sequence in `data`.

        Raises:
            SampleDropped: the failure policy leaves the sample without a score.
            RunStopped, ConfigurationError: the run must end.
        """
        item = data[-1]
        ids = _response_ids(item)
        response = await asyncio.get_running_loop().run_in_executor(
            None, lambda: str(self.tokenizer.decode(ids, skip_special_tokens=True))
        )
        fields = item.non_tensor_batch
        async with self._or_the_run_ends():
            sample = sample_of(fields, response)
        if self._herald is not None:
            await self._herald.asking(sample.step)
        validate = fields.get(VALIDATE)
        size = group_size(self._run_config, validate)
        if self._groups is not None and not self._judges:
            score = await self._groups.score(group_of(fields), size, sample, learn=not validate)
            info = score_info(score)
        else:
            async with self._or_the_run_ends():
                judgement, score = await self._judged(sample)
            info = {**score_info(score), **judgement_info(judgement)}
            # Validation has no advantages that a lone survivor could spoil; nor does a group of one.
            if self._groups is not None and validate is not None and not validate and size > 1:
                score = await self._groups.settled(group_of(fields), size, score)
            await self._reports.scored(sample, score)
        if score.value is None:
            raise SampleDropped(score)
        return {"reward_score": score.value, "reward_extra_info": info}

    @asynccontextmanager
    async def _or_the_run_ends(self) -> AsyncIterator[None]:
        try:
            yield
        except ConfigurationError as e:
            await self._reports.refused(str(e))
            raise

    async def _judged(self, sample: Sample) -> tuple[Judgement, Score]:
        async with self._opening:
            if self._scorer is None:
                self._scorer = await self._open.enter_async_context(opened_scorer(self._section))
        judgement, score = await self._scorer.score(sample)
        self._reports.judged(self._section.judge, judgement)
        if self._log is not None:
            self._log.write(record(self._section.run, sample, judgement, score, time.time()))
        return judgement, score


def score_info(score: Score) -> dict[str, float]:
    """Numbers verl logs beside the score. verl needs the same keys for every sample: a term that has no number for one
    of them is not a number there."""
    return {
        "genrm/ok": float(score.source.is_own),
        "genrm/policy_value": float(score.source is ScoreSource.POLICY),
        **{f"genrm/{term.name}": math.nan if term.value is None else term.value for term in score.terms},
    }


def judgement_info(judgement: Judgement) -> dict[str, float]:
    return {"genrm/attempts": float(judgement.attempts), "genrm/seconds": judgement.seconds}


def _response_ids(item: Any) -> Any:
    """The response without its padding: the new trainer says how long it is, the old one pads both sides."""
    ids = item.batch["responses"]
    length = item.non_tensor_batch.get("response_len")
    if length is None:
        length = item.batch["attention_mask"][-ids.shape[-1] :].sum()
    return ids[: int(length)]
