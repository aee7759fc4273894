"""A run's Leases on the models of a fleet, held as one; and what a name means."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from genrm_api.leases import Phase
from genrm_api.names import ANNOTATION_REFUSED
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from genrm_scoring.cluster import CONFIG_MAPS, LEASES, REWARD_FLEETS, REWARD_MODELS
from genrm_scoring.cluster_code import approved_code
from genrm_scoring.errors import ConfigurationError, NoSuchRewardModel, WakeRefused
from genrm_scoring.fleet_leases import fleet_lease, run_phases
from genrm_scoring.resolve import models_of, resolve_fleet, resolve_target

from tests.unit.scoring.fake_cluster import FakeCluster


def model(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "rl", "uid": f"uid-{name}"},
        "spec": spec or {"model": {"uri": "hf://a/b"}},
    }


def fleet(*models: str) -> dict[str, Any]:
    terms = [{"name": f"t{n}", "rewardModel": {"name": name}} for n, name in enumerate(models)]
    return {"metadata": {"name": "team", "namespace": "rl"}, "spec": {"terms": terms}}


async def cluster_of(*models: str) -> FakeCluster:
    cluster = FakeCluster()
    for name in models:
        external = {"type": "External", "external": {"url": "https://api.example.com/v1"}}
        await cluster.put(REWARD_MODELS, model(name, **(external if name == "away" else {})))
    return cluster


def phases(cluster: FakeCluster) -> dict[str, str]:
    leases = [obj["metadata"] for (kind, _, _), obj in cluster.objects.items() if kind == str(LEASES)]
    return {m["labels"]["genrm.dev/reward-model"]: m["annotations"]["genrm.dev/phase"] for m in leases}


async def test_every_model_of_a_fleet_is_needed_while_one_scores_and_none_is_held_after() -> None:
    cluster = await cluster_of("judge", "critic", "away")
    await cluster.put(REWARD_FLEETS, fleet("judge", "critic", "judge", "away"))
    async with fleet_lease(cluster, "run-1", "team", "rl") as lease:
        assert phases(cluster) == {"judge": "idle", "critic": "idle"}, "each once, and nobody wakes what has no pods"
        assert "rl/genrm-judge-" in lease.name and "rl/genrm-critic-" in lease.name
        async with lease.scoring():
            await cluster.until(lambda: set(phases(cluster).values()) == {"scoring"})
        await cluster.until(lambda: set(phases(cluster).values()) == {"idle"})
    assert phases(cluster) == {}


async def test_another_process_of_the_run_says_the_phase() -> None:
    cluster = await cluster_of("judge", "critic")
    await cluster.put(REWARD_FLEETS, fleet("judge", "critic"))
    found = await resolve_fleet(cluster, "team", "rl")
    assert found is not None
    models = await models_of(cluster, found)
    async with fleet_lease(cluster, "run-1", "team", "rl"), run_phases(cluster, "run-1", models) as said:
        said.set_phase(Phase.SCORING)
        await said.settled()
        assert set(phases(cluster).values()) == {"scoring"}


async def test_two_runs_on_fleets_that_share_a_model_have_a_lease_each() -> None:
    cluster = await cluster_of("judge", "critic")
    await cluster.put(REWARD_FLEETS, fleet("judge", "critic"))
    async with fleet_lease(cluster, "run-1", "team", "rl"), fleet_lease(cluster, "run-2", "team", "rl"):
        assert len([key for key in cluster.objects if key[0] == str(LEASES)]) == 4
    assert phases(cluster) == {}


async def test_a_fleet_of_rules_needs_nobody() -> None:
    cluster = FakeCluster()
    rules = {"terms": [{"name": "right", "rule": {"kind": "exact"}}]}
    await cluster.put(REWARD_FLEETS, {"metadata": {"name": "team", "namespace": "rl"}, "spec": rules})
    async with fleet_lease(cluster, "run-1", "team", "rl") as lease, lease.scoring():
        assert await lease.awake(1) == 0.0 and lease.name == ""


async def test_a_model_that_never_will_be_awake_ends_the_wait_for_the_others() -> None:
    cluster = await cluster_of("judge", "critic")
    await cluster.put(REWARD_FLEETS, fleet("judge", "critic"))
    async with fleet_lease(cluster, "run-1", "team", "rl") as lease, lease.scoring():
        await lease.settled()
        (refused,) = (obj for (_, _, name), obj in cluster.objects.items() if name.startswith("genrm-critic-"))
        refused["metadata"]["annotations"][ANNOTATION_REFUSED] = "SlotDeadlock: the run has the GPUs itself"
        before = asyncio.all_tasks()
        with pytest.raises(WakeRefused, match="SlotDeadlock"):
            await lease.awake(60)
        assert asyncio.all_tasks() == before, "nobody asks on for the other"


async def test_a_name_means_the_model_then_the_fleet_and_an_unknown_one_is_met_with_both() -> None:
    cluster = await cluster_of("judge", "team")
    await cluster.put(REWARD_FLEETS, fleet("judge"))
    assert (await resolve_target(cluster, "team", "rl"))[0].kind == "RewardModel"
    await cluster.remove(REWARD_MODELS, "rl", "team")
    resource, models = await resolve_target(cluster, "team")
    assert resource.kind == "RewardFleet" and [rm.name for rm in models] == ["judge"]
    with pytest.raises(NoSuchRewardModel, match=r"no RewardModel or RewardFleet tem in .*did you mean team"):
        await resolve_target(cluster, "tem")
    with pytest.raises(NoSuchRewardModel, match="no RewardFleet tem in namespace rl"):
        async with fleet_lease(cluster, "run-1", "tem", "rl"):
            pass


async def test_code_is_taken_by_its_hash_and_no_other() -> None:
    cluster = FakeCluster()
    rule = {"kind": "python", "function": "f", "configMap": {"name": "own", "key": "f.py"}}
    spec = {"terms": [{"name": "own", "rule": rule}, {"name": "right", "rule": {"kind": "exact"}}]}
    await cluster.put(REWARD_FLEETS, {"metadata": {"name": "team", "namespace": "rl"}, "spec": spec})
    found = await resolve_fleet(cluster, "team", "rl")
    assert found is not None
    await cluster.put(CONFIG_MAPS, {"metadata": {"name": "own", "namespace": "rl"}, "data": {"f.py": "x = 1\n"}})
    with pytest.raises(ConfigurationError, match="write allow=") as refused:
        await approved_code(cluster, found, [], "allow")
    digest = str(refused.value).rpartition("=")[2]
    assert await approved_code(cluster, found, ["0" * 64, digest], "allow") == {"own/f.py": "x = 1\n"}
    await cluster.put(CONFIG_MAPS, {"metadata": {"name": "own", "namespace": "rl"}, "data": {"f.py": "x = 2\n"}})
    with pytest.raises(ConfigurationError, match="write allow="):
        await approved_code(cluster, found, [digest], "allow")


async def test_code_around_models_is_taken_by_its_hash_where_it_is_called() -> None:
    cluster = FakeCluster()
    text = "x = 1\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    for name in ("models", "terms"):
        await cluster.put(CONFIG_MAPS, {"metadata": {"name": name, "namespace": "rl"}, "data": {"rules.py": text}})
    its = {"template": "{{ response }}", "postprocess": {"function": "f", "configMap": {"name": "models"}}}
    judge = RewardModel.model_validate(model("judge", model={"uri": "hf://a/b"}, scoring=its))

    def team(**term: Any) -> RewardFleet:
        terms = [{"name": "judged", "rewardModel": {"name": "judge"}, **term}]
        return RewardFleet.model_validate({"metadata": {"name": "team", "namespace": "rl"}, "spec": {"terms": terms}})

    for resource in (judge, team()):
        with pytest.raises(ConfigurationError, match=r"RewardModel judge spec.scoring.postprocess.configMap: .*allow="):
            await approved_code(cluster, resource, [], "allow", [judge])
        assert await approved_code(cluster, resource, [digest], "allow", [judge]) == {"models/rules.py": text}
    says_itself = team(postprocess={"function": "f", "configMap": {"name": "terms"}})
    with pytest.raises(ConfigurationError, match=r"RewardFleet team spec.terms judged postprocess.configMap: .*allow="):
        await approved_code(cluster, says_itself, [], "allow", [judge])
    assert await approved_code(cluster, says_itself, [digest], "allow", [judge]) == {"terms/rules.py": text}
