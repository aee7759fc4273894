"""What the operator needs to know of an engine.

An adapter is data wherever it can be: what its container looks like, which calls in which order put it to sleep and
wake it, what it can do at all. Carrying the calls out is `transitions`' business, so an adapter does no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from genrm_api.effective import effective_spec
from genrm_api.lifecycle import OnDrainTimeout, SleepMode
from genrm_api.rewardmodel import LifecycleState, RewardModel
from genrm_api.status import Reason

from genrm_operator.door_source import ARCHIVE_NAME
from genrm_operator.errors import Impossible
from genrm_operator.settings import Settings

LEADER_ADDRESS: Final = "$(LWS_LEADER_ADDRESS)"
WORKER_RANK: Final = "$(LWS_WORKER_INDEX)"
"""In arguments of an engine that spans nodes: LeaderWorkerSet sets both in each container, the kubelet reads them."""
DOOR_MOUNT: Final = "/genrm"
DOOR_FOLDER: Final = f"{DOOR_MOUNT}/door"
DOOR: Final = ("python3", f"{DOOR_FOLDER}/{ARCHIVE_NAME}")
"""What runs a script of the door's archive, its name and arguments behind."""
_SERIES: Final = re.compile(r"v?(\d+)\.(\d+)(?!\d)")
"""At the beginning of what an engine calls its version: 0.14.1, 0.14.0+cu128, 0.15.0rc1.dev3+g0123abc."""
CACHE_MOUNT: Final = "/cache"
MODEL_MOUNT: Final = "/models"


@dataclass(frozen=True, slots=True)
class Container:
    """The engine's part of the pod template; `children` adds what all engines share."""

    image: str
    command: Sequence[str]
    args: Sequence[str]
    env: Mapping[str, str]
    health_path: str
    volumes: Sequence[Mapping[str, Any]] = ()
    mounts: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP call to an engine."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Hooks:
    """What an engine without our door can be asked."""

    is_sleeping: Call
    """Answers `{"is_sleeping": bool}`."""
    in_flight: Call | None
    """Answers `{"in_flight": int}`; `None`: it does not count."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do, behind our door."""

    sleep_levels: frozenset[int] = frozenset()
    """Empty: it cannot sleep."""
    tags: tuple[str, ...] = ()
    """The parts of its memory that are released and resumed by name; empty: sleep takes all there is."""
    lets_go: bool = True
    """It stops at once with a request whose client is gone."""
    frees_expandable_segments: bool = True
    """Its sleep gives back what PyTorch has mapped in expandable segments, too."""
    bad_series: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """Major and minor version of releases that must not be told to sleep, nor serve a model that is to, and why: all of
    the series, its point releases and builds, unless it is known which of them mended it."""


class Adapter(Protocol):
    """`has_door`: the launcher puts our door in front, so the engine can be slept, woken and verified."""

    has_door: bool
    capabilities: Capabilities
    asleep: Call | None
    """An admin call that answers `{"is_sleeping": bool}`; `None`: the engine cannot say, and the door's record does."""
    guarded: Call
    """Reads what nobody may read without the operator's token: whoever is let in there has met no door."""
    running: str | None
    """The gauge in its metrics that counts the requests which it computes; `None`: nobody knows one."""
    about: Sequence[Call]
    """Open calls whose answers, maps all of them, say what this server is. One of them holds `version`."""

    def hooks(self, rm: RewardModel) -> Hooks | None:
        """What stands for the door where there is none; `None`: nothing, and it never sleeps, or a door is there."""

    def container(self, rm: RewardModel, settings: Settings) -> Container:
        """Describe the engine's container.

        Raises:
            Impossible: the spec passes the schema but this engine cannot do it.
        """

    def worker(self, rm: RewardModel, settings: Settings) -> Container:
        """Describe the container of the other ranks of an engine that spans nodes; it is not asked for anything.

        Raises:
            Impossible: as `container`.
        """

    def sleep(self, rm: RewardModel) -> Sequence[Call]:
        """The calls that put the drained engine to sleep, in order. The sequence may be begun again at any point."""

    def wake(self, rm: RewardModel) -> Sequence[Call]:
        """The calls that wake it, whatever part of a sleep was carried out."""

    def first_question(self, rm: RewardModel) -> Call | None:
        """A small request that makes the engine compute, asked before it serves; `None`: its start does that."""

    def rendering(self, rm: RewardModel, messages: Sequence[Mapping[str, str]], *, opens: bool) -> Call | None:
        """The question whose answer holds the tokens that the engine's own chat template makes of a conversation;
        `None`: there is none. `opens`: they end where the next answer begins, as a judge is asked; else with the last
        message, as a classifier is."""

    def tokenizing(self, rm: RewardModel, text: str) -> Call | None:
        """The same of a text by itself."""

    def tokens(self, answer: Any) -> tuple[int, ...]:
        """The tokens in an answer to either.

        Raises:
            ValueError, KeyError, TypeError: it holds none.
        """

    def golden_row(self, rm: RewardModel, asked: str | Sequence[int], salt: str) -> Call | None:
        """The question whose answer says what the engine computes of a text or of tokens, its caches passed by;
        `None`: there is none. `salt` differs from call to call."""

    def golden_values(self, answer: Any) -> tuple[float, ...]:
        """The numbers in such an answer: of a generative model the log-probability in nats of each token but the first,
        of a classifier what its head says, one number a label.

        Raises:
            ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration: it holds none.
        """

    def unfit(self, rm: RewardModel, about: Mapping[str, Any]) -> str | None:
        """Why the server that says this of itself must not serve the model; `None` if it may."""


def answers(adapter: Adapter, rm: RewardModel) -> bool:
    """Whether its pods say what they do, by our door or by hooks; else the kubelet's word is all there is."""
    return adapter.has_door or adapter.hooks(rm) is not None


def nodes(rm: RewardModel) -> int:
    """How many a replica spans."""
    return 1 if rm.spec.gpu is None else rm.spec.gpu.nodes


def refuse_what_it_cannot(rm: RewardModel, able: Capabilities) -> None:
    """Raise `Impossible` for a spec that asks for more than the engine can."""
    engine, level = rm.spec.engine, rm.spec.lifecycle.sleep.level
    if able.sleep_levels and level not in able.sleep_levels:
        can = " or ".join(map(str, sorted(able.sleep_levels)))
        raise Impossible(
            Reason.SLEEP_LEVEL_NOT_SUPPORTED,
            f"spec.lifecycle.sleep.level: {level} is not supported with engine {engine.name} yet; write {can}",
        )
    if not able.lets_go and rm.spec.lifecycle.sleep.on_drain_timeout is OnDrainTimeout.ABORT:
        raise Impossible(
            Reason.NOT_SUPPORTED_YET,
            f"spec.lifecycle.sleep.onDrainTimeout: Abort is not supported with engine {engine.name}, which goes on "
            "with a request whose client is gone; write Serve",
        )
    if engine.data_parallel > 1:
        raise Impossible(
            Reason.DATA_PARALLEL_NOT_SUPPORTED,
            f"spec.engine.dataParallel: {engine.data_parallel} ranks sleep and count one by one, which is not proved "
            f"with engine {engine.name} yet; write 1 and more spec.replicas",
        )


def known_bad(able: Capabilities, rm: RewardModel, about: Mapping[str, Any]) -> str | None:
    """Why this version must not serve the model."""
    return bad_sleeper(able, about) if _is_told_to_sleep(rm) else None


def _is_told_to_sleep(rm: RewardModel) -> bool:
    """Whether an order to sleep is to be expected. Other ways to rest end the engine; who shares its GPUs gives them up
    when its turn is over, though it is wanted awake."""
    effective = effective_spec(rm)
    if effective.lifecycle.sleep_mode in (SleepMode.RESTART, SleepMode.SCALE_TO_ZERO):
        return False
    never = effective.lifecycle.sleep_mode is SleepMode.NONE or effective.lifecycle.state is LifecycleState.AWAKE
    return bool(effective.slots) or not never


def bad_sleeper(able: Capabilities, about: Mapping[str, Any]) -> str | None:
    """Why the server that says this of itself must not be told to sleep."""
    version = str(about.get("version", ""))
    series = _SERIES.match(version)
    why = able.bad_series.get((int(series[1]), int(series[2]))) if series is not None else None
    return None if why is None else f"is version {version}, which {why}"


def rendering(rm: RewardModel, messages: Sequence[Mapping[str, str]], *, opens: bool) -> Call:
    """As vLLM and SGLang both take it: `TokenizeChatRequest` there, `TokenizeRequest` here. Special tokens are the
    template's business."""
    asked: dict[str, Any] = {"model": rm.served_name, "messages": messages, "add_generation_prompt": opens}
    if (words := rm.spec.scoring.sampling.chat_template_kwargs) is not None:
        asked["chat_template_kwargs"] = words
    return Call("POST", "/tokenize", body=asked)


def tokenizing(rm: RewardModel, text: str) -> Call:
    """As both take it, without the tokens that a tokenizer puts around a prompt."""
    return Call("POST", "/tokenize", body={"model": rm.served_name, "prompt": text, "add_special_tokens": False})


def tokens(answer: Any) -> tuple[int, ...]:
    return tuple(map(int, answer["tokens"]))


def flags(given: Mapping[str, object | None]) -> list[str]:
    """The arguments of a table of flags; one without a value leaves the engine its own default."""
    return [word for flag, value in given.items() if value is not None for word in (flag, str(value))]


def unexpanded(text: str | None) -> str | None:
    """The kubelet reads $(NAME) in arguments; $$ is how it is told that a text's dollar is one."""
    return None if text is None else text.replace("$(", "$$(")
