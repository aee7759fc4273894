from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest
from genrm_api.leases import DemandLease, Phase
from genrm_api.names import (
    ANNOTATION_ASKED,
    ANNOTATION_CREATED_BY,
    ANNOTATION_GRANTED,
    ANNOTATION_NEEDED_IN,
    ANNOTATION_PHASE,
    ANNOTATION_REFUSED,
)
from genrm_scoring.cluster import LEASES, REWARD_MODELS, Cluster, Object, Resource
from genrm_scoring.errors import ClusterUnreachable, LeaseTaken, NotAwake, WakeRefused
from genrm_scoring.lease_thread import LeaseThread
from genrm_scoring.leases import gpu_lease, model_lease, run_phase
from genrm_scoring.run_lease import RunLease

from tests.unit.scoring.fake_cluster import FakeCluster

AWAY = ClusterUnreachable("https://fake:6443", "connection refused")


def stored(cluster: FakeCluster) -> DemandLease:
    (lease,) = (o for (r, _, _), o in cluster.objects.items() if r == str(LEASES))
    return DemandLease.from_object(lease)


async def test_a_run_holds_renews_and_releases_its_lease() -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl", ttl_seconds=1):
        lease = stored(cluster)
        assert (lease.run, lease.reward_model, lease.phase, lease.ttl_seconds) == ("run-1", "judge", Phase.IDLE, 1)
        await cluster.until(lambda: len(cluster.patches) >= 2)
        assert stored(cluster).renewal != lease.renewal
    assert not cluster.objects


async def test_a_lease_says_who_created_it_for_the_api_server_to_hold_them_to_it() -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl"):
        (lease,) = cluster.objects.values()
        assert lease["metadata"]["annotations"][ANNOTATION_CREATED_BY] == await cluster.username()


async def test_the_phase_is_scoring_while_any_scoring_block_is_open() -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl") as lease:
        async with lease.scoring():
            async with lease.scoring():
                await asyncio.wait_for(lease.settled(), 5)
            assert stored(cluster).phase is Phase.SCORING
        await asyncio.wait_for(lease.settled(), 5)
        assert stored(cluster).phase is Phase.IDLE


async def test_writing_the_phase_does_not_touch_the_renewal() -> None:
    cluster = FakeCluster()
    async with (
        model_lease(cluster, "run-1", "judge", "rl"),
        run_phase(cluster, "run-1", "judge", "rl") as phases,
    ):
        before = stored(cluster).renewal
        phases.set_phase(Phase.SCORING)
        await asyncio.wait_for(phases.settled(), 5)
        assert (stored(cluster).phase, stored(cluster).renewal) == (Phase.SCORING, before)
    answers = {ANNOTATION_GRANTED: None, ANNOTATION_REFUSED: None}  # to whatever was wanted before
    written = {ANNOTATION_PHASE: "scoring", ANNOTATION_NEEDED_IN: None, **answers}
    assert cluster.patches == [{"metadata": {"annotations": written}}]


async def test_a_prewake_says_in_how_many_seconds_and_says_less_with_every_repeat() -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl", ttl_seconds=1) as lease:
        lease.set_phase(Phase.PREWAKE, needed_in=30.0)
        await asyncio.wait_for(lease.settled(), 5)
        first = stored(cluster)
        assert first.phase is Phase.PREWAKE and first.needed_in is not None and 29 < first.needed_in <= 30
        said = first.needed_in
        await cluster.until(lambda: (stored(cluster).needed_in or 99) < said)
        lease.set_phase(Phase.PREWAKE, needed_in=60.0)
        await asyncio.wait_for(lease.settled(), 5)
        assert (stored(cluster).needed_in or 0) > 59
        lease.set_phase(Phase.SCORING)
        await asyncio.wait_for(lease.settled(), 5)
        assert (stored(cluster).phase, stored(cluster).needed_in) == (Phase.SCORING, None)


async def test_who_wants_to_wait_is_told_when_the_operator_has_granted_it() -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl") as lease, lease.scoring():
        waiting = asyncio.create_task(lease.awake(10))
        await cluster.until(lambda: cluster.calls.count(("get", lease.name)) >= 2)
        cluster.fail = AWAY
        await cluster.until(lambda: cluster.calls.count(("get", lease.name)) >= 4)
        cluster.fail = None
        (found,) = cluster.objects.values()
        found["metadata"]["annotations"][ANNOTATION_GRANTED] = "2026-11-21T10:00:00.000000Z"
        assert 0 < await waiting < 10
        del found["metadata"]["annotations"][ANNOTATION_GRANTED]
        with pytest.raises(NotAwake, match=r"rl/judge is not awake after 0\.3 s; look with kubectl -n rl describe rm"):
            await lease.awake(0.3)


async def test_who_said_so_ahead_waits_from_when_it_scores() -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl", ttl_seconds=1) as lease:
        lease.set_phase(Phase.PREWAKE, needed_in=30.0)
        await cluster.until(lambda: len(cluster.patches) >= 2)
        (found,) = cluster.objects.values()
        found["metadata"]["annotations"][ANNOTATION_GRANTED] = "2026-11-21T10:00:00.000000Z"
        now = asyncio.get_running_loop().time
        began = now()
        async with lease.scoring():
            assert 0 < await lease.awake(5) <= now() - began


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (" waited=2.100 engine=1.900", r"reward model rl/judge is awake in 2\.1 s \(engine 1\.9 s\)$"),
        (" waited=0.000", r"reward model rl/judge is awake in 0\.0 s$"),
        pytest.param("", r"reward model rl/judge is awake in \d\.\d s$", id="by an older operator"),
    ],
)
async def test_what_a_wake_took_is_told_once_whether_somebody_waits_for_it_or_not(
    said: str, told: str, asks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="genrm_scoring.run_lease")
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl", ttl_seconds=1) as lease:
        (found,) = cluster.objects.values()
        for night in range(2):
            async with lease.scoring():
                await asyncio.wait_for(lease.settled(), 5)
                found["metadata"]["annotations"][ANNOTATION_GRANTED] = f"2026-11-21T10:00:0{night}.000000Z{said}"
                if asks:
                    await lease.awake(5)
                await cluster.until(lambda night=night: len(caplog.messages) > night)  # type: ignore[misc]
                renewed = len(cluster.patches)
                await cluster.until(lambda renewed=renewed: len(cluster.patches) >= renewed + 3)  # type: ignore[misc]
            await asyncio.wait_for(lease.settled(), 5)
            del found["metadata"]["annotations"][ANNOTATION_GRANTED]
    assert [bool(re.search(told, message)) for message in caplog.messages] == [True, True], caplog.messages


async def test_a_run_is_expected_back_after_as_long_as_it_was_away_before() -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl", ttl_seconds=1, prewake=True) as lease:
        async with lease.scoring():
            await asyncio.wait_for(lease.settled(), 5)
        await asyncio.wait_for(lease.settled(), 5)
        assert stored(cluster).phase is Phase.IDLE, "nobody knows yet how long"
        now = asyncio.get_running_loop().time
        away = now()
        renewals = len(cluster.patches)
        await cluster.until(lambda: len(cluster.patches) >= renewals + 3)  # one in a third of a second
        async with lease.scoring():
            await asyncio.wait_for(lease.settled(), 5)
        await asyncio.wait_for(lease.settled(), 5)
        found = stored(cluster)
        assert found.phase is Phase.PREWAKE and found.needed_in is not None and 0.2 < found.needed_in < now() - away


async def test_who_waits_for_what_can_never_be_is_told_so_at_once(caplog: pytest.LogCaptureFixture) -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl", ttl_seconds=1, priority=7) as lease, lease.scoring():
        assert stored(cluster).priority == 7
        await asyncio.wait_for(lease.settled(), 5)
        (found,) = cluster.objects.values()
        found["metadata"]["annotations"][ANNOTATION_REFUSED] = "run run-1 holds slot a by rl/policy"
        with pytest.raises(WakeRefused, match=r"rl/judge is not woken: run run-1 holds slot a by rl/policy$"):
            await lease.awake(10)
        renewed = len(cluster.patches)
        await cluster.until(lambda: len(cluster.patches) >= renewed + 3)
        assert caplog.text.count("is not woken") == 1, "said once, not with every renewal"


async def test_gpus_are_this_runs_own_only_by_the_answer_to_its_last_wish() -> None:
    cluster = FakeCluster()
    async with gpu_lease(cluster, "run-1", "judge", "gpu-0", "rl", pods=["ray-0", "ray-1"]) as slot:
        assert (stored(cluster).slots, stored(cluster).asked, stored(cluster).pods) == (
            ("gpu-0",),
            None,
            ("ray-0", "ray-1"),
        )
        wishes: list[str | None] = []
        for answer in (None, "an earlier wish's"):
            waiting = asyncio.create_task(hold(slot))
            await cluster.until(lambda: stored(cluster).asked not in (None, *wishes))
            wishes.append(stored(cluster).asked)
            (found,) = cluster.objects.values()
            if answer is not None:
                found["metadata"]["annotations"][ANNOTATION_GRANTED] = wishes[0]
                looks = len(cluster.calls)
                await cluster.until(lambda looks=looks: len(cluster.calls) >= looks + 3)  # type: ignore[misc]
                assert not waiting.done()
            found["metadata"]["annotations"][ANNOTATION_GRANTED] = wishes[-1]
            await asyncio.wait_for(waiting, 5)
            await asyncio.wait_for(slot.settled(), 5)
            assert (stored(cluster).phase, stored(cluster).asked) == (Phase.IDLE, None)
        with pytest.raises(NotAwake, match=r"slot gpu-0 of reward model rl/judge is not this run's after 0\.3 s"):
            await hold(slot, 0.3)


async def test_several_slots_are_one_lease_and_one_answer() -> None:
    cluster = FakeCluster()
    async with gpu_lease(cluster, "run-1", "judge", ["gpu-1", "gpu-0"], "rl") as slots:
        assert stored(cluster).slots == ("gpu-0", "gpu-1")
        waiting = asyncio.create_task(hold(slots))
        await cluster.until(lambda: stored(cluster).asked is not None)
        (found,) = cluster.objects.values()
        found["metadata"]["annotations"][ANNOTATION_GRANTED] = stored(cluster).asked
        await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(slots.settled(), 5)
        with pytest.raises(
            NotAwake, match=r"slots gpu-0, gpu-1 of reward model rl/judge are not this run's after 0\.3"
        ):
            await hold(slots, 0.3)
        found["metadata"]["annotations"][ANNOTATION_REFUSED] = "SlotDeadlock: run run-1 waits for itself"
        with pytest.raises(WakeRefused, match=r"slots gpu-0, gpu-1 of .* are not given to this run: SlotDeadlock: run"):
            await hold(slots)
        found["metadata"]["annotations"] |= {ANNOTATION_GRANTED: "word", ANNOTATION_ASKED: "word"}
        with pytest.raises(LeaseTaken, match="it was given GPUs and has not given them back"):
            async with gpu_lease(cluster, "run-1", "judge", ("gpu-0", "gpu-1", "gpu-0"), "rl"):
                pass


async def test_a_lease_for_gpus_names_some() -> None:
    with pytest.raises(ValueError, match="slots: names none of reward model rl/judge; name those whose GPUs you want"):
        async with gpu_lease(FakeCluster(), "run-1", "judge", [], "rl"):
            pass


async def hold(slot: RunLease, timeout: float = 10) -> None:
    async with slot.holding(timeout):
        pass


async def test_an_outage_delays_the_phase_and_loses_nothing() -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl") as lease:
        cluster.fail = AWAY
        lease.set_phase(Phase.SCORING)
        await cluster.until(lambda: cluster.calls.count(("patch", lease.name)) >= 3)
        cluster.fail = None
        await asyncio.wait_for(lease.settled(), 5)
        assert stored(cluster).phase is Phase.SCORING


async def test_a_lease_that_somebody_deleted_comes_back_with_its_phase() -> None:
    cluster = FakeCluster()
    async with (
        model_lease(cluster, "run-1", "judge", "rl", ttl_seconds=1) as lease,
        run_phase(cluster, "run-1", "judge", "rl", ttl_seconds=1) as phases,
    ):
        phases.set_phase(Phase.SCORING)
        await asyncio.wait_for(phases.settled(), 5)
        cluster.objects.clear()
        await cluster.until(lambda: bool(cluster.objects) and stored(cluster).phase is Phase.SCORING)
        assert cluster.calls.count(("create", lease.name)) == 2


@pytest.mark.parametrize("there", [True, False], ids=["made anew", "gone"])
async def test_a_lease_that_went_with_its_model_is_no_garbage_when_it_comes_back(there: bool) -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl", ttl_seconds=1, reward_model_uid="old") as lease:
        assert cluster.objects[str(LEASES), "rl", lease.name]["metadata"]["ownerReferences"][0]["uid"] == "old"
        cluster.objects.clear()
        if there:
            await cluster.put(REWARD_MODELS, {"metadata": {"name": "judge", "namespace": "rl", "uid": "new"}})
        await cluster.until(lambda: (str(LEASES), "rl", lease.name) in cluster.objects)
        owners = cluster.objects[str(LEASES), "rl", lease.name]["metadata"].get("ownerReferences", [])
        assert [owner["uid"] for owner in owners] == (["new"] if there else [])


async def test_the_answer_to_an_earlier_wish_is_none_to_this_one() -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl") as lease:
        (found,) = cluster.objects.values()
        async with lease.scoring():
            await asyncio.wait_for(lease.settled(), 5)
            found["metadata"]["annotations"][ANNOTATION_GRANTED] = "2026-11-21T10:00:00.000000Z"
            await lease.awake(5)
        await asyncio.wait_for(lease.settled(), 5)  # the operator has not yet heard that nobody waits any more
        async with lease.scoring():
            with pytest.raises(NotAwake):
                await lease.awake(0.3)


async def test_a_lease_that_is_there_although_two_attempts_to_create_it_failed_is_ours() -> None:
    """The first went through and its answer was lost; the second did not even arrive."""

    class Flaky(FakeCluster):
        lost = 0

        async def create(self, resource: Resource, namespace: str, obj: Object) -> Object:
            self.lost -= 1
            if self.lost == 1:
                await super().create(resource, namespace, obj)
            if self.lost >= 0:
                raise AWAY
            return await super().create(resource, namespace, obj)

    cluster = Flaky()
    async with model_lease(cluster, "run-1", "judge", "rl", ttl_seconds=1):
        cluster.objects.clear()
        cluster.lost = 2
        await cluster.until(lambda: bool(cluster.objects) and cluster.lost < 0)
        before = stored(cluster).renewal
        await cluster.until(lambda: stored(cluster).renewal != before)


async def test_a_refusal_of_before_is_no_answer_to_a_new_wish() -> None:
    cluster = FakeCluster()
    async with gpu_lease(cluster, "run-1", "judge", "gpu-0", "rl") as slot:
        (found,) = cluster.objects.values()
        found["metadata"]["annotations"][ANNOTATION_REFUSED] = "SlotDeadlock: run run-1 waits for itself"
        waiting = asyncio.create_task(hold(slot))
        await cluster.until(lambda: stored(cluster).asked is not None)
        assert stored(cluster).refused is None
        found["metadata"]["annotations"][ANNOTATION_GRANTED] = stored(cluster).asked
        await asyncio.wait_for(waiting, 5)


async def test_a_lease_of_which_nobody_heard_that_it_was_made_says_what_was_wanted_since() -> None:
    """The first try went through, saying idle, and its answer was lost."""

    class Lossy(FakeCluster):
        lost = False

        async def create(self, resource: Resource, namespace: str, obj: Object) -> Object:
            made = await super().create(resource, namespace, obj)
            if not self.lost:
                self.lost = True
                raise AWAY
            return made

    cluster = Lossy()
    lease = RunLease(cluster, "run-1", "judge", "rl", 30, holds=True)
    keeper = asyncio.create_task(lease.keep())
    try:
        await cluster.until(lambda: cluster.lost)
        lease.set_phase(Phase.SCORING)
        await asyncio.wait_for(lease.settled(), 5)
        assert stored(cluster).phase is Phase.SCORING
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def test_a_lease_is_deleted_though_the_first_try_got_no_answer() -> None:
    class Away(FakeCluster):
        tries = 0

        async def delete(self, resource: Resource, namespace: str, name: str) -> None:
            self.tries += 1
            if self.tries < 3:
                raise AWAY
            await super().delete(resource, namespace, name)

    cluster = Away()
    async with model_lease(cluster, "run-1", "judge", "rl"):
        assert cluster.objects
    assert not cluster.objects


async def test_a_lease_that_cannot_be_created_says_why_at_once() -> None:
    cluster = FakeCluster()
    cluster.fail = AWAY
    with pytest.raises(ClusterUnreachable):
        async with model_lease(cluster, "run-1", "judge", "rl"):
            pass


async def test_leaving_while_the_api_is_away_does_not_raise() -> None:
    cluster = FakeCluster()
    async with model_lease(cluster, "run-1", "judge", "rl"):
        cluster.fail = AWAY
    assert stored(cluster).run == "run-1"


class TestThread:
    """The synchronous twin."""

    def thread(self, hold: bool = True, fail: ClusterUnreachable | None = None) -> LeaseThread:
        @asynccontextmanager
        async def connect() -> AsyncIterator[Cluster]:
            self.cluster = FakeCluster()
            self.cluster.fail = fail
            yield self.cluster

        def open_lease(cluster: Cluster) -> AbstractAsyncContextManager[RunLease]:
            kind = partial(model_lease if hold else run_phase, run="run-1", reward_model="judge", namespace="rl")
            return kind(cluster)

        return LeaseThread(connect, open_lease)

    def test_holds_the_lease_from_start_to_close(self) -> None:
        thread = self.thread()
        thread.start(5)
        assert stored(self.cluster).phase is Phase.IDLE
        assert [t.daemon for t in threading.enumerate() if t.name == "genrm-lease"] == [True]
        thread.close(5)
        assert not self.cluster.objects
        assert "genrm-lease" not in {t.name for t in threading.enumerate()}

    def test_setting_a_phase_never_waits_and_is_written_before_the_end(self) -> None:
        thread = self.thread(hold=False)
        lease = thread.start(5)
        self.cluster.objects[str(LEASES), "rl", lease.name] = {"metadata": {"annotations": {}}, "spec": {}}
        for phase in (Phase.SCORING, Phase.IDLE, Phase.SCORING):
            thread.set_phase(phase)
        thread.close(5)
        assert self.cluster.patches[-1]["metadata"]["annotations"][ANNOTATION_PHASE] == "scoring"

    def test_waits_like_its_twin(self) -> None:
        thread = self.thread()
        thread.start(5)
        thread.set_phase(Phase.SCORING)
        with pytest.raises(NotAwake):
            thread.awake(0.3)
        (found,) = self.cluster.objects.values()
        found["metadata"]["annotations"][ANNOTATION_GRANTED] = "2026-11-21T10:00:00.000000Z"
        assert 0 < thread.awake(5) < 5
        thread.close(5)

    def test_a_failure_to_open_is_raised_to_who_started_it(self) -> None:
        thread = self.thread(fail=AWAY)
        with pytest.raises(ClusterUnreachable):
            thread.start(5)
        thread.close(5)
        thread.set_phase(Phase.SCORING)
