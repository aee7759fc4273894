"""What all routes share: the targets and who gathers their groups, what a request names, and how no score is said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from fastapi import Request
from fastapi.responses import Response
from genrm_scoring.errors import ClusterError, ConfigurationError, RunStopped
from genrm_scoring.gathering import LONGEST
from genrm_scoring.groups import Report
from genrm_scoring.rankings import Listwise
from genrm_scoring.sources import Pairwise
from genrm_scoring.types import Sample, Score

from genrm_gateway.catalog import Catalog, Target, UnknownTarget
from genrm_gateway.formats import MOST_SAMPLES
from genrm_gateway.limits import RETRY_AFTER_SECONDS
from genrm_gateway.meetings import Meetings
from genrm_gateway.metrics import Metrics
from genrm_gateway.peers import Peers

PASSED_BACK: Final = ("content-type", "retry-after", "genrm-outcome", "genrm-source")
ANSWER_SECONDS: Final = 600.0
"""For another gateway to score a group that is complete; judgements have deadlines of their own."""

CLIENT_LEFT: Final = 499
"""A status for the metrics; nobody is there to read it."""


class Refused(Exception):
    """A request that gets no score; `content` says why."""

    def __init__(self, status: int, content: Mapping[str, Any]) -> None:
        super().__init__(status)
        self.status, self.content = status, content


class Desk:
    """What all routes share while the gateway runs."""

    def __init__(self, catalog: Catalog, patience: float, peers: Peers, metrics: Metrics) -> None:
        self.catalog, self.peers, self.metrics = catalog, peers, metrics
        self._patience = patience
        self.meetings = Meetings()

    async def target(self, name: str | None) -> Target:
        """
        Raises:
            Refused
        """
        if (name := name or self.catalog.default) is None:
            raise refused(404, "target", "this gateway has no default; name one in the path, like /judge/get_reward2")
        try:
            return await self.catalog.find(name)
        except UnknownTarget as e:
            raise refused(404, e.field, e.sentence) from e
        except ConfigurationError as e:
            raise refused(501, e.field, e.sentence) from e
        except ClusterError as e:
            raise refused(503, "cluster", str(e)) from e

    async def scores(self, wire_format: str, target: Target, samples: Sequence[Sample]) -> Sequence[Score]:
        """Responses to one prompt, together.

        Raises:
            Refused: a failure under policy raise, or a rule that does not start.
        """
        return (await self.compared(wire_format, target, samples))[0]

    async def compared(
        self, wire_format: str, target: Target, samples: Sequence[Sample]
    ) -> tuple[Sequence[Score], Report | None]:
        """The same, with what is known of their tournament where a RewardModel held one."""
        report = None
        with _refusals():
            async with target.used():
                if isinstance(target.source, Pairwise | Listwise):
                    scores, report = await target.source.compared(samples)
                else:
                    scores = await target.source.scores(samples)
        for score in scores:
            self.metrics.scored(wire_format, target.name, score)
        return scores, report

    async def gathered(self, wire_format: str, request: Request, target: Target, sample: Sample) -> Score | Response:
        """One response, with its siblings if the request says that it has any; or the answer of another gateway, which
        has the siblings. What can be asked about it before they come, is.

        Raises:
            Refused: as `scores`.
        """
        size = group_size(request)
        if size <= 1:
            (score,) = await self.scores(wire_format, target, [sample])
            return score
        group = request.query_params.get("group") or sample.question
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        key = f"{target.name}\0{group}"
        reply = await self.peers.elsewhere(key, path, request.headers, await request.body(), self.patience_of(size))
        if reply is not None:
            return Response(reply.body, reply.status, {k: v for k, v in reply.headers.items() if k in PASSED_BACK})
        with _refusals():
            async with self.meetings.joined(key, size, target) as target:
                score = await target.arrivals.score(key, size, sample)
        self.metrics.scored(wire_format, target.name, score)
        return score

    def patience_of(self, size: int) -> float:
        """Seconds for a whole group at another gateway: each member may come at the last moment."""
        return self._patience * min(size, LONGEST) + ANSWER_SECONDS


def desk_of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def name_in(request: Request) -> str | None:
    name: str | None = request.path_params.get("target") or request.query_params.get("target")
    return name


def group_size(request: Request) -> int:
    """
    Raises:
        Refused
    """
    given = request.query_params.get("group_size", "1")
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= MOST_SAMPLES:
        raise refused(422, "group_size", f"found {given[:20]!r}; write a number from 1 to {MOST_SAMPLES}")
    return int(given)


def refused(status: int, field: str, message: str) -> Refused:
    """`field` as the client, or who wrote the resource, wrote it."""
    return Refused(status, {"field": field, "message": message})


@contextmanager
def _refusals() -> Iterator[None]:
    """What keeps a target from scoring at all, as an answer.

    Raises:
        Refused
    """
    try:
        yield
    except RunStopped as e:
        raise refused(503, "onFailure", str(e)) from e
    except ConfigurationError as e:
        raise refused(501, e.field, e.sentence) from e


def error(status: int, content: Mapping[str, Any]) -> Response:
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if status in (429, 503) else {}
    return in_json({"error": dict(content)}, status, headers)


def in_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """In ASCII: texts of requests come back in answers, and half a surrogate pair, which JSON can say, is no UTF-8."""
    body = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status, headers, media_type="application/json")
