"""OpenAI's routes, and vLLM's for classifiers, passed on to the pods of a RewardModel: as they are, but for its name.

So a client that only knows a base URL gets what ours get: a pod that serves, another one if that fails, and a wait for
the wake instead of an error. Answers come whole: one that was asked for as a stream arrives as one piece.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from genrm_api.rewardmodel import RewardModel
from genrm_scoring.balancing import LeastInFlight
from genrm_scoring.replies import refusal
from genrm_scoring.retries import RetryBudget
from genrm_scoring.scorer import Scorer
from genrm_scoring.speech import InOneStep
from genrm_scoring.targets import Reached
from genrm_scoring.transport import Reply
from genrm_scoring.types import Answer, Judgement, Question, Verdict

AFFINITY_BYTES: Final = 512
"""Of a request, by which those that begin alike are told."""


@dataclass(slots=True)
class _AsItIs(InOneStep):
    """One request, in its client's own words; the last reply is kept, whatever it says."""

    path: str
    request: bytes
    reply: Reply | None = None

    def body(self, question: Question, vote: int) -> bytes:
        return self.request

    def answer(self, reply: Reply) -> Answer:
        self.reply = reply
        if reply.status != 200:
            raise refusal(reply)
        return Answer("")

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        return Verdict("", 0.0)


class Relay:
    """To one RewardModel; belongs to one event loop."""

    def __init__(self, model: RewardModel, way: Reached) -> None:
        self._model, self._way = model, way
        self._balancer, self._budget = LeastInFlight(), RetryBudget()
        self._scoring = model.spec.scoring.model_copy(update={"votes": None})
        self._base = "/v1" if model.spec.external is not None else ""

    async def ask(self, path: str, request: bytes) -> tuple[Reply | None, Judgement]:
        """The reply of whoever answered last, and how it went. Without a reply nobody was reached in time."""
        said = _AsItIs(path.removeprefix(self._base), self._named(request))
        way, name = self._way, self._model.served_name
        scorer = Scorer(self._scoring, name, way.endpoints, way.transport, self._balancer, self._budget, speech=said)
        judgement = await scorer.ask(Question(request[:AFFINITY_BYTES].decode(errors="replace"), ("",)))
        return said.reply, judgement

    def _named(self, request: bytes) -> bytes:
        """Clients know the RewardModel's name, which `/v1/models` tells them; its engine may know another."""
        if (name := self._model.served_name) == self._model.name:
            return request
        try:
            asked = json.loads(request)
        except (ValueError, RecursionError):
            return request
        if not isinstance(asked, dict) or asked.get("model") != self._model.name:
            return request
        return json.dumps({**asked, "model": name}).encode()
