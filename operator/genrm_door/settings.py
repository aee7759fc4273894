"""What a door is told by the pod that it runs in, and by the launcher that started it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The launcher's words to the door. They go from one process to itself, so they are no interface of the pod.
BOOT_ID_ENV = "GENRM_BOOT_ID"
LAUNCH_ENV = "GENRM_LAUNCH"
LOCAL_ENV = "GENRM_LOCAL_SHA256"
PAST_ENV = "GENRM_PAST"
WEIGHTS_ENV = "GENRM_WEIGHTS"


@dataclass(frozen=True)
class Settings:
    """Raises ValueError for what is no digest: a token in its place would be in every `kubectl describe`."""

    token_sha256: str = ""
    """Hex digest of the operator's token. Empty: nobody is the operator, and the door stays closed for good."""
    client_key_sha256: tuple[str, ...] = ()
    """Hex digests of the clients' keys, several while one replaces another. Empty: scoring needs no key."""
    local_sha256: str = ""
    """Hex digest of the secret with which the pod's own preStop hook speaks. Empty: nobody can."""
    engine: str = "vllm"
    revision: str = ""
    boot_id: str = ""
    """Of this start of the container; empty where no launcher made one."""
    past: str = ""
    """What the door before this one in the same container remembers, as JSON (`Record.hand_over`)."""
    weights: str = ""
    """Which weights the engine was started with, as JSON (`Weights.to_json`); empty where no launcher looked."""
    health_seconds: float = 2.0
    """How long the engine may take to say that it lives."""
    word_seconds: float = 0.5
    """How long the engine may take to say whether it sleeps, for the document."""
    opening_seconds: float = 3.0
    """The same before the door serves: a busy engine answers late, and one that never answers gets no clients."""
    idle_seconds: float = 10.0
    """How long an engine that nobody waits for may take to finish, before a call that needs it idle is refused."""

    def __post_init__(self) -> None:
        digests = {"GENRM_TOKEN_SHA256": (self.token_sha256,), LOCAL_ENV: (self.local_sha256,)}
        for name, given in {**digests, "GENRM_CLIENT_KEY_SHA256": self.client_key_sha256}.items():
            if any(digest and not _is_sha256(digest) for digest in given):
                raise ValueError(f"{name} is no SHA-256: write 64 hexadecimal digits, not the secret itself")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        keys = environ.get("GENRM_CLIENT_KEY_SHA256", "").lower().split(",")
        return cls(
            token_sha256=environ.get("GENRM_TOKEN_SHA256", "").strip().lower(),
            client_key_sha256=tuple(key.strip() for key in keys if key.strip()),
            local_sha256=environ.get(LOCAL_ENV, ""),
            engine=environ.get("GENRM_ENGINE", "vllm"),
            revision=environ.get("GENRM_REVISION", ""),
            boot_id=environ.get(BOOT_ID_ENV, ""),
            past=environ.get(PAST_ENV, ""),
            weights=environ.get(WEIGHTS_ENV, ""),
        )

    def remembered(self) -> Mapping[str, Any]:
        past = json.loads(self.past) if self.past else {}
        return past if isinstance(past, dict) else {}


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)
