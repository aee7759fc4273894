"""Process 1 of a cluster's box: `python -m dev.cluster.box DIRECTORY`, started by the keeper inside new namespaces.

A *box* is a machine of its own as far as the kernel's namespaces go: network, mounts, processes, IPC and host name.
This process sets it up, starts the components in order and then reaps children until it is killed; the kernel then ends
everything else in the box. It never restarts a component, because a crash should be seen. What it knows it tells in
`state.json`: the milestones reached (seconds since start), the components' ends, and what went wrong here.
"""

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dev.cluster import cgroups, components
from dev.cluster.commands import run, wait_for
from dev.cluster.containerd import Containerd
from dev.cluster.settings import API_PORT, Settings

CONTAINERD_UP = "containerd"
READY = "API server"


@dataclass(slots=True)
class State:
    """What the box tells the outside."""

    milestones: dict[str, float] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    error: str = ""

    def save(self, directory: Path) -> None:
        partial = directory / ".state.json"
        partial.write_text(json.dumps(asdict(self)))
        partial.rename(directory / "state.json")

    @classmethod
    def load(cls, directory: Path) -> "State":
        try:
            return cls(**json.loads((directory / "state.json").read_text()))
        except FileNotFoundError:
            return cls()


class Box:
    """The components of one cluster and the order in which they start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state = State()
        self._names: dict[int, str] = {}
        self._started = time.monotonic()

    def run(self) -> None:
        """Bring everything up, then reap for ever."""
        try:
            cgroups.join(self._settings.cgroup)
            self._mounts()
            self._network()
            if self._settings.node:
                self._configure_node()
            for component in components.before_api(self._settings):
                self._start(component)
            if self._settings.node:
                wait_for("containerd", self._containerd_answers, timeout=60)
                Containerd([f"{self._settings.binaries}/ctr", "--namespace", "k8s.io"]).remove_leftovers()
                self._milestone(CONTAINERD_UP)
            wait_for("the API server", self._api_is_ready, timeout=120)
            self._milestone(READY)
            for component in components.after_api(self._settings):
                self._start(component)
        except Exception:
            self._state.error = traceback.format_exc()
            self._state.save(self._settings.directory)
            raise
        while True:
            self._reap(0)

    def _mounts(self) -> None:
        """Give the box its own /run, /var/lib and /var/log, so that every program's default paths are private to it."""
        run("mount", "--make-rshared", "/")
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        for sub in ("lib", "log"):
            own = self._settings.directory / "var" / sub
            own.mkdir(parents=True)
            run("mount", "--bind", own, f"/var/{sub}")

    def _network(self) -> None:
        settings = self._settings
        wait_for("the keeper's veth", Path("/proc/sys/net/ipv4/conf/eth0").exists, 20, 0.005)
        run("ip", "link", "set", "lo", "up")
        run("ip", "addr", "add", f"{settings.address}/24", "dev", "eth0")
        run("ip", "link", "set", "eth0", "up")
        # The box has no default route, so traffic to the outside fails at once. ClusterIPs need a route all the same,
        # or the box's own packets to them never reach the rules that translate them.
        run("ip", "route", "add", settings.services, "dev", "eth0", "src", settings.address)
        # Every fake pod's address is the box's own: a server in the box answers at all of them.
        run("ip", "route", "add", "local", settings.fake_pods, "dev", "lo")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def _configure_node(self) -> None:
        settings = self._settings
        for name, text in components.config_files(settings).items():
            path = settings.etc / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if settings.environments:
            default = json.loads(run(settings.binaries / "ctr", "oci", "spec").stdout)
            spec = components.with_environments(default, settings)
            (settings.etc / "runtime-spec.json").write_text(json.dumps(spec))

    def _start(self, component: components.Component) -> None:
        settings = self._settings
        environment = {**os.environ, "PATH": f"{settings.binaries}:{os.environ['PATH']}"}
        with (settings.log / f"{component.name}.log").open("ab") as log:
            started = subprocess.Popen(
                [str(settings.binaries / component.name), *component.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        self._names[started.pid] = component.name

    def _milestone(self, name: str) -> None:
        self._state.milestones[name] = round(time.monotonic() - self._started, 2)
        self._state.save(self._settings.directory)

    def _containerd_answers(self) -> bool:
        self._reap(os.WNOHANG)
        return run(self._settings.binaries / "ctr", "version").returncode == 0

    def _api_is_ready(self) -> bool:
        self._reap(os.WNOHANG)
        pki = self._settings.pki
        trust = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        trust.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        connection = http.client.HTTPSConnection("127.0.0.1", API_PORT, context=trust, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except http.client.HTTPException:
            return False
        finally:
            connection.close()

    def _reap(self, flags: int) -> None:
        """Take the exit status of one ended process: a component's is told, an orphan's is not."""
        try:
            pid, status = os.waitpid(-1, flags)
        except ChildProcessError:
            time.sleep(0.2)  # every component has ended; the box stays until somebody looks and takes it down
            return
        if pid in self._names:
            self._state.ended[self._names.pop(pid)] = os.waitstatus_to_exitcode(status)
            self._state.save(self._settings.directory)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Box(Settings.load(Path(sys.argv[1]))).run()
