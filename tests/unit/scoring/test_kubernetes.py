"""The one module that speaks to an API server, against a server that speaks back."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from genrm_scoring.cluster import ENDPOINT_SLICES, LEASES, REWARD_MODELS, Cluster
from genrm_scoring.discovery import KubernetesEndpoints
from genrm_scoring.errors import (
    AccessDenied,
    AlreadyExists,
    ClusterUnreachable,
    ConfigurationError,
    NoRewardModelApi,
    NoSuchRewardModel,
    NotFound,
    RewardModelUnreadable,
    WatchExpired,
)
from genrm_scoring.kubernetes import connect
from genrm_scoring.resolve import resolve

from tests.unit.scoring.stub_api import StubApi, endpoint_slice, reward_model, write_kubeconfig


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubApi]:
    async with StubApi() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config")))
        yield api


@pytest.fixture
async def cluster(api: StubApi) -> AsyncIterator[Cluster]:
    async with connect() as cluster:
        yield cluster


async def test_where_and_namespace_come_from_the_kubeconfig(api: StubApi, cluster: Cluster) -> None:
    assert cluster.where.startswith(f"{api.url} (")
    assert "context stub" in cluster.where
    assert cluster.namespace == "rl"


async def test_objects_are_made_changed_and_removed(api: StubApi, cluster: Cluster) -> None:
    lease = {"metadata": {"name": "l", "namespace": "rl"}, "spec": {"renewTime": "1", "holderIdentity": "me"}}
    await cluster.create(LEASES, "rl", lease)
    with pytest.raises(AlreadyExists):
        await cluster.create(LEASES, "rl", lease)
    await cluster.patch(LEASES, "rl", "l", {"spec": {"renewTime": "2"}})
    assert (await cluster.get(LEASES, "rl", "l"))["spec"] == {"renewTime": "2", "holderIdentity": "me"}
    assert api.patch_types == {"application/merge-patch+json"}
    await cluster.delete(LEASES, "rl", "l")
    for gone in (cluster.delete(LEASES, "rl", "l"), cluster.get(LEASES, "rl", "l")):
        with pytest.raises(NotFound):
            await gone


async def test_a_watch_tells_what_happens_and_ends(api: StubApi, cluster: Cluster) -> None:
    seen = []
    async for event in _started(api, cluster):
        seen.append((event.type, event.object["metadata"]["name"]))
        api.send(None)
    assert seen == [("ADDED", "s1")]


async def test_an_expired_watch_says_so(api: StubApi, cluster: Cluster) -> None:
    gone = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
    with pytest.raises(WatchExpired):
        async for _ in _started(api, cluster):
            api.send(gone)


async def _started(api: StubApi, cluster: Cluster):  # type: ignore[no-untyped-def]
    """Watch, with one object that appears once the watch is there."""
    events = cluster.watch(ENDPOINT_SLICES, "rl", "", "7", 30)
    first = asyncio.ensure_future(anext(events))
    await asyncio.wait_for(api.watched.wait(), 5)
    api.put("endpointslices", "rl", "s1")
    yield await first
    async for event in events:
        yield event


@pytest.mark.parametrize("status", [401, 403])
async def test_missing_rights_name_verb_resource_and_namespace(api: StubApi, cluster: Cluster, status: int) -> None:
    api.denied["get"] = status
    with pytest.raises(AccessDenied) as denied:
        await resolve(cluster, "judge")
    text = str(denied.value)
    assert "get rewardmodels.genrm.dev" in text
    assert "namespace rl" in text
    assert 'User "ada" cannot get' in text
    assert ("genrm-client" in text) == (status == 403)


async def test_credentials_are_read_again_before_giving_up(api: StubApi, cluster: Cluster) -> None:
    api.denied["get"] = 401
    with pytest.raises(AccessDenied):
        await resolve(cluster, "judge")
    assert [verb for verb, _ in api.requests] == ["get", "get"]


async def test_calls_that_find_the_token_expired_at_the_same_time_do_not_end_each_other(
    api: StubApi, cluster: Cluster
) -> None:
    api.denied["get"] = 401
    ended = await asyncio.gather(*(cluster.get(LEASES, "rl", "l") for _ in range(16)), return_exceptions=True)
    assert {type(each) for each in ended} == {AccessDenied}
    assert len(api.requests) == 32


async def test_the_user_is_asked_for_once(api: StubApi, cluster: Cluster) -> None:
    assert [await cluster.username() for _ in range(2)] == ["ada", "ada"]
    assert [verb for verb, _ in api.requests] == ["review"]


async def test_an_api_server_that_does_not_say_who_one_is_stops_nobody(api: StubApi, cluster: Cluster) -> None:
    api.denied["review"] = 403
    assert await cluster.username() == ""


async def test_a_name_resolves_in_the_credentials_own_namespace(api: StubApi, cluster: Cluster) -> None:
    api.put("rewardmodels", "rl", "judge", **reward_model(replicas=2))
    model = await resolve(cluster, "judge")
    assert (model.namespace, model.name, model.spec.replicas) == ("rl", "judge", 2)


async def test_an_unknown_name_says_which_there_are(api: StubApi, cluster: Cluster) -> None:
    api.put("rewardmodels", "rl", "judge", **reward_model())
    with pytest.raises(NoSuchRewardModel, match=r"no RewardModel jugde in namespace rl; did you mean judge\?"):
        await resolve(cluster, "jugde", "rl")


async def test_a_cluster_without_our_resource_says_so(api: StubApi, cluster: Cluster) -> None:
    api.served.remove("genrm.dev")
    with pytest.raises(NoRewardModelApi, match="not installed"):
        await resolve(cluster, "judge")


async def test_a_model_of_a_newer_api_is_refused_with_the_field(api: StubApi, cluster: Cluster) -> None:
    api.put("rewardmodels", "rl", "judge", **reward_model(telepathy=True))
    with pytest.raises(RewardModelUnreadable, match="telepathy"):
        await resolve(cluster, "judge")


@pytest.mark.parametrize("answer", ["closed", "silent"])
async def test_a_cluster_that_is_away_is_known_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        if answer == "silent":
            s.listen()
        url = f"http://127.0.0.1:{s.getsockname()[1]}"
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", url)))
        began = time.monotonic()
        async with connect() as cluster:
            with pytest.raises(ClusterUnreachable, match=url):
                await cluster.get(REWARD_MODELS, "rl", "judge")
        assert time.monotonic() - began < 6


@pytest.mark.parametrize("content", ["", "{}", "a: [", '{"contexts": []}'])
async def test_a_broken_kubeconfig_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    broken = tmp_path / "config"
    broken.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(broken))
    with pytest.raises(ConfigurationError, match=str(broken)):
        async with connect():
            pass


async def test_a_kubeconfig_that_is_not_there_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none:{tmp_path}/neither")
    with pytest.raises(ConfigurationError, match=f"{tmp_path}/none:{tmp_path}/neither is not there"):
        async with connect():
            pass


async def test_no_credentials_at_all_are_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="no cluster to ask"):
        async with connect():
            pass


async def test_endpoints_follow_the_slices_of_the_headless_service(api: StubApi, cluster: Cluster) -> None:
    api.put("endpointslices", "rl", "judge-pods-a", **endpoint_slice("judge-1", "judge-2"))
    async with KubernetesEndpoints(cluster, "judge", "rl") as endpoints, asyncio.timeout(10):
        await endpoints.wait_for_change(0, 5)
        assert [e.pod for e in endpoints.snapshot().endpoints] == ["judge-1", "judge-2"]
        version = endpoints.snapshot().version
        await api.watched.wait()
        api.put("endpointslices", "rl", "judge-pods-a", **endpoint_slice("judge-2"))
        await endpoints.wait_for_change(version, 5)
        assert [e.pod for e in endpoints.snapshot().endpoints] == ["judge-2"]
