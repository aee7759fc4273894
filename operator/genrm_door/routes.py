"""Which routes of an engine exist, and for whom.

A route is a method and an exact path. What is not listed here does not exist for anybody, whatever the engine serves
under it: a new version of an engine opens nothing. Because the list is closed and matched exactly, hostile spellings
(`//sleep`, `/Sleep`, `/sleep/`, `/v1/../sleep`) are simply other paths, and none of them is listed; what is left for
`canonical` is the spelling that the server has already decoded.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from genrm_door.memory import Memory
from genrm_door.sglang_memory import CONTINUE, PAUSE, RELEASE, RESUME, SglangMemory
from genrm_door.vllm_memory import SLEEP, WAKE, VllmMemory


class Kind(enum.Enum):
    """What the door does with a request to a route."""

    SCORING = "scoring"
    """Passes while the door is `serving`; counted as inside. The operator may also pass while `closed`."""
    OPEN = "open"
    """Passes for everybody in every state: the engine answers from its API process, asleep or not."""
    SHOWN = "shown"
    """Passes like `OPEN`, but the engine's document is answered with nothing but the fields that the route lists."""
    HEALTH = "health"
    """Answered by the door."""
    DOOR = "door"
    """The door's own document; with the operator's token only."""
    TERMINATE = "terminate"
    """The pod's own preStop hook says that the pod ends; with the secret of this start of the container only."""
    ADMIN_READ = "admin-read"
    """Passes with the operator's token in every state."""
    ADMIN = "admin"
    """Changes the engine: passes with the operator's token, one at a time, and is written into the ledger."""
    ADMIN_SHUT = "admin-shut"
    """Like `ADMIN`, and refused while the door is `serving`: it would put the engine to sleep under its clients."""


DOOR_PATH = "/genrm/door"
HEALTH_PATH = "/health"
TERMINATE_PATH = "/genrm/terminate"


@dataclass(frozen=True)
class EngineRoutes:
    """One engine's routes as the door sees them, and the questions that the door itself asks the engine."""

    alive: str
    """GET of this path answers 200 while the engine lives, and is safe in every state."""
    asleep: str | None
    """GET of this path answers `{"is_sleeping": bool}`; None where the engine cannot tell, and `memory` does."""
    scoring: tuple[str, ...]
    open: tuple[str, ...]
    admin_read: tuple[str, ...]
    admin: tuple[str, ...]
    admin_shut: tuple[str, ...]
    memory: Callable[[], Memory]
    """Made once for each door: judges the calls that change the engine, and remembers what they did."""
    idle: str | None = None
    """GET of this path answers 200 only if nothing computes any more; None where no order depends on it."""
    shown: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    table: Mapping[tuple[str, str], Kind] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table = {("GET", HEALTH_PATH): Kind.HEALTH, ("GET", DOOR_PATH): Kind.DOOR, ("PUT", DOOR_PATH): Kind.DOOR}
        table[("POST", TERMINATE_PATH)] = Kind.TERMINATE
        table.update({("POST", path): Kind.SCORING for path in self.scoring})
        table.update({("GET", path): Kind.OPEN for path in self.open})
        table.update({("GET", path): Kind.SHOWN for path in self.shown})
        table.update({("GET", path): Kind.ADMIN_READ for path in self.admin_read})
        table.update({("POST", path): Kind.ADMIN for path in self.admin})
        table.update({("POST", path): Kind.ADMIN_SHUT for path in self.admin_shut})
        object.__setattr__(self, "table", table)


def _sglang(*scoring: str) -> EngineRoutes:
    """Seen on SGLang 0.5.23. Left out on purpose: /health and /health_generate run a forward pass, which kills a server
    whose memory is released; whatever loads, changes or shows weights; sessions, which keep state; profilers, which
    write files. /get_server_info is the older name of /server_info."""
    return EngineRoutes(
        alive="/ping",  # a flag of the API process; 503 while the engine loads. Dead schedulers take that process along
        asleep=None,
        idle="/flush_cache",  # what it flushes is lost in a release anyway
        scoring=(*scoring, "/v1/score", "/tokenize", "/v1/tokenize", "/detokenize", "/v1/detokenize"),
        open=("/metrics", "/v1/models", "/model_info", "/v1/loads"),
        admin_read=(),
        admin=(RESUME, CONTINUE),
        admin_shut=(PAUSE, RELEASE),
        # The whole document holds every argument of the server, keys included.
        shown={"/server_info": SERVER_INFO},
        memory=SglangMemory,
    )


SERVER_INFO = (
    "model_path",
    "served_model_name",
    "version",
    "is_embedding",
    "device",
    "dtype",
    "quantization",
    "context_length",
    "tp_size",
    "pp_size",
    "dp_size",
    "load_balance_method",
    "disaggregation_mode",
    "max_total_num_tokens",
    "max_prefill_tokens",
    "max_running_requests",
    "max_req_input_len",
    "enable_memory_saver",
    "enable_weights_cpu_backup",
)
"""What a router asks a worker for, and what the operator must know of it."""

ROUTES: Mapping[str, EngineRoutes] = {
    # Seen on vLLM 0.32 with VLLM_SERVER_DEV_MODE=1. Left out on purpose: /collective_rpc calls any method of a worker
    # by name, /update_weights and its kin change what a score means, /server_info and /openapi.json tell too much,
    # /invocations hides which route it becomes, /v1/responses keeps state. tests/e2e/contract tries
    # every route of the running server.
    "vllm": EngineRoutes(
        alive="/health",
        asleep="/is_sleeping",
        scoring=(
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/classify",
            "/pooling",
            "/score",
            "/v1/score",
            "/rerank",
            "/v1/rerank",
            "/v2/rerank",
            "/tokenize",
            "/detokenize",
        ),
        open=("/metrics", "/v1/models", "/version"),
        admin_read=("/is_sleeping",),
        admin=(WAKE, "/reset_prefix_cache"),
        admin_shut=(SLEEP,),
        memory=VllmMemory,
    ),
    "sglang": _sglang("/v1/chat/completions", "/v1/completions", "/generate"),
    # A server that embeds dies of being asked to generate more than one token.
    "sglang-embedding": _sglang("/v1/embeddings", "/v1/classify", "/v1/rerank", "/classify", "/encode"),
}


def canonical(path: str, raw_path: bytes | None) -> bool:
    """Whether the client wrote the path as it is meant: no percent-encoding hides behind the decoded `path`."""
    return raw_path is None or raw_path == path.encode()
