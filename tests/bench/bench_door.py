"""What the door costs a request: `python tests/bench/bench_door.py`.

The bare application and the same one behind the door take turns in one process, so that a busy machine slows both. The
application answers at once, as an engine never does: the difference is the door alone. `keyed` is a door that knows two
clients' keys and checks the one that comes. Budget of both: 30 µs.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import statistics
import sys
import time
from dataclasses import replace

from genrm_door import Door, Settings, State
from genrm_door.asgi import App, Message, Receive, Scope, Send

BUDGET_MICROSECONDS = 30.0
HEADERS = [
    (b"host", b"10.0.0.7:8000"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"user-agent", b"genrm-scoring/0.1.0"),
    (b"content-type", b"application/json"),
    (b"content-length", b"2048"),
    (b"authorization", b"Bearer EMPTY"),
    (b"x-request-id", b"0f6e5a4c"),
]
SCOPE: Scope = {
    "type": "http",
    "method": "POST",
    "path": "/v1/chat/completions",
    "raw_path": b"/v1/chat/completions",
    "query_string": b"",
    "headers": HEADERS,
}


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}", "more_body": False})


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    pass


async def per_request(app: App, requests: int) -> float:
    """Mean microseconds of one request."""
    began = time.perf_counter()
    for _ in range(requests):
        await app(SCOPE, receive, send)
    return (time.perf_counter() - began) / requests * 1e6


async def measure(rounds: int, requests: int) -> dict[str, float]:
    settings = Settings(token_sha256=hashlib.sha256(b"t").hexdigest(), revision="bench")
    keys = tuple(hashlib.sha256(key).hexdigest() for key in (b"an older key", b"EMPTY"))
    doors = {
        "serving": Door(bare, settings),
        "keyed": Door(bare, replace(settings, client_key_sha256=keys)),
        "asleep": Door(bare, settings),
    }
    for name, door in doors.items():
        door.record.state = State.ASLEEP if name == "asleep" else State.SERVING
    apps: dict[str, App] = {"bare": bare, **doors}
    took: dict[str, list[float]] = {name: [] for name in apps}
    for _ in range(rounds):
        for name, app in apps.items():
            took[name].append(await per_request(app, requests))
    median = {name: statistics.median(times) for name, times in took.items()}
    added = {
        name: statistics.median(s - b for s, b in zip(took[name], took["bare"], strict=True))
        for name in ("serving", "keyed")
    }
    return {
        "bare_us": round(median["bare"], 2),
        "serving_us": round(median["serving"], 2),
        "refused_us": round(median["asleep"], 2),
        "ratio": round(median["serving"] / median["bare"], 2),
        "added_us": round(added["serving"], 2),
        "added_keyed_us": round(added["keyed"], 2),
        "budget_us": BUDGET_MICROSECONDS,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what the door adds to a request.")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    result = asyncio.run(measure(options.rounds, options.requests))
    print(json.dumps(result))
    return 0 if max(result["added_us"], result["added_keyed_us"]) < BUDGET_MICROSECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
