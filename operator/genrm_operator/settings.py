"""What the chart tells the operator, through environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from genrm_operator.errors import ConfigurationError

DEFAULT_VLLM_IMAGE: Final = "vllm/vllm-openai:v0.32.0"


@dataclass(frozen=True, slots=True)
class Settings:
    """`namespaces` empty means all; `host_model_prefixes` empty means that `file://` models are refused."""

    master_key: bytes = field(repr=False)
    namespaces: tuple[str, ...] = ()
    engine_images: Mapping[str, str] = field(default_factory=dict)
    host_model_prefixes: tuple[str, ...] = ()
    resync_seconds: float = 30.0
    """Every RewardModel is looked at again this often even if no event came."""
    max_concurrent_reconciles: int = 16
    health_port: int = 8080

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read `GENRM_*`.

        Raises:
            ConfigurationError: the master key cannot be read, or a number is none.
        """
        return cls(
            master_key=_master_key(environ),
            namespaces=_words(environ.get("GENRM_NAMESPACES", "")),
            engine_images={"vllm": environ.get("GENRM_IMAGE_VLLM") or DEFAULT_VLLM_IMAGE},
            host_model_prefixes=_words(environ.get("GENRM_HOST_MODEL_PREFIXES", "")),
            resync_seconds=_number(environ, "GENRM_RESYNC_SECONDS", 30.0),
            health_port=int(_number(environ, "GENRM_HEALTH_PORT", 8080)),
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


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        return float(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}={text!r} is no number") from error
