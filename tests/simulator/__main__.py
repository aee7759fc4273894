"""`python -m tests.simulator`: see the package."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses

from tests.simulator.fleet import ENGINES, Fleet, PodSettings
from tests.simulator.server import listen, serve


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulator", description="Play every engine pod of a cluster."
    )
    parser.add_argument("--host", default="0.0.0.0", help="where the pods listen (default: every address)")
    parser.add_argument("--port", type=int, default=8000, help="the pods' port; 0 takes a free one")
    parser.add_argument(
        "--control", default="127.0.0.1:9000", help="host:port of the control API; port 0 takes a free one"
    )
    parser.add_argument("--token-sha256", default="", help="digest of the operator's token, for pods nobody configured")
    parser.add_argument("--client-key-sha256", default="", help="digest of the clients' key, if they need one")
    parser.add_argument("--revision", default="simulated", help="revision of pods nobody configured")
    parser.add_argument("--model", default="judge", help="served model name of pods nobody configured")
    parser.add_argument("--engine", default="vllm", choices=ENGINES, help="engine of pods nobody configured")
    parser.add_argument("--weights", default="", help="what the launchers of pods nobody configured found, as JSON")
    parser.add_argument("--slot", default="", help="the GPUs that pods nobody configured share: they start at a gate")
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds for which a call waits until its pod is configured"
    )
    options = parser.parse_args()
    host, _, port = options.control.rpartition(":")
    names = (field.name for field in dataclasses.fields(PodSettings))
    fleet = Fleet(PodSettings(**{name: getattr(options, name) for name in names}), options.patience)
    asyncio.run(serve(fleet, listen(options.host, options.port), listen(host, int(port))))


if __name__ == "__main__":
    main()
