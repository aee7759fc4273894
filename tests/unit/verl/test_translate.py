"""Every key that verl would silently ignore is honoured or refused."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from genrm_scoring.errors import ConfigurationError
from genrm_verl.overlay import OVERLAY
from genrm_verl.preflight import run_id, static_section
from genrm_verl.translate import (
    RunSection,
    apply,
    drops_kill_the_run,
    group_size,
    read_request,
    scores_all_the_time,
)
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

STATIC = {"discovery": "static", "endpoints": ["http://a:1"], "served_name": "judge"}


def config(reward_model: dict[str, Any], **more: Any) -> DictConfig:
    base = {
        "reward_model": {**OVERLAY["reward_model"], "num_workers": None, "reward_manager": None, "enable": None,
                         "model": {"path": None}},
        "custom_reward_function": {"path": None, "name": None},
        "sandbox_fusion": {"url": None},
        "reward": {"num_workers": 8, "custom_reward_function": {"path": None},
                   "reward_manager": {"source": "register", "name": "naive", "module": {"path": None, "name": "x"}},
                   "reward_model": {"enable": False}},
        "ray_kwargs": {"ray_init": {}},
        "trainer": {"use_v1": True, "v1": {"trainer_mode": "sync"}},
    }  # fmt: skip
    made = OmegaConf.merge(base, {"reward_model": reward_model}, more)
    assert isinstance(made, DictConfig)
    OmegaConf.set_struct(made, True)
    return made


def test_no_discovery_no_request() -> None:
    assert read_request(config({})) is None
    assert read_request(OmegaConf.create({"some": "other program"})) is None


@pytest.mark.parametrize(
    ("reward_model", "more", "field"),
    [
        ({"enable": True}, {}, "reward_model.enable"),
        ({"reward_manager": "dapo"}, {}, "reward_model.reward_manager"),
        ({"model": {"path": "/m"}}, {}, "reward_model.model.path"),
        ({"something": 1}, {}, "reward_model.something"),
        ({"discovery": None}, {}, "reward_model.endpoints"),
        ({"discovery": "k8s", "endpoints": None, "served_name": None}, {}, "reward_model.name"),
        ({"endpoints": "judge"}, {}, "reward_model.endpoints"),
        ({"lease_ttl_s": 30}, {}, "reward_model.lease_ttl_s"),
        ({"prewake": True}, {}, "reward_model.prewake"),
        ({"namespace": "rl"}, {}, "reward_model.namespace"),
        ({"endpoints": []}, {}, "reward_model.endpoints"),
        ({"endpoints": ["a:1"]}, {}, "reward_model.endpoints"),
        ({"served_name": None}, {}, "reward_model.served_name"),
        ({"engine": "tgi"}, {}, "reward_model.engine"),
        ({"scoring": "fast"}, {}, "reward_model.scoring"),
        ({}, {"custom_reward_function": {"path": "f.py"}}, "custom_reward_function.path"),
        ({}, {"sandbox_fusion": {"url": "http://x"}}, "sandbox_fusion.url"),
        ({}, {"reward": {"reward_model": {"enable": True}}}, "reward.reward_model.enable"),
        ({}, {"reward": {"custom_reward_function": {"path": "f.py"}}}, "reward.custom_reward_function.path"),
        ({}, {"reward": {"reward_manager": {"name": "dapo"}}}, "reward.reward_manager"),
        ({}, {"reward": {"reward_kwargs": {"overlong": 1}}}, "reward.reward_kwargs"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(
    reward_model: dict[str, Any], more: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_request(config({**STATIC, **reward_model}, **more))
    assert refused.value.field == field


@pytest.mark.parametrize("key", ["secrets", "allow_cluster_code"])
def test_keys_of_a_cluster_are_refused_with_static_discovery(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"reward_model.{key}: has no meaning with discovery=static"):
        read_request(config({**STATIC, key: "/some/path"}))


@pytest.mark.parametrize("key", ["endpoints", "served_name", "engine", "scoring"])
def test_keys_of_static_discovery_are_refused_with_k8s(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"reward_model.{key}: has no meaning with discovery=k8s"):
        read_request(config({"discovery": "k8s", "name": "judge", key: STATIC.get(key, {"timeout": "1s"})}))


@pytest.mark.parametrize("patience", [0, -1, "30s", True])
def test_patience_is_seconds(patience: Any) -> None:
    with pytest.raises(ConfigurationError, match="patience_s: found"):
        read_request(config({**STATIC, "patience_s": patience}))


@pytest.mark.parametrize(
    ("scoring", "coordinators", "settles"),
    [
        ({}, 8, True),
        ({"onFailure": {"policy": "drop"}}, 8, True),
        ({"normalise": "none"}, 8, True),
        ({"onFailure": {"policy": "value", "value": 0}}, 0, False),
        ({"normalise": "zscore"}, 8, False),
        ({"mode": "pairwise"}, 8, False),
        ({"mode": "listwise"}, 8, False),
        ({"onFailure": {"policy": "group_mean"}}, 8, False),
        ({"onFailure": {"policy": "group_drop"}}, 8, False),
        ({"onFailure": {"policy": "raise"}}, 8, False),
    ],
)
def test_responses_meet_where_one_counts_for_the_other(
    scoring: dict[str, Any], coordinators: int, settles: bool
) -> None:
    request = read_request(config({**STATIC, "scoring": scoring}))
    assert request is not None
    section = static_section(request, "run-1", 8)
    assert (section.coordinators, section.settles) == (coordinators, settles)


def test_a_template_in_a_file_reaches_the_run_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "A ${cost} of \\\\boxed{1}? {{ response }}\n"
    Path("judge.j2").write_text(text)
    made = config({**STATIC, "scoring": {"templateFile": "judge.j2", "parse": {"kind": "number"}}})
    request = read_request(made)
    assert request is not None
    apply(made, static_section(request, "run-1", 8), request, {})
    section = RunSection.of(made)
    assert section is not None and section.scoring is not None
    assert section.scoring["template"] == text and "templateFile" not in section.scoring
    Path("judge.j2").unlink()
    with pytest.raises(ConfigurationError, match=r"scoring.templateFile: .*judge.j2 cannot be read: No such"):
        static_section(request, "run-1", 8)


def test_a_run_brings_its_functions_whoever_finds_its_endpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.py").write_text("def ask(response): pass\ndef read(result): pass\n")
    Path("b.py").write_text("def read(result): pass\n")
    functions = {"preprocess": {"function": "a.ask"}, "postprocess": {"function": "b.read"}}
    for rules, sentence in [
        (["a.py", "b.py"], None),
        ("a.py", "reward_model.scoring.postprocess.function: b.read: no file b.py was given"),
        (None, "reward_model.scoring.preprocess.function: a.ask is wanted, and no Python file was given"),
    ]:
        made = config({**STATIC, "scoring": functions, "rules": rules})
        request = read_request(made)
        assert request is not None
        if sentence is not None:
            with pytest.raises(ConfigurationError, match=sentence):
                static_section(request, "run-1", 8)
            continue
        section = static_section(request, "run-1", 8)
        apply(made, section, request, {})
        assert RunSection.of(made) == section
        assert section.rules == (str(tmp_path / "a.py"), str(tmp_path / "b.py"))


def test_half_of_a_judge_of_ones_own_is_refused_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def ask(response): pass\n")
    scoring = {"preprocess": {"function": "ask"}}
    request = read_request(config({**STATIC, "scoring": scoring, "rules": str(tmp_path / "a.py")}))
    assert request is not None
    with pytest.raises(ConfigurationError, match=r"reward_model\.scoring\.preprocess: who asks a model"):
        static_section(request, "run-1", 8)


def test_a_template_that_cannot_work_is_refused_by_its_key() -> None:
    scoring = {"template": "{{ respnse }}", "parse": {"kind": "number"}}
    request = read_request(config({**STATIC, "scoring": scoring}))
    assert request is not None
    with pytest.raises(ConfigurationError, match=r"reward_model\.scoring\.template"):
        static_section(request, "run-1", 8)


def test_labels_that_the_server_takes_apart_are_refused_by_their_key_and_a_server_that_is_away_is_not_asked() -> None:
    class Letters(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps({"tokens": list(map(ord, asked["prompt"]))}).encode()
            self.send_response(200 if self.path == "/tokenize" else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    def section(port: int, **values: float) -> RunSection:
        scoring = {"template": "{{ response }}", "parse": {"kind": "logprob", "values": values}}
        request = read_request(config({**STATIC, "endpoints": [f"http://127.0.0.1:{port}"], "scoring": scoring}))
        assert request is not None
        return static_section(request, "run-1", 8)

    with ThreadingHTTPServer(("127.0.0.1", 0), Letters) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        assert section(server.server_port, A=1, B=0)
        with pytest.raises(ConfigurationError, match=r"reward_model\.scoring\.parse\.values: 'good', 'bad' are more"):
            section(server.server_port, good=1, bad=0)
        server.shutdown()
    assert section(1, good=1, bad=0)


@pytest.mark.parametrize(("validate", "size"), [(True, 2), (False, 4), (None, 4)])
def test_a_prompt_has_as_many_responses_as_verl_samples(validate: bool | None, size: int) -> None:
    made = OmegaConf.create({"actor_rollout_ref": {"rollout": {"n": 4, "val_kwargs": {"n": 2}}}})
    assert group_size(made, validate) == size


@pytest.mark.parametrize("ttl", [0, 2, "30s", 2.5])
def test_a_ttl_is_whole_seconds(ttl: Any) -> None:
    with pytest.raises(ConfigurationError, match="lease_ttl_s"):
        read_request(config({"discovery": "k8s", "name": "judge", "lease_ttl_s": ttl}))


@pytest.mark.parametrize("approved", ["yes", 7, ["a" * 63], "A" * 64])
def test_code_is_approved_by_its_hash(approved: Any) -> None:
    with pytest.raises(ConfigurationError, match="allow_cluster_code: found"):
        read_request(config({"discovery": "k8s", "name": "team", "allow_cluster_code": approved}))


@pytest.mark.parametrize(
    ("breaker", "field"),
    [
        (0.5, "reward_model.breaker"),
        ({"maxFailedFraction": 0}, "reward_model.breaker.maxFailedFraction"),
        ({"maxFailedFraction": 20}, "reward_model.breaker.maxFailedFraction"),
        ({"minimumCount": 0}, "reward_model.breaker.minimumCount"),
        ({"minimumCount": 1.5}, "reward_model.breaker.minimumCount"),
        ({"max_failed_fraction": 0.5}, "reward_model.breaker.max_failed_fraction"),
    ],
)
def test_a_breaker_is_what_a_fleets_is(breaker: Any, field: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_request(config({**STATIC, "breaker": breaker}))
    assert refused.value.field == field


def test_a_run_on_one_judge_has_the_breaker_that_it_writes() -> None:
    for written in (None, {"maxFailedFraction": 0.5}):
        made = config({**STATIC, "breaker": written})
        request = read_request(made)
        assert request is not None
        apply(made, static_section(request, "run-1", 8), request, {})
        section = RunSection.of(made)
        assert section is not None and section.breaker == (written or {})


@pytest.mark.parametrize("discovery", ["static", "k8s"])
@pytest.mark.parametrize(
    ("on_failure", "field"),
    [
        ("drop", "reward_model.on_failure"),
        ({}, "reward_model.on_failure"),
        ({"value": -1}, "reward_model.on_failure"),
        ({"policy": "ignore"}, "reward_model.on_failure.policy"),
        ({"policy": "value"}, "reward_model.on_failure.value"),
        ({"policy": "raise", "value": 0}, "reward_model.on_failure.value"),
        ({"policy": "drop", "minimumCount": 3}, "reward_model.on_failure.minimumCount"),
    ],
)
def test_a_runs_failure_policy_is_what_a_resources_is(discovery: str, on_failure: Any, field: str) -> None:
    of = STATIC if discovery == "static" else {"discovery": "k8s", "name": "team"}
    with pytest.raises(ConfigurationError) as refused:
        read_request(config({**of, "on_failure": on_failure}))
    assert refused.value.field == field


def test_a_run_on_endpoints_says_once_what_a_failure_means() -> None:
    policy = {"policy": "value", "value": -1.0}
    twice = {**STATIC, "on_failure": policy, "scoring": {"onFailure": {"policy": "drop"}}}
    with pytest.raises(
        ConfigurationError, match=r"on_failure: found beside reward_model\.scoring\.onFailure; write one"
    ):
        read_request(config(twice))
    made = config({**STATIC, "on_failure": policy, "scoring": {"timeout": "9s"}})
    request = read_request(made)
    assert request is not None
    apply(made, static_section(request, "run-1", 8), request, {})
    section = RunSection.of(made)
    assert section is not None and section.scoring is not None
    assert section.scoring["onFailure"] == section.on_failure == policy and section.scoring["timeout"] == "9s"
    assert (section.coordinators, section.settles) == (0, False), "as if the scoring said so"


@pytest.mark.parametrize("prewake", ["soon", 3, 0.5])
def test_prewake_is_true_or_false(prewake: Any) -> None:
    with pytest.raises(ConfigurationError, match="prewake: found"):
        read_request(config({"discovery": "k8s", "name": "judge", "prewake": prewake}))


def test_enable_false_is_what_discovery_means_anyway() -> None:
    assert read_request(config({**STATIC, "enable": False})) is not None


def test_the_legacy_number_of_workers_is_honoured() -> None:
    made = config({**STATIC, "num_workers": 3})
    request = read_request(made)
    assert request is not None
    apply(made, static_section(request, "run-1", 8), request, {})
    assert made.reward.num_workers == 3


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_section_comes_back_from_the_configuration_as_it_went_in(engine: str) -> None:
    made = config({**STATIC, "engine": engine})
    request = read_request(made)
    assert request is not None
    section = static_section(request, "run-1", 8)
    apply(made, section, request, {})
    assert RunSection.of(made) == section and section.engine == engine
    assert RunSection.of(config({})) is None


def test_modules_from_the_drivers_environment_are_kept_and_ours_is_added_once() -> None:
    for given_modules, expected in (("", "genrm_verl.plugin"), ("a,b", "a,b,genrm_verl.plugin"),
                                    ("genrm_verl.plugin,a", "genrm_verl.plugin,a")):  # fmt: skip
        made = config(STATIC)
        request = read_request(made)
        assert request is not None
        apply(made, static_section(request, "run-1", 8), request, {"VERL_USE_EXTERNAL_MODULES": given_modules})
        assert expected == made.ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES


@pytest.mark.parametrize(
    ("trainer", "always", "deadly"),
    [
        ({"use_v1": True, "v1": {"trainer_mode": "sync"}}, False, False),
        ({"use_v1": True, "v1": {"trainer_mode": "separate_async"}}, True, False),
        ({"use_v1": False, "v1": {"trainer_mode": "separate_async"}}, False, True),
        ({"use_v1": True}, False, False),
        ({}, False, True),
    ],
)
def test_the_trainers_mode_decides_how_it_scores(trainer: dict[str, Any], always: bool, deadly: bool) -> None:
    made = OmegaConf.create({"trainer": trainer})
    assert (scores_all_the_time(made), drops_kill_the_run(made)) == (always, deadly)


@given(st.text(max_size=200))
def test_a_run_id_is_readable_and_its_own(experiment: str) -> None:
    one, other = run_id(experiment), run_id(experiment)
    assert one != other
    assert len(one) < 100
    assert one.isascii()
    assert " " not in one
