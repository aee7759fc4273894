"""The reward workers' part: verl hands in one rollout at a time, genrm_scoring brings its score.

verl loads the class by name (`reward.reward_manager.source=importlib`), one instance per reward worker process.
A judgement that failed under policy `drop` leaves as an exception: verl 0.9's trainer then trains on the rest of the
group. A group of one survivor gets its raw score as advantage: see docs/explanation/verl-plugin.md.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from genrm_api.rewardmodel import EngineName, Scoring
from genrm_scoring.discovery import KubernetesEndpoints
from genrm_scoring.endpoints import Endpoints, StaticEndpoints
from genrm_scoring.errors import ConfigurationError, JudgementFailed
from genrm_scoring.journal import JudgementLog, record
from genrm_scoring.scorer import Scorer
from genrm_scoring.transport import AiohttpTransport
from genrm_scoring.types import Judgement, Score, ScoreSource
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from genrm_verl.ahead import RayHerald
from genrm_verl.samples import sample_of
from genrm_verl.translate import RunSection


class GenrmRewardManager(RewardManagerBase):  # type: ignore[misc]
    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **_: Any) -> None:
        super().__init__(config, tokenizer, compute_score)
        section = RunSection.of(config)
        if section is None:
            raise ConfigurationError("reward_model.discovery", "the configuration has no section genrm")
        self._section = section
        self._log = JudgementLog(Path(section.judgement_log)) if section.judgement_log else None
        self._opening = asyncio.Lock()
        self._open = AsyncExitStack()  # closed by the end of the worker process
        self._scorer: Scorer | None = None
        self._herald = RayHerald(section.run) if section.prewake else None

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Score the last sequence in `data`.

        Raises:
            JudgementFailed: the failure policy drops the sample.
        """
        item = data[-1]
        ids = _response_ids(item)
        response = await asyncio.get_running_loop().run_in_executor(
            None, lambda: str(self.tokenizer.decode(ids, skip_special_tokens=True))
        )
        sample = sample_of(item.non_tensor_batch, response)
        if self._herald is not None:
            await self._herald.asking(sample.step)
        judgement, score = await (await self._ready()).score(sample)
        if self._log is not None:
            self._log.write(record(self._section.run, sample, judgement, score, time.time()))
        if score.value is None:
            raise JudgementFailed(judgement)
        return {"reward_score": score.value, "reward_extra_info": extra_info(judgement, score)}

    async def _ready(self) -> Scorer:
        async with self._opening:
            if self._scorer is None:
                section = self._section
                transport = AiohttpTransport()
                self._open.push_async_callback(transport.close)
                scoring = Scoring.model_validate(section.scoring)
                engine = EngineName(section.engine)
                self._scorer = Scorer(scoring, section.served_name, await self._endpoints(), transport, engine=engine)
            return self._scorer

    async def _endpoints(self) -> Endpoints:
        section = self._section
        if section.discovery == "static":
            return StaticEndpoints(section.endpoints)
        from genrm_scoring.kubernetes import connect

        assert section.name is not None and section.namespace is not None
        cluster = await self._open.enter_async_context(connect())
        return await self._open.enter_async_context(KubernetesEndpoints(cluster, section.name, section.namespace))


def extra_info(judgement: Judgement, score: Score) -> dict[str, float]:
    """Numbers verl logs beside the score. verl needs the same keys for every sample."""
    return {
        "genrm/ok": float(score.source is ScoreSource.JUDGE),
        "genrm/policy_value": float(score.source is ScoreSource.POLICY),
        "genrm/attempts": float(judgement.attempts),
        "genrm/seconds": judgement.seconds,
    }


def _response_ids(item: Any) -> Any:
    """The response without its padding: the new trainer says how long it is, the old one pads both sides."""
    ids = item.batch["responses"]
    length = item.non_tensor_batch.get("response_len")
    if length is None:
        length = item.batch["attention_mask"][-ids.shape[-1] :].sum()
    return ids[: int(length)]
