"""Between the command line and the configuration that verl acts on. Pure: reads and edits configuration, nothing else.

`read_request` takes what the user wrote under `reward_model` and refuses, with a sentence, what cannot be honoured:
verl 0.9 itself composes its legacy keys and then silently ignores them. `apply` writes the resolved `RunSection` as the
top-level section `genrm` (verl 0.7 and 0.8 delete `reward_model`), points verl's reward manager at ours, and loads our
plugin module in every Ray worker, beside whatever the user loads there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from genrm_api.judging import OnFailure
from genrm_api.leases import DEFAULT_TTL_SECONDS
from genrm_api.rewardfleet import FleetBreaker
from genrm_api.rewardmodel import EngineName
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.gathering import PATIENCE
from genrm_scoring.run_policy import policy_of
from omegaconf import DictConfig, OmegaConf, open_dict
from pydantic import ValidationError

from genrm_verl.overlay import REWARD_MODEL_KEYS

SECTION: Final = "genrm"
PLUGIN_MODULE: Final = "genrm_verl.plugin"
EXTERNAL_MODULES: Final = "VERL_USE_EXTERNAL_MODULES"
RUN_VARIABLE: Final = "GENRM_RUN"
MANAGER_MODULE: Final = "pkg://genrm_verl.reward_manager"
STATE_FOLDER: Final = "genrm-running"
MANAGER_CLASS: Final = "GenrmRewardManager"

_WHY: Final = {
    "reward_model.enable": "starts a reward model inside the job; remove it, or remove reward_model.discovery",
    "reward_model.reward_manager": "reward_model.discovery brings its own reward manager; remove one of the two",
    "custom_reward_function.path": "reward_model.discovery takes the reward's place; remove one of the two",
}


@dataclass(frozen=True, slots=True)
class RewardRequest:
    """What the user asked for, checked for form only."""

    discovery: str
    name: str | None
    namespace: str | None
    endpoints: tuple[str, ...]
    served_name: str | None
    engine: str
    scoring: Mapping[str, Any]
    rules: tuple[str, ...]
    secrets: str | None
    allow_cluster_code: tuple[str, ...]
    judgement_log: str | None
    on_failure: OnFailure | None
    """The run's own, in place of those of what it is scored by."""
    breaker: Mapping[str, Any]
    """What the run writes of it, in the words of a RewardFleet's spec.breaker."""
    patience_s: float
    state: str | None
    """Where what a run learns is kept; None in verl's old trainer, whose samples know no step."""
    resumed_state: str | None
    """Where that of the run is which this one goes on with, if it names it."""
    lease_ttl_s: int
    prewake: bool
    num_workers: int | None


@dataclass(frozen=True, slots=True)
class RunSection:
    """The section `genrm`: all that the processes of a run must know, resolved once for the whole run.

    With discovery k8s `target` is the `Target`, as text, and `name` and `namespace` are for those who read. With static
    discovery there is none, and `served_name`, `engine` and `scoring` (of `reward_model.scoring`) are in its place.
    """

    run: str
    discovery: str
    name: str | None = None
    namespace: str | None = None
    target: str | None = None
    served_name: str | None = None
    engine: str | None = None
    scoring: dict[str, Any] | None = None
    endpoints: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    secrets: str | None = None
    judgement_log: str | None = None
    on_failure: dict[str, Any] | None = None
    """What the run wrote in place of the policies of what it is scored by, for those who read: `target` has it, too,
    and `scoring`."""
    breaker: dict[str, Any] = field(default_factory=dict)
    """As a RewardFleet's spec.breaker; what is not written has its default."""
    patience_s: float = PATIENCE
    coordinators: int = 0
    """Processes in which the responses to one prompt meet; none where nothing of one depends on another."""
    settles: bool = False
    """Reward workers judge, and only whether a group keeps enough scores is found out where its members meet."""
    state: str | None = None
    """Folder of the states of running normalisation, one file a step; for fleets that have any."""
    resumed_state: str | None = None
    """The same of the run that this one goes on with, where that is named."""
    lease_ttl_s: int = DEFAULT_TTL_SECONDS
    prewake: bool = False

    @property
    def judge(self) -> str:
        """The name of what is asked, where that is one model."""
        return self.name or self.served_name or ""

    @classmethod
    def of(cls, config: DictConfig) -> Self | None:
        """The section in a run's configuration, `None` if it was not translated."""
        section = config.get(SECTION)
        if section is None:
            return None
        return cls.read(OmegaConf.to_container(section, resolve=True) if isinstance(section, DictConfig) else section)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        found = {**values, "endpoints": tuple(values["endpoints"]), "rules": tuple(values["rules"])}
        if isinstance(found.get("scoring"), str):
            found["scoring"] = json.loads(found["scoring"])
        return cls(**found)


def read_request(config: DictConfig) -> RewardRequest | None:
    """What the user asked for; `None` if nothing.

    Raises:
        ConfigurationError: something under `reward_model` or beside it cannot be honoured.
    """
    section = config.get("reward_model") or {}
    ours: dict[str, Any] = {key: _plain(section.get(key)) for key in REWARD_MODEL_KEYS}
    discovery = ours["discovery"]
    if discovery is None:
        for key, value in ours.items():
            if value is not None:
                raise ConfigurationError(
                    f"reward_model.{key}", "means nothing without reward_model.discovery=k8s|static"
                )
        return None
    if discovery not in ("k8s", "static"):
        raise ConfigurationError("reward_model.discovery", f"found {discovery!r}; write k8s or static")
    for key, why in _conflicts(config):
        raise ConfigurationError(key, why)
    if "reward" not in config:
        raise ConfigurationError(
            "reward_model.discovery", "this verl has no `reward` section; install verl 0.7.1 or later"
        )
    of_static = ("endpoints", "served_name", "engine", "scoring")
    of_cluster = ("namespace", "secrets", "allow_cluster_code", "lease_ttl_s", "prewake")
    for key in of_static if discovery == "k8s" else of_cluster:
        if ours[key] is not None:
            raise ConfigurationError(f"reward_model.{key}", f"has no meaning with discovery={discovery}; remove it")
    if discovery == "k8s" and not ours["name"]:
        raise ConfigurationError(
            "reward_model.name", "missing; write the name of a RewardModel or RewardFleet (kubectl get genrm)"
        )
    if discovery == "static" and not (ours["served_name"] or ours["name"]):
        raise ConfigurationError("reward_model.served_name", "missing; write the model's name as its server knows it")
    return RewardRequest(
        discovery=discovery,
        name=ours["name"],
        namespace=ours["namespace"],
        endpoints=_endpoints(ours["endpoints"]) if discovery == "static" else (),
        served_name=ours["served_name"] or ours["name"],
        engine=_engine(ours["engine"]),
        scoring=_scoring(ours["scoring"]),
        rules=_paths("rules", ours["rules"]),
        secrets=_path("secrets", ours["secrets"]),
        allow_cluster_code=_hashes(ours["allow_cluster_code"]),
        judgement_log=_path("judgement_log", ours["judgement_log"]),
        on_failure=_on_failure(ours["on_failure"], ours["scoring"]),
        breaker=_breaker(ours["breaker"]),
        patience_s=_seconds("patience_s", ours["patience_s"]),
        state=_state_folder(config),
        resumed_state=_resumed_state_folder(config),
        lease_ttl_s=_ttl(ours["lease_ttl_s"]),
        prewake=_flag("prewake", ours["prewake"]),
        num_workers=section.get("num_workers"),
    )


def apply(config: DictConfig, section: RunSection, request: RewardRequest, environment: Mapping[str, str]) -> None:
    """Make verl's configuration say what the request means. `environment` is the driver's own."""
    with open_dict(config):
        written = {**asdict(section), "endpoints": list(section.endpoints), "rules": list(section.rules)}
        config[SECTION] = {**written, "scoring": None if section.scoring is None else _as_text(section.scoring)}
        manager = config.reward.reward_manager
        manager.source = "importlib"
        manager.name = MANAGER_CLASS
        manager.module.path = MANAGER_MODULE
        manager.module.name = MANAGER_CLASS
        config.reward.num_workers = workers(config, request)
        ray_init = config.ray_kwargs.ray_init
        if ray_init.get("runtime_env") is None:
            ray_init.runtime_env = {}
        theirs = dict(ray_init.runtime_env.get("env_vars") or {})
        modules = theirs.get(EXTERNAL_MODULES) or environment.get(EXTERNAL_MODULES) or ""
        ray_init.runtime_env.env_vars = {
            **theirs,
            EXTERNAL_MODULES: _with_module(modules, PLUGIN_MODULE),
            RUN_VARIABLE: section.run,
        }


def _as_text(scoring: Mapping[str, Any]) -> str:
    """JSON: OmegaConf would take `${` in a template for an interpolation of its own."""
    return json.dumps(scoring, ensure_ascii=True).replace("$", "\\u0024")  # only texts can hold one


def workers(config: DictConfig, request: RewardRequest) -> int:
    """How many reward workers verl starts."""
    return int(config.reward.num_workers if request.num_workers is None else request.num_workers)


def group_size(config: DictConfig, validate: bool | None) -> int:
    """How many responses there are to a prompt; while nobody knows whether it is one of validation: of training."""
    rollout = config.actor_rollout_ref.rollout
    return int(rollout.val_kwargs.n if validate else rollout.n)


def drops_kill_the_run(config: DictConfig) -> bool:
    """verl's old trainer stops at the first exception of a reward worker; the new one trains on the other samples."""
    return not OmegaConf.select(config, "trainer.use_v1", default=False)


def scores_all_the_time(config: DictConfig) -> bool:
    """In verl's asynchronous modes rollouts, and with them judgements, never pause between steps."""
    new_trainer = bool(OmegaConf.select(config, "trainer.use_v1", default=False))
    return new_trainer and OmegaConf.select(config, "trainer.v1.trainer_mode", default="sync") != "sync"


def _conflicts(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Keys that verl 0.9 ignores, or that contradict `reward_model.discovery`; with a sentence each."""
    known = {f"reward_model.{key}" for key in (*REWARD_MODEL_KEYS, "num_workers")}
    for key, value in _leaves(config.get("reward_model"), "reward_model"):
        if not any(key == k or key.startswith(f"{k}.") for k in known) and value is not None and value is not False:
            yield key, _WHY.get(key, "has no effect with reward_model.discovery; remove it")
    for top in ("custom_reward_function", "sandbox_fusion"):
        for key, value in _leaves(config.get(top), top):
            if value is not None:
                yield key, _WHY.get(key, "has no effect with reward_model.discovery; remove it")
    reward = config.get("reward") or {}
    if OmegaConf.select(reward, "reward_model.enable"):
        yield "reward.reward_model.enable", _WHY["reward_model.enable"]
    if OmegaConf.select(reward, "custom_reward_function.path") is not None:
        yield "reward.custom_reward_function.path", _WHY["custom_reward_function.path"]
    manager = reward.get("reward_manager") or {}
    if (manager.get("source", "register"), manager.get("name", "naive")) != ("register", "naive"):
        yield "reward.reward_manager", _WHY["reward_model.reward_manager"]
    if reward.get("reward_kwargs"):
        yield "reward.reward_kwargs", "has no effect with reward_model.discovery; remove it"


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, DictConfig):
        for key in node:
            yield from _leaves(node[key], f"{path}.{key}")
    else:
        yield path, node


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _endpoints(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ConfigurationError("reward_model.endpoints", f"found {value!r}; write [http://host:port,...]")
    for url in value:
        parts = urlsplit(str(url))
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigurationError("reward_model.endpoints", f"{url!r} is no base URL; write http://host:port")
    return tuple(str(url).rstrip("/").removesuffix("/v1") for url in value)


def _engine(value: Any) -> str:
    if value is None:
        return EngineName.VLLM.value
    if value not in tuple(EngineName):
        raise ConfigurationError("reward_model.engine", f"found {value!r}; write {', '.join(EngineName)}")
    return str(value)


def _scoring(value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigurationError(
            "reward_model.scoring", f"found {value!r}; write keys of spec.scoring: {{timeout: 60s}}"
        )
    return value


def _on_failure(value: Any, scoring: Any) -> OnFailure | None:
    if value is None:
        return None
    policy = policy_of(value, "reward_model.on_failure")
    if isinstance(scoring, dict) and scoring.get("onFailure") is not None:
        raise ConfigurationError(
            "reward_model.on_failure", "found beside reward_model.scoring.onFailure; write one of them"
        )
    return policy


def _breaker(value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigurationError(
            "reward_model.breaker",
            f"found {value!r}; write what spec.breaker is in a RewardFleet: {{maxFailedFraction: 0.2}}",
        )
    try:
        FleetBreaker.model_validate(value)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(["reward_model.breaker", *map(str, first["loc"])])
        raise ConfigurationError(where, first["msg"]) from None
    return value


def _ttl(value: Any) -> int:
    if value is None:
        return DEFAULT_TTL_SECONDS
    if not isinstance(value, int) or value < 3:
        raise ConfigurationError("reward_model.lease_ttl_s", f"found {value!r}; write whole seconds, at least 3")
    return value


def _flag(key: str, value: Any) -> bool:
    if value not in (None, True, False):
        raise ConfigurationError(f"reward_model.{key}", f"found {value!r}; write true or false")
    return bool(value)


def _state_folder(config: DictConfig) -> str | None:
    checkpoints = OmegaConf.select(config, "trainer.default_local_dir")
    if checkpoints is None or drops_kill_the_run(config):
        return None
    return str(Path(str(checkpoints)).absolute() / STATE_FOLDER)


def _resumed_state_folder(config: DictConfig) -> str | None:
    """verl may be told to go on from one checkpoint, `<run>/global_step_<n>`, of this run or another."""
    checkpoint = OmegaConf.select(config, "trainer.resume_from_path")
    if checkpoint is None or OmegaConf.select(config, "trainer.resume_mode") != "resume_path":
        return None
    return str(Path(str(checkpoint)).absolute().parent / STATE_FOLDER)


def _paths(key: str, value: Any) -> tuple[str, ...]:
    found = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(path for one in found if (path := _path(key, one)) is not None)


def _path(key: str, value: Any) -> str | None:
    """Absolute: Ray's workers have another working directory."""
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"reward_model.{key}", f"found {value!r}; write a path")
    return str(Path(value).absolute())


def _hashes(value: Any) -> tuple[str, ...]:
    found = [] if value is None else value if isinstance(value, list) else [value]
    for one in found:
        # Digits alone are a number to Hydra, and leading zeros are gone: such a hash needs quotes.
        if not isinstance(one, str) or not re.fullmatch("[0-9a-f]{64}", one):
            raise ConfigurationError(
                "reward_model.allow_cluster_code", f"found {one!r}; write a SHA-256 in quotes, or several"
            )
    return tuple(found)


def _seconds(key: str, value: Any) -> float:
    if value is None:
        return PATIENCE
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(f"reward_model.{key}", f"found {value!r}; write seconds, more than 0")
    return float(value)


def _with_module(modules: str, ours: str) -> str:
    theirs = [m.strip() for m in modules.split(",") if m.strip()]
    return ",".join([*theirs, *([] if ours in theirs else [ours])])
