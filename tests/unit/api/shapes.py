"""Parts of manifests that the cases are made of."""

from __future__ import annotations

from typing import Any

CUSTOM = {"name": "custom", "image": "me/judge:1", "custom": {"command": ["judge"]}}
HOOKS = {
    "sleep": {"path": "/sleep?level=1"},
    "wake": {"method": "PUT", "path": "/wake", "body": '{"tags": ["weights"]}'},
    "isSleeping": {"path": "/is_sleeping"},
}


def hooked(**found: Any) -> dict[str, Any]:
    """A server of the user's own that sleeps; a hook that is None is not there."""
    hooks = {name: hook for name, hook in (HOOKS | found).items() if hook is not None}
    return CUSTOM | {"custom": {"command": ["judge"], **hooks}}


def peer(**found: Any) -> dict[str, Any]:
    return {"access": {"clients": [found]}}


def env(**variable: Any) -> dict[str, Any]:
    return {"env": [{"name": "A", **variable}]}


def external(**found: Any) -> dict[str, Any]:
    return {"type": "External", "model": None, "external": {"url": "https://api.example.com/v1", **found}}


def slots(*found: dict[str, Any], sharing: str = "SharedClaim", **spec: Any) -> dict[str, Any]:
    return {"gpu": {"sharing": sharing, "slots": list(found)}, "replicas": len(found), **spec}


def scoring(**found: Any) -> dict[str, Any]:
    return {"scoring": found}


def sleep(**found: Any) -> dict[str, Any]:
    return {"lifecycle": {"sleep": found}}


TEMPLATE = "{{ response }}"
PAIR = {"prompt": "2+2?", "better": "4", "worse": "5"}
REFERENCE = {"name": "s", "key": "k"}


def manifest(spec: dict[str, Any], name: str = "judge") -> dict[str, Any]:
    whole = {"model": {"uri": "hf://a/b"}, **spec}
    return {"metadata": {"name": name, "namespace": "rl"}, "spec": {k: v for k, v in whole.items() if v is not None}}
