"""The driver's side of a run, from command line to Lease: real Hydra, a stand-in for verl, a stub API server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from genrm_api.rewardmodel import RewardModel
from genrm_verl.target import Target

from tests.unit.scoring.stub_api import StubApi, endpoint_slice, reward_model, write_kubeconfig
from tests.unit.verl.fake_verl import started

K8S = ("reward_model.discovery=k8s", "reward_model.name=judge")
STATIC = (
    "reward_model.discovery=static",
    "reward_model.endpoints=[http://127.0.0.1:9/v1]",
    "reward_model.served_name=judge",
)


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubApi]:
    async with StubApi() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        api.put("rewardmodels", "rl", "judge", **reward_model(replicas=2))
        api.put("endpointslices", "rl", "judge-pods-a", **endpoint_slice("judge-1"))
        yield api


def leases(api: StubApi) -> list[dict[str, Any]]:
    return [o for (plural, _, _), o in api.objects.items() if plural == "leases"]


async def test_without_the_plugin_the_command_fails_loudly(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "hydra_plugins"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("")  # a real package of this name hides the namespace ours lives in
    async with started(tmp_path, *STATIC, path=str(hidden.parent)) as program:
        code, _, errors = await program.end()
    assert code == 1
    assert "Could not override 'reward_model.discovery'" in errors


async def test_without_discovery_nothing_changes(tmp_path: Path) -> None:
    async with started(tmp_path) as program:
        config = await program.config()
        code, _, errors = await program.end()
    assert (code, errors) == (0, "")
    assert "genrm" not in config
    assert config["reward"]["reward_manager"]["source"] == "register"


async def test_static_endpoints_reach_the_workers_configuration(tmp_path: Path) -> None:
    overrides = (
        "reward_model.scoring={timeout:9s,onFailure:{policy:value,value:-1}}",
        "reward_model.judgement_log=log",
    )
    async with started(tmp_path, *STATIC, *overrides) as program:
        config = await program.config()
    section = config["genrm"]
    assert section["endpoints"] == ["http://127.0.0.1:9"]
    scoring = json.loads(section["scoring"])
    assert scoring["timeout"] == "9s"
    assert scoring["onFailure"] == {"policy": "value", "value": -1.0}
    assert section["judgement_log"] == str(tmp_path / "log")
    assert re.fullmatch(r"gsm8k-[0-9a-f]{8}", section["run"])
    assert config["reward"]["reward_manager"] == {
        "source": "importlib",
        "name": "GenrmRewardManager",
        "module": {"path": "pkg://genrm_verl.reward_manager", "name": "GenrmRewardManager"},
    }
    assert config["ray_kwargs"]["ray_init"]["runtime_env"]["env_vars"] == {
        "VERL_USE_EXTERNAL_MODULES": "genrm_verl.plugin",
        "GENRM_RUN": section["run"],
    }


async def test_what_the_user_loads_in_the_workers_is_kept(tmp_path: Path) -> None:
    theirs = "+ray_kwargs.ray_init.runtime_env={working_dir:/x,env_vars:{A:b,VERL_USE_EXTERNAL_MODULES:theirs.module}}"
    async with started(tmp_path, *STATIC, theirs) as program:
        runtime_env = (await program.config())["ray_kwargs"]["ray_init"]["runtime_env"]
    assert runtime_env["working_dir"] == "/x"
    assert runtime_env["env_vars"]["A"] == "b"
    assert runtime_env["env_vars"]["VERL_USE_EXTERNAL_MODULES"] == "theirs.module,genrm_verl.plugin"


async def test_a_run_resolves_its_reward_model_and_holds_a_lease(tmp_path: Path, api: StubApi) -> None:
    async with started(tmp_path, *K8S, "reward_model.lease_ttl_s=3", FAKE_TRAINER="wait") as program:
        config = await program.config()
        section = config["genrm"]
        assert (section["name"], section["namespace"], section["settles"]) == ("judge", "rl", True)
        assert section["breaker"] == {}, "the defaults"
        resource = Target.read(section["target"]).resource
        assert isinstance(resource, RewardModel) and resource.served_name == "judge"
        (lease,) = leases(api)
        assert lease["spec"]["leaseDurationSeconds"] == 3
        assert lease["spec"]["holderIdentity"] == section["run"]
        assert lease["metadata"]["annotations"]["genrm.dev/phase"] == "idle"
        first = lease["spec"]["renewTime"]
        await asyncio.wait_for(api.patched.wait(), 15)
        assert leases(api)[0]["spec"]["renewTime"] > first
        program.process.send_signal(signal.SIGTERM)
        code, _, errors = await program.end()
    assert code == 143
    assert leases(api) == []
    (looking, found) = errors.strip().splitlines()
    assert looking == "genrm: looking for RewardModel or RewardFleet judge in the default namespace"
    assert "RewardModel rl/judge" in found
    assert "2 replicas, 1 serving now" in found
    assert section["run"] in found


@pytest.mark.parametrize(("trainer", "status"), [("end", 0), ("raise", 1)])
async def test_the_lease_ends_with_the_run(tmp_path: Path, api: StubApi, trainer: str, status: int) -> None:
    async with started(tmp_path, *K8S, FAKE_TRAINER=trainer) as program:
        await program.config()
        code, _, errors = await program.end()
    assert code == status, errors
    assert ("create", "/apis/coordination.k8s.io/v1/namespaces/rl/leases") in api.requests
    assert leases(api) == []


async def test_the_lease_ends_with_ctrl_c(tmp_path: Path, api: StubApi) -> None:
    async with started(tmp_path, *K8S, FAKE_TRAINER="wait") as program:
        await program.config()
        await program.interrupt()
        await program.end()
    assert leases(api) == []


async def test_a_killed_driver_stops_renewing(tmp_path: Path, api: StubApi) -> None:
    async with started(tmp_path, *K8S, "reward_model.lease_ttl_s=3", FAKE_TRAINER="wait") as program:
        await program.config()
        program.process.kill()
        await program.end()
    assert len(leases(api)) == 1, "nobody is left to delete it; the operator sees it expire"


async def one_sentence(tmp_path: Path, *overrides: str) -> str:
    """The plugin's only error line; the run must end with status 1 within 10 s of the plugin's first word."""
    async with started(tmp_path, *overrides) as program:
        assert program.process.stderr is not None
        first = await asyncio.wait_for(program.process.stderr.readline(), 30)
        began = time.monotonic()
        code, out, rest = await program.end()
    assert time.monotonic() - began < 10
    assert (code, out) == (1, "")
    lines = (first.decode() + rest).strip().splitlines()
    assert all(line.startswith("genrm: ") for line in lines), lines
    errors = [line for line in lines if not line.startswith("genrm: looking for")]
    assert len(errors) == 1, lines
    return errors[0]


async def test_an_unknown_name_ends_the_run_with_one_sentence(tmp_path: Path, api: StubApi) -> None:
    sentence = await one_sentence(tmp_path, "reward_model.discovery=k8s", "reward_model.name=jugde")
    assert sentence == (
        "genrm: there is no RewardModel or RewardFleet jugde in namespace rl; did you mean judge? There are: judge"
    )


async def test_a_cluster_that_is_away_ends_the_run_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")))
    sentence = await one_sentence(tmp_path, *K8S)
    assert "the Kubernetes API at http://127.0.0.1:1" in sentence
    assert "does not answer" in sentence


@pytest.mark.parametrize(("verb", "resource"), [
    ("get", "rewardmodels.genrm.dev"),
    ("list", "endpointslices.discovery.k8s.io"),
    ("create", "leases.coordination.k8s.io"),
])  # fmt: skip
async def test_missing_rights_end_the_run_with_one_sentence(
    tmp_path: Path, api: StubApi, verb: str, resource: str
) -> None:
    api.denied[verb] = 403
    sentence = await one_sentence(tmp_path, *K8S)
    assert f"not allowed (403): {verb} {resource} in namespace rl" in sentence
    assert "genrm-client" in sentence


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["reward_model.discovery=bogus"], "reward_model.discovery: found 'bogus'; write k8s or static"),
        ([*K8S, "reward_model.enable=True"], "reward_model.enable: starts a reward model inside the job"),
    ],
)
async def test_what_cannot_be_honoured_ends_the_run_with_one_sentence(
    tmp_path: Path, overrides: list[str], sentence: str
) -> None:
    async with started(tmp_path, *overrides) as program:
        code, _, errors = await program.end()
    assert code == 1
    assert f"genrm: {sentence}" in errors
    assert "Traceback" not in errors


def fleet(*models: str, **term: Any) -> dict[str, Any]:
    terms = [{"name": "format", "rule": {"kind": "length", "maximum": 100}}]
    terms += [{"name": f"by-{name}".replace("-", "_"), "rewardModel": {"name": name}, **term} for name in models]
    return {"kind": "RewardFleet", "apiVersion": "genrm.dev/v1alpha1", "spec": {"terms": terms}}


async def test_a_run_on_a_fleet_holds_a_lease_on_each_of_its_models(tmp_path: Path, api: StubApi) -> None:
    api.put("rewardmodels", "rl", "critic", **reward_model(replicas=1))
    api.put("rewardfleets", "rl", "team", **fleet("judge", "critic"))
    of_fleet = ("reward_model.discovery=k8s", "reward_model.name=team", "reward_model.num_workers=3")
    async with started(tmp_path, *of_fleet, FAKE_TRAINER="wait") as program:
        config = await program.config()
        section = config["genrm"]
        assert (section["name"], section["coordinators"], config["reward"]["num_workers"]) == ("team", 3, 3)
        target = Target.read(section["target"])
        assert [model.name for model in target.models] == ["judge", "critic"]
        assert len({lease["metadata"]["name"] for lease in leases(api)}) == 2
        assert {lease["metadata"]["labels"]["genrm.dev/reward-model"] for lease in leases(api)} == {"judge", "critic"}
        program.process.send_signal(signal.SIGTERM)
        _, _, errors = await program.end()
    assert leases(api) == []
    assert "RewardFleet rl/team: terms format, by_judge, by_critic; behind it RewardModel rl/judge" in errors


async def test_a_run_may_write_what_of_a_fleets_breaker_it_wants_otherwise(tmp_path: Path, api: StubApi) -> None:
    team = fleet("judge")
    team["spec"]["breaker"] = {"maxFailedFraction": 0.4, "minimumCount": 64}
    api.put("rewardfleets", "rl", "team", **team)
    of_fleet = ("reward_model.discovery=k8s", "reward_model.name=team")
    for overrides, expected in [
        ((), {"maxFailedFraction": 0.4, "minimumCount": 64}),
        (("reward_model.breaker={maxFailedFraction:1}",), {"maxFailedFraction": 1, "minimumCount": 64}),
    ]:
        async with started(tmp_path, *of_fleet, *overrides) as program:
            section = (await program.config())["genrm"]
            await program.end()
        assert section["breaker"] == expected


VALUE = {"policy": "value", "value": -1.0}


async def test_a_run_may_say_itself_what_a_failure_means_and_its_record_tells_so(tmp_path: Path, api: StubApi) -> None:
    team = fleet("judge", onFailure={"policy": "value", "value": 0})
    api.put("rewardfleets", "rl", "team", **team)
    of_fleet = ("reward_model.discovery=k8s", "reward_model.name=team")
    for name, overrides, coordinators, told in [
        ("model", K8S, 0, "value -1, by reward_model.on_failure in place of drop; run"),
        ("fleet", of_fleet, 8, "value -1, by reward_model.on_failure in place of drop, value 0 of term by_judge; run"),
    ]:
        (folder := tmp_path / name).mkdir()
        async with started(folder, *overrides, "reward_model.on_failure={policy:value,value:-1}") as program:
            section = (await program.config())["genrm"]
            code, _, errors = await program.end()
        assert code == 0 and f"; a score that fails: {told}" in errors
        assert (section["on_failure"], section["coordinators"], section["settles"]) == (VALUE, coordinators, False)
        target = Target.read(section["target"])
        assert (target.on_failure.policy, target.on_failure.value) == ("value", -1)
        assert target.resource.spec != target.scored_by.spec, "what the cluster says is kept beside it"


async def test_a_failure_policy_that_is_none_ends_the_run_before_it_starts(tmp_path: Path, api: StubApi) -> None:
    async with started(tmp_path, *K8S, "reward_model.on_failure={policy:value}") as program:
        code, out, errors = await program.end()
    assert (code, out) == (1, "")
    assert errors.strip() == (
        "genrm: reward_model.on_failure.value: missing under policy value; write the score of a failed judgement"
    )
    assert leases(api) == []


async def test_a_fleet_that_names_a_model_which_is_not_there_ends_the_run(tmp_path: Path, api: StubApi) -> None:
    api.put("rewardfleets", "rl", "team", **fleet("critic"))
    sentence = await one_sentence(tmp_path, "reward_model.discovery=k8s", "reward_model.name=team")
    assert sentence == "genrm: there is no RewardModel critic in namespace rl; there are: judge"
    assert leases(api) == []


async def test_code_of_a_config_map_runs_only_if_the_run_has_read_it(tmp_path: Path, api: StubApi) -> None:
    text = "def f(response, ground_truth):\n    return 1.0\n"
    rule = {"kind": "python", "function": "f", "configMap": {"name": "own"}}
    spec = {"terms": [{"name": "own", "rule": rule}]}
    api.put("rewardfleets", "rl", "team", kind="RewardFleet", apiVersion="genrm.dev/v1alpha1", spec=spec)
    team = ("reward_model.discovery=k8s", "reward_model.name=team")
    assert "there is no ConfigMap rl/own" in await one_sentence(tmp_path, *team)
    api.put("configmaps", "rl", "own", data={"other.py": text})
    assert "has no key rules.py; it has other.py" in await one_sentence(tmp_path, *team)
    api.put("configmaps", "rl", "own", data={"rules.py": text})
    digest = hashlib.sha256(text.encode()).hexdigest()
    sentence = await one_sentence(tmp_path, *team)
    assert f"write reward_model.allow_cluster_code={digest}" in sentence
    async with started(tmp_path, *team, f"reward_model.allow_cluster_code='{digest}'") as program:
        section = (await program.config())["genrm"]
        code, _, errors = await program.end()
    assert code == 0 and "needs no Lease" in errors
    assert Target.read(section["target"]).code == {"own/rules.py": text}


async def test_code_around_a_model_runs_only_if_the_run_has_read_it(tmp_path: Path, api: StubApi) -> None:
    text = "def read(result):\n    return 1.0\n"
    named = {"function": "read", "configMap": {"name": "own"}}
    judge = reward_model(replicas=1)
    judge["spec"]["scoring"] = {"template": "{{ response }}", "postprocess": named}
    api.put("rewardmodels", "rl", "judge", **judge)
    api.put("configmaps", "rl", "own", data={"rules.py": text})
    digest = hashlib.sha256(text.encode()).hexdigest()
    sentence = await one_sentence(tmp_path, *K8S)
    assert sentence.startswith("genrm: RewardModel judge spec.scoring.postprocess.configMap: its code would run with")
    assert f"write reward_model.allow_cluster_code={digest}" in sentence
    async with started(tmp_path, *K8S, f"reward_model.allow_cluster_code='{digest}'") as program:
        section = (await program.config())["genrm"]
        await program.end()
    assert Target.read(section["target"]).code == {"own/rules.py": text}


async def test_a_function_that_the_run_does_not_bring_ends_it_before_anything_starts(
    tmp_path: Path, api: StubApi
) -> None:
    judge = reward_model(replicas=1)
    judge["spec"]["scoring"] = {"template": "{{ response }}", "postprocess": {"function": "read"}}
    api.put("rewardmodels", "rl", "judge", **judge)
    where = "genrm: RewardModel judge spec.scoring.postprocess.function:"
    assert await one_sentence(tmp_path, *K8S) == f"{where} read is wanted, and no Python file was given"
    (tmp_path / "mine.py").write_text("def reads(result): pass\n")
    assert "mine.py has no function read" in await one_sentence(tmp_path, *K8S, "reward_model.rules=mine.py")
    assert leases(api) == []


async def test_what_all_of_a_run_is_normalised_by_is_kept_in_one_place(tmp_path: Path, api: StubApi) -> None:
    api.put("rewardfleets", "rl", "team", **fleet("judge", normalise={"kind": "zscore", "scope": "running"}))
    async with started(tmp_path, "reward_model.discovery=k8s", "reward_model.name=team") as program:
        section = (await program.config())["genrm"]
        await program.end()
    assert (section["coordinators"], section["state"]) == (1, str(tmp_path / "checkpoints" / "genrm-running"))
    assert section["resumed_state"] is None


async def test_a_run_that_goes_on_from_a_named_checkpoint_reads_what_is_beside_it(tmp_path: Path, api: StubApi) -> None:
    api.put("rewardfleets", "rl", "team", **fleet("judge", normalise={"kind": "zscore", "scope": "running"}))
    resumed = ("+trainer.resume_mode=resume_path", "+trainer.resume_from_path=/data/first/global_step_20")
    async with started(tmp_path, "reward_model.discovery=k8s", "reward_model.name=team", *resumed) as program:
        section = (await program.config())["genrm"]
        await program.end()
    assert section["state"] == str(tmp_path / "checkpoints" / "genrm-running")
    assert section["resumed_state"] == "/data/first/genrm-running"


async def test_what_a_run_cannot_carry_out_ends_it_before_it_starts(tmp_path: Path, api: StubApi) -> None:
    normalise = {"kind": "zscore", "scope": "running"}
    api.put("rewardfleets", "rl", "team", **fleet("judge", normalise=normalise))
    team = ("reward_model.discovery=k8s", "reward_model.name=team")
    sentence = await one_sentence(tmp_path, *team, "trainer.use_v1=False")
    assert sentence.startswith("genrm: RewardFleet team spec.terms by_judge normalise.scope: running needs one state")
    assert "trainer.use_v1=True" in sentence
    scoring = {"template": "{{ respnse }}", "parse": {"kind": "number"}}
    api.put("rewardmodels", "rl", "judge", **reward_model(scoring=scoring))
    sentence = await one_sentence(tmp_path, *K8S)
    assert sentence.startswith("genrm: RewardModel judge spec.scoring.template: ")
    assert leases(api) == []


async def test_multirun_is_refused(tmp_path: Path) -> None:
    async with started(tmp_path, "--multirun", *STATIC) as program:
        code, _, errors = await program.end()
    assert code == 1
    assert "--multirun" in errors
