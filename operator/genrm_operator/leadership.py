"""One operator acts, the others are ready: a native Lease says who.

As in client-go's `leaderelection`, expiry is what a candidate itself observes of renewals, never a comparison of
clocks, and who leads stops by itself before anybody else can begin: its renewal counts as fresh for
`RENEWAL_HOLDS_SECONDS`, a candidate waits for `LEASE_SECONDS`. Beyond client-go, every leadership has a number, the
*epoch*, larger than that of all before it: the doors refuse orders of a smaller one, so that a call which was already
under way when its sender was deposed changes nothing behind the new leader's back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from genrm_api.leases import micro_time
from genrm_api.names import GROUP

from genrm_operator.errors import ApiError, Conflict, Deposed, NotFound
from genrm_operator.kube import Kube

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 15
RENEWAL_HOLDS_SECONDS: Final = 10.0
RENEW_EVERY_SECONDS: Final = 2.0
LOOK_EVERY_SECONDS: Final = 1.0
"""How often a candidate looks: after a leader that handed over, this is how long nobody acts."""
CALL_SECONDS: Final = 3.0
"""So that a call which hangs leaves time for others before the renewal is too old."""
ANNOTATION_EPOCH: Final = f"{GROUP}/epoch"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a candidate knows of the Lease: its holder, and since when (monotonic seconds) its renewal is unchanged."""

    holder: str
    renewal: str
    seconds: float
    epoch: int
    version: str
    since: float

    @classmethod
    def of(cls, lease: Mapping[str, Any], before: Seen | None, now: float) -> Seen:
        spec, meta = lease.get("spec") or {}, lease["metadata"]
        renewal = f"{spec.get('holderIdentity')} {spec.get('renewTime')}"
        return cls(
            holder=spec.get("holderIdentity") or "",
            renewal=renewal,
            seconds=float(spec.get("leaseDurationSeconds") or LEASE_SECONDS),
            epoch=_epoch((meta.get("annotations") or {}).get(ANNOTATION_EPOCH)),
            version=meta["resourceVersion"],
            since=before.since if before is not None and before.renewal == renewal else now,
        )

    def free(self, identity: str, now: float) -> bool:
        """Whether a candidate may take it. What its own name holds is left from a process that is dead: a pod's
        container starts again only when the one before has ended."""
        return self.holder in ("", identity) or now >= self.since + self.seconds


def next_epoch(last: int, wall_clock_seconds: float) -> int:
    """Larger than every epoch before, also if the Lease, which remembers the last one, was deleted meanwhile."""
    return max(last + 1, int(wall_clock_seconds * 1000))


def _epoch(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


class Leadership:
    """This process's part in the election of one Lease. No two live processes have the same `identity`."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.identity = identity
        self.epoch: int | None = None
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._monotonic = monotonic
        self._seen: Seen | None = None
        self._renewed_at = float("-inf")

    def check(self) -> None:
        """
        Raises:
            Deposed: this process does not lead, or its last renewal is too old to be sure.
        """
        if self.epoch is None or self._monotonic() >= self._renewed_at + RENEWAL_HOLDS_SECONDS:
            raise Deposed(f"{self.identity} does not hold the Lease {self._namespace}/{self._name}")

    def order(self) -> int:
        """The number that an order to a door carries.

        Raises:
            Deposed
        """
        self.check()
        assert self.epoch is not None
        return self.epoch

    async def acquire(self) -> None:
        """Wait until this process leads."""
        waiting_for = None
        while not await self._try(self._candidate):
            holder = self._seen.holder if self._seen else ""
            if holder and holder != waiting_for:
                log.info("standing by: %s leads", holder)
                waiting_for = holder
            await asyncio.sleep(LOOK_EVERY_SECONDS)
        log.info("leads identity=%s epoch=%s", self.identity, self.epoch)

    async def keep(self) -> None:
        """Renew for as long as it goes well.

        Raises:
            Deposed: somebody else leads, or no renewal came through in time.
        """
        while True:
            await asyncio.sleep(RENEW_EVERY_SECONDS)
            await self._try(self._renew)
            self.check()

    async def release(self) -> None:
        """Hand over at once: whoever looks next may lead."""
        if self.epoch is None or self._seen is None:
            return
        self.epoch = None
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time(datetime.now(UTC))}
        await self._try(lambda began: self._patch(spec, {}))

    async def _try(self, attempt: Callable[[float], Any]) -> bool:
        """Whether the attempt went through. `began` is taken before the call: a slow answer is no fresh renewal."""
        began = self._monotonic()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return bool(await attempt(began))
        except TimeoutError:
            log.warning("leadership: no answer from the API server within %g s", CALL_SECONDS)
            return False
        except ApiError as error:
            log.warning("leadership: %s", error)
            if isinstance(error, (Conflict, NotFound)):
                await self._look_again()
            return False

    async def _look_again(self) -> None:
        """Somebody else wrote the Lease; if it is not ours any more, it is over."""
        try:
            lease = await self._kube.get("Lease", self._namespace, self._name)
        except ApiError as error:
            if isinstance(error, NotFound):
                self.epoch = None  # somebody deleted it: take part in the election anew
            return
        self._seen = Seen.of(lease, self._seen, self._monotonic())
        if self._seen.holder != self.identity:
            self.epoch = None

    async def _candidate(self, began: float) -> bool:
        try:
            lease = await self._kube.get("Lease", self._namespace, self._name)
        except NotFound:
            epoch = next_epoch(0, time.time())
            lease = await self._kube.create(self._manifest(epoch))
            return self._leads(lease, epoch, began)
        self._seen = Seen.of(lease, self._seen, self._monotonic())
        if not self._seen.free(self.identity, self._monotonic()):
            return False
        epoch = next_epoch(self._seen.epoch, time.time())
        now = micro_time(datetime.now(UTC))
        transitions = int((lease.get("spec") or {}).get("leaseTransitions") or 0) + 1
        spec = self._spec() | {"acquireTime": now, "leaseTransitions": transitions}
        return self._leads(await self._patch(spec, {ANNOTATION_EPOCH: str(epoch)}), epoch, began)

    async def _renew(self, began: float) -> bool:
        assert self.epoch is not None
        return self._leads(await self._patch(self._spec(), {}), self.epoch, began)

    def _leads(self, lease: Mapping[str, Any], epoch: int, began: float) -> bool:
        self._seen = Seen.of(lease, self._seen, self._monotonic())
        self.epoch, self._renewed_at = epoch, began
        return True

    async def _patch(self, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> dict[str, Any]:
        """Write the Lease only if it is as we last saw it."""
        assert self._seen is not None
        patch = {"metadata": {"resourceVersion": self._seen.version, "annotations": annotations}, "spec": spec}
        return await self._kube.merge_patch("Lease", self._namespace, self._name, patch)

    def _spec(self) -> dict[str, Any]:
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": micro_time(datetime.now(UTC)),
        }

    def _manifest(self, epoch: int) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "annotations": {ANNOTATION_EPOCH: str(epoch)},
            },
            "spec": self._spec() | {"acquireTime": micro_time(datetime.now(UTC)), "leaseTransitions": 0},
        }
