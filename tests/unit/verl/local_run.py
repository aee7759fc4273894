"""A run without Ray: its coordinator and its tally in one event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genrm_verl.coordinators import Coordinator
from genrm_verl.tally import Reporter, Tally


class LocalRun(Coordinator):
    def __init__(self, section: Mapping[str, Any]) -> None:
        self.tally = Tally(section)
        super().__init__(section, Reporter(self.tally.take))

    async def step_ended(self) -> None:
        await super().step_ended()
        await self.tally.step_ended()
