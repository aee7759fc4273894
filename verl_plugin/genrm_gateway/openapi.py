"""What the OpenAPI page says beyond what FastAPI reads off the routes: parameters, answers by example, errors, the key.

The routes take their parameters from the request themselves, and answer in forms that are no models of ours. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from genrm_scoring.types import Outcome

from genrm_gateway.formats import MOST_SAMPLES

DESCRIPTION: Final = """
Rewards over HTTP, in the formats of several training frameworks. Every route is there twice: for the gateway's default
target, and below `/NAME` for any other RewardFleet or RewardModel.

Where there is no score the answer is an error, never a number: 503 if asking again may help, 422 if not.
"""
_TERM: Final = {"value": 1.0, "raw": 1.0, "outcome": "ok", "source": "rule"}
_SCORE: Final = {"value": 1.0, "outcome": "ok", "source": "mix", "detail": "", "terms": {"right": _TERM}}
_CHAT: Final = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "…"}, "finish_reason": "stop"}]}
ANSWERS: Final[Mapping[str, Any]] = {
    "/get_reward2": {"right": 1.0, "score": 1.0},
    "/get_reward": {"rewards": [1.0], "scores": [1.0], "extra_logs": {"right": [1.0]}},
    "/slime": 1.0,
    "/verify": {
        "responses_create_params": {"input": "2 + 2?"},
        "response": {"output": "4"},
        "reward": 1.0,
        "reward_components": {"right": 1.0},
    },
    "/compare": {"rewards": [1.0, 0.0], "comparison_results": [], "metrics": {}},
    "/v1/score": {"target": "sums", "scores": [_SCORE]},
    "/v1/models": {"object": "list", "data": [{"id": "judge", "object": "model", "owned_by": "genrm", "created": 0}]},
    "/v1/chat/completions": _CHAT,
}
_GATHERED: Final = ("/get_reward2", "/get_reward", "/slime", "/verify")
_OPEN: Final = ("/healthz", "/metrics")
_PARAMETERS: Final = {
    "target": ("path", {"type": "string"}, "A RewardFleet or RewardModel."),
    "group_size": (
        "query",
        {"type": "integer", "minimum": 1, "maximum": MOST_SAMPLES, "default": 1},
        "How many responses to this prompt come, each in a request of its own; each waits for all.",
    ),
    "group": ("query", {"type": "string"}, "Which group it is, where the same prompt is sampled twice at a time."),
}
_ERRORS: Final = {
    "401": "No key that the gateway knows.",
    "404": "No such target.",
    "413": "The body is too large.",
    "422": "The request cannot be read, or has no score and would have none if it was asked again.",
    "429": "Too many requests at once; `Retry-After` says when to ask again.",
    "501": "The target says something that the gateway does not carry out.",
    "503": "There is no score now; `Retry-After` says when to ask again.",
}
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message"],
            "properties": {
                "message": {"type": "string"},
                "field": {"type": "string", "description": "What is wrong with the request, or with the target."},
                "outcome": {"type": "string", "enum": [outcome.value for outcome in Outcome if outcome != Outcome.OK]},
            },
            "additionalProperties": True,
        }
    },
}
_RELAYED: Final = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "description": "A RewardModel, unless the path names one."},
        "stream": {"type": "boolean", "description": "Chats and completions: the answer in events, as they come."},
    },
    "additionalProperties": True,
}


def described(schema: dict[str, Any]) -> dict[str, Any]:
    """The same document, with what is missing."""
    parts = schema.setdefault("components", {})
    for name in ("HTTPValidationError", "ValidationError"):
        parts.get("schemas", {}).pop(name, None)
    parts.setdefault("schemas", {})["Error"] = _ERROR
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "Where `--keys` are set."}}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            operation["operationId"] = "_".join((method, *path.strip("/").replace("{target}", "of_target").split("/")))
            if path not in _OPEN:
                _complete(path, method, operation)
    return schema


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    route = path.removeprefix("/{target}")
    names = (["target"] if route != path else []) + (["group_size", "group"] if route in _GATHERED else [])
    operation["parameters"] = [_parameter(name) for name in names]
    operation["security"] = [{}, {"key": []}]
    if method == "post":
        operation.setdefault("requestBody", {"content": {"application/json": {"schema": _RELAYED}}, "required": True})
    answers = operation["responses"] = {"200": operation["responses"]["200"]}
    if route in ANSWERS:
        answers["200"]["content"] = {"application/json": {"example": ANSWERS[route]}}
    if route == "/v1/score":
        answers["200"]["content"]["application/x-ndjson"] = {"example": {"index": 0, **_SCORE}}
    for status, why in _ERRORS.items():
        said = {"schema": {"$ref": "#/components/schemas/Error"}}
        answers[status] = {"description": why, "content": {"application/json": said}}


def _parameter(name: str) -> dict[str, Any]:
    where, schema, what = _PARAMETERS[name]
    return {"name": name, "in": where, "required": where == "path", "schema": schema, "description": what}
