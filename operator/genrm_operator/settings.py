"""What the chart tells the operator, through environment variables."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from genrm_operator import logs
from genrm_operator.errors import ConfigurationError

DEFAULT_ROUTER_IMAGE: Final = "lmsysorg/sgl-model-gateway:v0.3.2"
DEFAULT_VLLM_IMAGE: Final = "vllm/vllm-openai:v0.32.0"
DEFAULT_SGLANG_IMAGE: Final = "lmsysorg/sglang:v0.5.23"


@dataclass(frozen=True, slots=True)
class Settings:
    """`namespaces` empty means all; `host_model_prefixes` empty means that `file://` models are refused."""

    master_key: bytes = field(repr=False)
    namespaces: tuple[str, ...] = ()
    engine_images: Mapping[str, str] = field(default_factory=dict)
    router_image: str = DEFAULT_ROUTER_IMAGE
    host_model_prefixes: tuple[str, ...] = ()
    resync_seconds: float = 30.0
    """Every RewardModel is looked at again this often even if no event came."""
    max_concurrent_reconciles: int = 16
    metrics_port: int = 9090
    """Serves `/metrics` and `/healthz`; 0: neither."""
    log_format: str = "text"
    log_level: str = "INFO"
    leader_lease: tuple[str, str] | None = None
    """(namespace, name) of the Lease that operators of one installation share; `None` for one that is alone."""
    slot_turn_seconds: float = 120.0
    """For so long a slot is kept while others wait for it. Less than most scoring phases would only cost wakes."""
    pod_namespace: str = ""
    """Where the operator itself runs, for the NetworkPolicies that let it in; empty: outside the cluster."""
    identity: str = ""
    """Names this process among them: its pod."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read `GENRM_*`.

        Raises:
            ConfigurationError: the master key cannot be read, a number is none, or a word is unknown.
        """
        return cls(
            master_key=_master_key(environ),
            namespaces=_words(environ.get("GENRM_NAMESPACES", "")),
            engine_images={
                "vllm": environ.get("GENRM_IMAGE_VLLM") or DEFAULT_VLLM_IMAGE,
                "sglang": environ.get("GENRM_IMAGE_SGLANG") or DEFAULT_SGLANG_IMAGE,
            },
            router_image=environ.get("GENRM_IMAGE_ROUTER") or DEFAULT_ROUTER_IMAGE,
            host_model_prefixes=_words(environ.get("GENRM_HOST_MODEL_PREFIXES", "")),
            resync_seconds=_number(environ, "GENRM_RESYNC_SECONDS", 30.0),
            slot_turn_seconds=_number(environ, "GENRM_SLOT_TURN_SECONDS", 120.0),
            metrics_port=int(_number(environ, "GENRM_METRICS_PORT", 9090)),
            log_format=_one_of(environ, "GENRM_LOG_FORMAT", logs.FORMATS, "text"),
            log_level=_one_of(environ, "GENRM_LOG_LEVEL", logs.LEVELS, "INFO"),
            leader_lease=_leader_lease(environ.get("GENRM_LEADER_LEASE", "")),
            pod_namespace=environ.get("GENRM_POD_NAMESPACE", ""),
            identity=environ.get("GENRM_POD_NAME") or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}",
        )


def _master_key(environ: Mapping[str, str]) -> bytes:
    file = environ.get("GENRM_MASTER_KEY_FILE", "")
    try:
        key = Path(file).read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(
            f"GENRM_MASTER_KEY_FILE={file!r} cannot be read ({error}); mount the Secret that the chart makes"
        ) from error
    if len(key) < 32:
        raise ConfigurationError(f"GENRM_MASTER_KEY_FILE={file!r} holds {len(key)} bytes; at least 32 are needed")
    return key


def _leader_lease(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise ConfigurationError(f"GENRM_LEADER_LEASE={text!r} is no namespace/name")
    return namespace, name


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        return float(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}={text!r} is no number") from error


def _one_of(environ: Mapping[str, str], name: str, words: Sequence[str], default: str) -> str:
    word = environ.get(name) or default
    if word not in words:
        raise ConfigurationError(f"{name}={word!r}: write one of {', '.join(words)}")
    return word
