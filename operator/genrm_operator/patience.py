"""Pauses before the API server is asked once more."""

from __future__ import annotations

import itertools
from collections.abc import Iterator


class Patience:
    """Without an end, where Kopf's default gives up after 54 s.

    Who gives up ends the process. That cures no API server that is away, and adds the kubelet's back-off to the wait.
    Short, too: whoever pauses for long is deaf when it is back.
    """

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.2, 0.5, 1.0, 2.0), itertools.repeat(5.0))
