"""One sample, scored as a training run would score it: `python -m genrm_scoring.smoke NAMESPACE/NAME`.

The chart's `helm test` runs it in a pod. It goes the whole way of a run with a run's permissions: find the RewardModel,
hold a Lease on it (so that one that sleeps wakes), wait until a pod serves, ask it one question with the model's own
judge and parser, give the Lease back. It says each step as it comes, because a wake may take minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from genrm_api.leases import Phase
from genrm_api.rewardmodel import RewardModel, ScoringMode

from genrm_scoring.cluster import Cluster
from genrm_scoring.discovery import KubernetesEndpoints
from genrm_scoring.endpoints import Endpoints
from genrm_scoring.errors import GenrmError
from genrm_scoring.labels import refuse_split_labels
from genrm_scoring.leases import model_lease
from genrm_scoring.resolve import resolve
from genrm_scoring.scorer import Scorer
from genrm_scoring.speech import speech_of
from genrm_scoring.transport import AiohttpTransport
from genrm_scoring.types import Judgement, Outcome, Question, Sample

SAMPLE: Final = Sample(question="What is 17 plus 25?", response="17 plus 25 is 42.", uid="smoke", reference="42")
OTHER: Final = "17 plus 25 is 32."
"""For a judge that compares."""
WAIT_SECONDS: Final = 300.0
Say = Callable[[str], None]


async def smoke(cluster: Cluster, name: str, namespace: str, wait_seconds: float, say: Say) -> Judgement | None:
    """Score `SAMPLE` with a RewardModel; `None` if nothing serves within `wait_seconds`.

    Raises:
        GenrmError: it is not there, or this account may not use it.
    """
    model = await resolve(cluster, name, namespace)
    phase = (model.status and model.status.phase) or "not seen by the operator yet"
    say(f"RewardModel {namespace}/{name}: {phase}")
    run = f"smoke-{uuid.uuid4().hex[:8]}"
    held = model_lease(cluster, run, name, namespace, reward_model_uid=model.metadata.get("uid"))
    async with held as lease, KubernetesEndpoints(cluster, name, namespace) as endpoints:
        lease.set_phase(Phase.SCORING)
        say(f"holds Lease {namespace}/{lease.name}, waits up to {wait_seconds:g} s for a pod that serves")
        if not await _serving(endpoints, wait_seconds):
            say(endpoints.snapshot().problem or f"nothing serves; kubectl -n {namespace} describe rm {name} says why")
            return None
        return await _judge(model, endpoints)


async def _judge(model: RewardModel, endpoints: Endpoints) -> Judgement:
    transport = AiohttpTransport()
    try:
        refuse_split_labels(model)
        scorer = Scorer(model.spec.scoring, model.served_name, endpoints, transport, speech=speech_of(model))
        if model.spec.scoring.mode in (ScoringMode.PAIRWISE, ScoringMode.LISTWISE):
            responses = (SAMPLE.response, OTHER)
            return await scorer.ask_once(Question(SAMPLE.question, responses, SAMPLE.reference))
        return await scorer.judge(SAMPLE)
    finally:
        await transport.close()


async def _serving(endpoints: Endpoints, seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not (snapshot := endpoints.snapshot()).endpoints:
        if loop.time() >= deadline:
            return False
        await endpoints.wait_for_change(snapshot.version, deadline - loop.time())
    return True


def outcome(judgement: Judgement) -> str:
    """A judgement in one line."""
    asked = f" by {judgement.endpoint.url}" if judgement.endpoint else ""
    what = f"{judgement.outcome}{asked} after {judgement.seconds:.2f} s"
    if judgement.verdict is not None:
        return f"{what}: {judgement.verdict.label} is worth {judgement.verdict.value:g}"
    return f"{what}: {judgement.detail}"


async def _run(target: str, wait_seconds: float) -> int:
    from genrm_scoring.kubernetes import connect

    namespace, _, name = target.partition("/")
    try:
        async with connect() as cluster:
            judgement = await smoke(cluster, name, namespace, wait_seconds, _print)
    except GenrmError as error:
        _print(f"failed: {error}")
        return 1
    if judgement is not None:
        _print(outcome(judgement))
    return 0 if judgement is not None and judgement.outcome is Outcome.OK else 1


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="genrm_scoring.smoke", description="Score one sample.")
    parser.add_argument("target", metavar="NAMESPACE/NAME", help="a RewardModel")
    parser.add_argument("--wait", type=float, default=WAIT_SECONDS, help="seconds to wait for a pod that serves")
    given = parser.parse_args(arguments)
    if not all(given.target.partition("/")):
        parser.error(f"{given.target!r} is no NAMESPACE/NAME")
    return asyncio.run(_run(given.target, given.wait))


if __name__ == "__main__":
    sys.exit(main())
