"""What the operator needs to know of an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from genrm_api.rewardmodel import RewardModel

from genrm_operator.settings import Settings


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
    """One HTTP call to an engine's admin route."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)


class Adapter(Protocol):
    """`has_door`: the launcher puts our door in front, so the engine can be slept, woken and verified."""

    has_door: bool

    def container(self, rm: RewardModel, settings: Settings) -> Container:
        """Describe the engine's container.

        Raises:
            Impossible: the spec passes the schema but this engine cannot do it.
        """

    def sleep(self, rm: RewardModel) -> Call: ...

    def wake(self, rm: RewardModel) -> Call: ...

    def is_asleep(self) -> Call:
        """A call that answers `{"is_sleeping": bool}`."""
