"""`RunLease`: writes what a run needs to one Lease, in one task, and reads there what the operator says to it.

`LeasePlan` decides what to write next; `leases` is how one is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from genrm_api.leases import (
    DemandLease,
    Grant,
    Phase,
    lease_manifest,
    lease_name,
    micro_time,
)
from genrm_api.names import (
    ANNOTATION_ASKED,
    ANNOTATION_GRANTED,
    ANNOTATION_NEEDED_IN,
    ANNOTATION_PHASE,
    ANNOTATION_REFUSED,
)

from genrm_scoring.cluster import LEASES, Cluster
from genrm_scoring.errors import AlreadyExists, ClusterUnreachable, GenrmError, NotAwake, NotFound, WakeRefused
from genrm_scoring.forecast import Forecast
from genrm_scoring.lease_plan import LeasePlan, Wish, Write
from genrm_scoring.resolve import uid_of
from genrm_scoring.takeover import take_over

log = logging.getLogger(__name__)

RELEASE_SECONDS: Final = 5.0
AGAIN_SECONDS: Final = 0.2
"""Between two tries to delete it."""
GRANT_SECONDS: Final = 0.2
"""Between two looks for the operator's answer."""


class RunLease:
    """One run's Lease on one reward model, or on the GPUs of some of its slots.

    Use `model_lease` or `gpu_lease` (holder), or `run_phase` (phase only).
    """

    def __init__(
        self,
        cluster: Cluster,
        run: str,
        reward_model: str,
        namespace: str,
        ttl_seconds: int,
        *,
        holds: bool,
        owner_uid: str | None = None,
        priority: int = 0,
        prewakes: bool = False,
        slots: tuple[str, ...] = (),
        pods: Sequence[str] = (),
    ) -> None:
        self.name = lease_name(run, reward_model, slots)
        self._cluster = cluster
        self._run = run
        self._reward_model = reward_model
        self.namespace = namespace
        self._ttl_seconds = ttl_seconds
        self._owner_uid = owner_uid
        self._priority = priority
        self._prewakes = prewakes
        self._slots = slots
        self._pods = tuple(pods)
        self._granted_word: str | None = None
        """The last one that was told."""
        self._refused: str | None = None
        self._plan = LeasePlan(float(ttl_seconds), holds)
        self._created_at: set[str] = set()
        """Of all attempts to create it whose answers may have been lost: one of them may have gone through."""
        self._scoring = 0
        self._forecast = Forecast()
        self._paused_at: float | None = None
        """When the last block of `scoring` was left."""
        self._asked_at = 0.0
        self._poke = asyncio.Event()
        self._settled = asyncio.Event()

    def set_phase(self, phase: Phase, needed_in: float | None = None) -> None:
        """Say what is needed from now on; returns at once, the Lease follows.

        `needed_in`: with `Phase.PREWAKE`, in how many seconds the engines must be awake; the operator starts to wake
        them as late as is safe. Without it at once.
        """
        now, before = _now(), self._plan.wanted
        asked = None if before is None else before.asked
        if before is None or phase is not before.phase:
            self._asked_at = now
        if before is None or phase.wants_awake != before.phase.wants_awake:
            asked = secrets.token_hex(8) if self._slots and phase.wants_awake else None
        self._plan.want(phase, now, None if needed_in is None else now + needed_in, asked)
        self._settled.clear()
        self._poke.set()

    @asynccontextmanager
    async def scoring(self) -> AsyncIterator[None]:
        """The reward model is needed while any such block is open.

        Between two of them the engines sleep; with `prewake` they are woken ahead of the next one, by what the pauses
        before it took, and at once only when it begins earlier than each of the last ones.
        """
        self.begin_scoring()
        try:
            yield
        finally:
            self.end_scoring()

    def begin_scoring(self) -> None:
        """Enter a block of `scoring`; for who is not in this event loop and cannot hold it open."""
        if self._paused_at is not None:
            self._forecast.learn(_now() - self._paused_at)
            self._paused_at = None
        self._scoring += 1
        self.set_phase(Phase.SCORING)

    def end_scoring(self) -> None:
        self._scoring -= 1
        if not self._scoring:
            self._paused_at = _now()
            needed_in = self._forecast.needed_in() if self._prewakes else None
            self.set_phase(Phase.IDLE if needed_in is None else Phase.PREWAKE, needed_in)

    @asynccontextmanager
    async def holding(self, timeout: float) -> AsyncIterator[float]:
        """The slots' GPUs are this run's own while the block is open, for memory of its own; of `gpu_lease` only.

        It is entered once every engine on them rests, with the seconds that took. Whoever leaves it has given the
        memory back.

        Raises:
            NotAwake: somebody else had them for longer than `timeout` seconds.
            WakeRefused: this run has them already, by a reward model that it scores with; or it has others that
                somebody waits for, who has these. Give back what you have.
        """
        self.set_phase(Phase.SCORING)
        try:
            yield await self.awake(timeout)
        finally:
            self.set_phase(Phase.IDLE)

    async def settled(self) -> None:
        """Wait until the Lease says what is wanted."""
        await self._settled.wait()

    async def awake(self, timeout: float) -> float:
        """Wait until every replica serves for this run, by the operator's word; return the seconds since its phase.

        Nobody has to wait: judgements of the scorer do so by themselves. It is for those who ask the Service directly,
        and for logs. Outages of the API server are waited out.

        Raises:
            NotAwake: not within `timeout` seconds.
            WakeRefused: the operator says that it never will be, as things are: the run holds its GPUs itself.
        """
        try:
            async with asyncio.timeout(timeout):
                await self.settled()
                while not await self._granted():
                    if self._refused is not None:
                        raise WakeRefused(self._reward_model, self.namespace, self._refused, self._slots)
                    await asyncio.sleep(GRANT_SECONDS)
        except TimeoutError:
            raise NotAwake(self._reward_model, self.namespace, timeout, self._slots) from None
        return _now() - self._asked_at

    async def _granted(self) -> bool:
        try:
            found = await self._cluster.get(LEASES, self.namespace, self.name)
        except GenrmError as e:
            log.info("lease %s/%s: not read, trying again: %s", self.namespace, self.name, e)
            return False
        granted = self._heard(found).get(ANNOTATION_GRANTED)
        wanted = self._plan.wanted
        return granted is not None and (not self._slots or (wanted is not None and granted == wanted.asked))

    def _heard(self, lease: Mapping[str, Any]) -> Mapping[str, str]:
        """The annotations of our Lease, as somebody has just seen them; what the operator says there is told once."""
        annotations: Mapping[str, str] = lease["metadata"].get("annotations") or {}
        granted = annotations.get(ANNOTATION_GRANTED)
        wanted = self._plan.wanted
        if granted != self._granted_word and not self._slots and wanted is not None and wanted.phase.wants_awake:
            self._granted_word = granted
            if granted is not None:
                self._report(Grant.read(granted))
        refused = annotations.get(ANNOTATION_REFUSED)
        if refused is not None and refused != self._refused:
            log.error("%s", WakeRefused(self._reward_model, self.namespace, refused, self._slots))
        self._refused = refused
        return annotations

    def _report(self, grant: Grant) -> None:
        seconds = _now() - self._asked_at if grant.waited is None else grant.waited
        engine = "" if grant.engine is None else f" (engine {grant.engine:.1f} s)"
        log.info("reward model %s/%s is awake in %.1f s%s", self.namespace, self._reward_model, seconds, engine)

    async def acquire(self) -> None:
        """Create the Lease, phase idle; one attempt.

        Raises:
            ClusterError, LeaseTaken
        """
        await self._create(Phase.IDLE)
        self._plan.succeeded(Write.CREATE, None, _now())

    async def keep(self) -> None:
        """Write what is wanted, for ever."""
        while True:
            step = self._plan.next(_now())
            if step.write is None or step.at > _now():
                if self._plan.settled:
                    self._settled.set()
                await self._pause(step.at)
            else:
                await self._carry_out(step.write)

    async def release(self) -> None:
        """Delete the Lease; if the API server stays away, its TTL ends it."""
        said: GenrmError | str = "no answer"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                while True:
                    try:
                        return await self._cluster.delete(LEASES, self.namespace, self.name)
                    except ClusterUnreachable as e:
                        said = e
                        await asyncio.sleep(AGAIN_SECONDS)
                    except NotFound:
                        return
                    except GenrmError as e:
                        said = e
                        break
        log.warning("lease %s/%s is not deleted and ends after %d s: %s", self.namespace, self.name, self._ttl_seconds,
                    said)  # fmt: skip

    async def _pause(self, until: float) -> None:
        try:
            async with asyncio.timeout_at(None if until == float("inf") else until):
                await self._poke.wait()
        except TimeoutError:
            return
        self._poke.clear()

    async def _carry_out(self, write: Write) -> None:
        wish = self._plan.wanted
        try:
            match write:
                case Write.CREATE:
                    # With no word of when: one that is to be awake later is said right after. So is what is new
                    # with each wish.
                    wish = Wish(Phase.IDLE) if wish is None or self._slots else Wish(wish.phase)
                    if self._owner_uid is not None:
                        self._owner_uid = await uid_of(self._cluster, self._reward_model, self.namespace)
                    wish = Wish(await self._create(wish.phase))
                case Write.RENEW:
                    await self._patch({"spec": {"renewTime": micro_time(datetime.now(UTC))}})
                case Write.PHASE:
                    assert wish is not None, "a phase is written because somebody wants one"
                    # It counts from this write, so a repeat of it says less.
                    needed_in = None if wish.needed_at is None else f"{max(wish.needed_at - _now(), 0.0):.3f}"
                    annotations = {ANNOTATION_PHASE: str(wish.phase), ANNOTATION_NEEDED_IN: needed_in}
                    if self._slots:
                        annotations[ANNOTATION_ASKED] = wish.asked
                    # The answer to an earlier wish may be there still.
                    if wish.phase.wants_awake and self._plan.rests:
                        annotations[ANNOTATION_REFUSED] = None
                        if not self._slots:
                            annotations[ANNOTATION_GRANTED] = None
                    await self._patch({"metadata": {"annotations": annotations}})
        except NotFound:
            log.warning("lease %s/%s is gone", self.namespace, self.name)
            self._plan.vanished(write, _now())
        except GenrmError as e:
            log.warning("lease %s/%s: %s failed, trying again: %s", self.namespace, self.name, write.value, e)
            self._plan.failed(write, _now())
        except Exception:  # a Lease that is not renewed because of a bug would put the engines to sleep under the run
            log.exception("lease %s/%s: %s failed, trying again", self.namespace, self.name, write.value)
            self._plan.failed(write, _now())
        else:
            self._plan.succeeded(write, wish, _now())

    async def _patch(self, patch: dict[str, Any]) -> None:
        self._heard(await self._cluster.patch(LEASES, self.namespace, self.name, patch))

    async def _create(self, phase: Phase) -> Phase:
        """The phase that it has then."""
        created_by = await self._cluster.username()
        now = datetime.now(UTC)
        manifest = lease_manifest(
            self._run, self._reward_model, self.namespace, phase, now, self._ttl_seconds, self._owner_uid, created_by,
            self._priority, self._slots, self._pods,
        )  # fmt: skip
        try:
            await self._cluster.create(LEASES, self.namespace, manifest)
        except AlreadyExists:
            # Ours, if an earlier create went through although its answer was lost.
            found = await self._cluster.get(LEASES, self.namespace, self.name)
            if found["spec"].get("acquireTime") in self._created_at:
                phase = DemandLease.from_object(found).phase  # of that attempt
            else:
                await take_over(self._cluster, found, manifest)
        except GenrmError:
            self._created_at.add(micro_time(now))
            raise
        self._created_at.clear()
        return phase


def _now() -> float:
    return asyncio.get_running_loop().time()
