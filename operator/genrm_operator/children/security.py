"""What the Pod Security profile "restricted" asks of a pod and of a container."""

from __future__ import annotations

from typing import Any, Final

USER_ID: Final = 65532
"""Nobody's number in the images that we know; as fsGroup it makes a claim writable."""


def pod_security() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",  # a cache of many files is not walked at each start
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
