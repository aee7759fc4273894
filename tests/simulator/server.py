"""Two listeners in one process: the pods' addresses, and the control API.

uvicorn names the *local address of the connection* in `scope["server"]`, also when it listens on 0.0.0.0: that is how
the pods are told apart. A pod that refuses resets its connections before any HTTP is spoken.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from asyncio import Transport

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import get_local_addr

from tests.simulator.control import Control
from tests.simulator.fleet import Fleet


def _protocol(fleet: Fleet) -> type[H11Protocol]:
    class Protocol(H11Protocol):
        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if self._refused():
                transport.abort()

        def data_received(self, data: bytes) -> None:
            if self._refused():
                self.transport.abort()
            else:
                super().data_received(data)

        def _refused(self) -> bool:
            local = get_local_addr(self.transport)
            return local is not None and fleet.refuses(local[0])

    return Protocol


class _Server(uvicorn.Server):
    """A server that leaves signals to `serve`."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


async def serve(fleet: Fleet, pods: socket.socket, control: socket.socket) -> None:
    """Serve both until SIGTERM or SIGINT; requests that hang are cut off a second later."""
    common = {"log_level": "warning", "access_log": False, "ws": "none", "timeout_graceful_shutdown": 1}
    servers = [
        _Server(uvicorn.Config(fleet, http=_protocol(fleet), backlog=4096, timeout_keep_alive=60, **common)),  # type: ignore[arg-type]
        _Server(uvicorn.Config(Control(fleet), http="h11", **common)),  # type: ignore[arg-type]
    ]

    def stop() -> None:
        for server in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    # Both sockets listen already: who connects from now on is served, at the latest in a moment.
    print(f"ready pods={_name(pods)} control={_name(control)}", flush=True)
    async with asyncio.TaskGroup() as group:
        for server, sock in zip(servers, (pods, control), strict=True):
            group.create_task(server.serve(sockets=[sock]))


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio turns Nagle off only if it reads TCP
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(4096)
    sock.setblocking(False)
    return sock


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"{host}:{port}"
