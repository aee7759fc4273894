"""`genrm-gateway`: rewards over HTTP, from a file of resources or from those of a cluster.

genrm-gateway --spec rules.yaml --port 6009      rules and endpoints of a file; no cluster, no model
genrm-gateway --namespace rl                     the RewardFleets and RewardModels of a namespace
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import uvicorn
from genrm_scoring import spec_file
from genrm_scoring.errors import ConfigurationError, GenrmError
from genrm_scoring.gathering import LONGEST, PATIENCE
from genrm_scoring.modules import modules_in
from genrm_scoring.targets import Means, key_in

from genrm_gateway.app import Open, application
from genrm_gateway.catalog import Catalog, ClusterCatalog, FileCatalog
from genrm_gateway.limits import Limits, read_keys
from genrm_gateway.peers import Peers

KEEP_ALIVE_SECONDS: Final = 75
"""Longer than clients keep a connection: a request on one that closes at that moment would be lost."""


def main(arguments: Sequence[str] | None = None) -> int:
    given = (parser := _parser()).parse_args(arguments)
    if given.peers and not given.own_url:
        parser.error("--peers: which of them is this? write --own-url")
    try:
        means = _means(given)
        limits = Limits(
            given.most_at_once, given.most_of_a_client, given.most_bytes, read_keys(given.keys) if given.keys else {}
        )
        spec = None if given.spec is None else spec_file.read(given.spec)
        open_catalog: Open = (
            partial(_cluster, given, means) if spec is None else partial(FileCatalog.open, spec, means, given.default)
        )
        asyncio.run(_tried(open_catalog))
        sock = _listening(given.host, given.port)
    except GenrmError as e:
        print(f"genrm-gateway: {e}", file=sys.stderr)  # noqa: T201
        return 2
    app = application(open_catalog, limits, given.patience, Peers(given.own_url, given.peers))
    what = ", ".join(spec.names) if spec is not None else f"namespace {given.namespace or 'of the credentials'}"
    where = f"http://{f'[{given.host}]' if ':' in given.host else given.host}:{sock.getsockname()[1]}"
    print(f"genrm-gateway: {what}; listens at {where} (routes: {where}/docs)", flush=True)  # noqa: T201
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[sock])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="genrm-gateway", description="Rewards over HTTP.")
    add, limits = parser.add_argument, Limits()
    add("--spec", type=Path, help="file of RewardFleets and RewardModels; without it those of the cluster are asked")
    add("--namespace", help="of the cluster's resources; default: that of the credentials")
    add("--default", metavar="NAME", help="what a request means that names nothing; default: the file's only one")
    add(
        "--rules",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="Python files with the functions of rules of kind python, and of those around models",
    )
    add("--allow-cluster-code", nargs="*", default=[], metavar="SHA256", help="of code in ConfigMaps that may run here")
    add("--secrets", type=Path, metavar="DIR", help="endpoints' keys: DIR/SECRET/KEY, as Secrets are mounted")
    add("--keys", type=Path, metavar="FILE", help="`client: key` lines; without it everybody may ask")
    add("--host", default="0.0.0.0", help=":: listens on IPv6, too")
    add("--port", type=int, default=6009)
    add("--own-url", default="", help="this gateway's address, as the others have it among their peers")
    add("--peers", nargs="*", default=[], metavar="URL", help="the other gateways, with which groups are shared out")
    add(
        "--patience",
        type=float,
        default=PATIENCE,
        help=f"seconds to wait for the next member of a group; for all of them, {LONGEST} times that",
    )
    add(
        "--rule-processes",
        type=_count,
        default=os.cpu_count() or 1,
        help="processes of each rule or function that needs some",
    )
    add("--most-at-once", type=_count, default=limits.most_at_once, help="requests; more are answered with 429")
    add("--most-of-a-client", type=_count, default=limits.most_of_a_client, help="of these, of one key")
    add("--most-bytes", type=_count, default=limits.most_bytes, help="of one request")
    return parser


def _count(text: str) -> int:
    """
    Raises:
        ArgumentTypeError
    """
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; write a number from 1")
    return int(text)


def _means(given: argparse.Namespace) -> Means:
    """
    Raises:
        ConfigurationError
    """
    modules = modules_in(given.rules, "--rules")
    means = Means(modules=modules, patience=given.patience, rule_processes=given.rule_processes)
    return means if given.secrets is None else replace(means, key=key_in(given.secrets))


async def _tried(open_catalog: Open) -> None:
    """Open everything once, so that what cannot work is said before the server starts. A cluster is not called yet."""
    await (await open_catalog()).close()


def _listening(host: str, port: int) -> socket.socket:
    """
    Raises:
        ConfigurationError
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=4096, dualstack_ipv6=both)
    except (OSError, OverflowError) as e:
        raise ConfigurationError("--port", f"cannot listen at {host}, port {port}: {e}") from None


async def _cluster(given: argparse.Namespace, means: Means) -> Catalog:
    from genrm_scoring.kubernetes import connect

    opened = AsyncExitStack()
    cluster = await opened.enter_async_context(connect())
    run = f"gateway-{socket.gethostname()}-{secrets.token_hex(2)}"
    namespace, allowed = given.namespace or cluster.namespace, given.allow_cluster_code
    return ClusterCatalog(cluster, namespace, means, run, given.default, opened, allow_cluster_code=allowed)


if __name__ == "__main__":
    sys.exit(main())
