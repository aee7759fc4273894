"""Container images made from this machine's files, without a registry and without a daemon.

`recipes` says what our images are made of, `archive` writes one as a docker archive to any stream, `rootfs` makes the
Debian file system that they stand on.
"""

from dev.images.archive import Image, Layer
from dev.images.recipes import (
    BASE,
    COREDNS,
    PAUSE,
    ROUTER,
    SGLANG,
    VLLM,
    base,
    coredns,
    engine,
    pause,
    router,
    sglang,
    vllm,
)

__all__ = [
    "BASE",
    "COREDNS",
    "PAUSE",
    "ROUTER",
    "SGLANG",
    "VLLM",
    "Image",
    "Layer",
    "base",
    "coredns",
    "engine",
    "pause",
    "router",
    "sglang",
    "vllm",
]
