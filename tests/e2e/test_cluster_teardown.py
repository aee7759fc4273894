"""The embedded cluster does what a cluster does, and when it goes it leaves nothing, however it ends.

Each kind of trace (processes, namespaces, mounts, interfaces, routes, cgroups, firewall rules) is compared between a
moment before the cluster and one after it; clusters of other people on the same machine are left out.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dev.cluster import Cluster, CommandFailed, WaitTimeout, known, registry
from dev.cluster import keeper as keeper_files
from dev.cluster.commands import run, wait_for
from dev.cluster.processes import ProcessId
from dev.cluster.snapshot import Snapshot, added, snapshot

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).resolve().parents[2]
PREFIX = f"teardown-{os.getpid()}"

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: local/base:1
        imagePullPolicy: Never
        command: [sh, -c, 'mkdir /www; hostname >/www/index.html; echo started; exec busybox httpd -f -p 8080 -h /www']
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: scratch, mountPath: /scratch}]
      volumes: [{name: scratch, emptyDir: {medium: Memory}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


def look() -> Snapshot:
    return snapshot(leaving_out=[name for name in known() if not name.startswith(PREFIX)])


def nothing_is_left_of(before: Snapshot) -> None:
    """Wait for the machine to be as before."""
    left: dict[str, list[str]] = {}

    def clean() -> bool:
        left.clear()
        left.update(added(before, look()))
        return not left

    with suppress(WaitTimeout):  # the assertion tells more: what is left
        wait_for("every trace of the cluster to vanish", clean, timeout=30, every=0.1)
    assert not left


def apply_web(cluster: Cluster) -> None:
    cluster.kubectl("apply", "--server-side", "-f", "-", input=WEB)
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=90s")


def get_through(cluster: Cluster, *command: str) -> str:
    """Run a command until it succeeds: a Ready pod's Service works a moment later than the pod."""
    return wait_for(" ".join(command), lambda: run(*command, timeout=20, env=cluster.environment()).stdout, timeout=30)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.up(f"{PREFIX}-smoke", node=True, die_with_parent=True) as up:
        apply_web(up)
        yield up


def in_pod(cluster: Cluster, *command: str) -> str:
    return get_through(cluster, "kubectl", "exec", "deployment/web", "--", *command)


def test_a_cluster_ip_answers_from_the_host(cluster: Cluster) -> None:
    address = cluster.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}").stdout
    assert get_through(cluster, "curl", "-sf", "-m5", f"http://{address}/").startswith("web-")


def test_a_pod_reaches_a_service_by_its_dns_name(cluster: Cluster) -> None:
    assert in_pod(cluster, "curl", "-sf", "-m5", "http://web.default.svc.cluster.local/").startswith("web-")


def test_a_pod_reaches_the_api_server_with_its_own_token(cluster: Cluster) -> None:
    call = 'curl -sf -m5 --cacert $d/ca.crt -H "Authorization: Bearer $(cat $d/token)" https://kubernetes.default.svc/version'
    answer = in_pod(cluster, "sh", "-c", f"d=/var/run/secrets/kubernetes.io/serviceaccount; {call}")
    assert '"gitVersion": "v1.36' in answer


def test_what_a_container_prints_is_its_log(cluster: Cluster) -> None:
    assert "started" in cluster.kubectl("logs", "deployment/web").stdout


def test_the_outside_is_unreachable_at_once(cluster: Cluster) -> None:
    with pytest.raises(CommandFailed) as failed:
        cluster.kubectl("exec", "deployment/web", "--", "curl", "-sS", "-m5", "http://192.0.2.77/")
    assert "timed out" not in str(failed.value).lower()


def test_a_killed_container_is_started_again(cluster: Cluster) -> None:
    pod = cluster.kubectl("get", "pod", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}").stdout
    cluster.kill_container("default", pod, "web")
    restarted = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1"
    cluster.kubectl("wait", restarted, f"pod/{pod}", "--timeout=60s")


def test_a_service_account_can_do_what_its_roles_allow_and_no_more(cluster: Cluster) -> None:
    cluster.kubectl("create", "serviceaccount", "reader")
    cluster.kubectl("create", "clusterrolebinding", "reader", "--clusterrole=view", "--serviceaccount=default:reader")
    theirs = cluster.environment() | {"KUBECONFIG": str(cluster.client_kubeconfig("default", "reader"))}
    wait_for("the role to hold", lambda: run(cluster.bin / "kubectl", "get", "pods", env=theirs).stdout, timeout=10)
    with pytest.raises(CommandFailed, match="forbidden"):
        run(cluster.bin / "kubectl", "delete", "deployment", "web", env=theirs)


def test_two_clusters_live_side_by_side(cluster: Cluster) -> None:
    with Cluster.up(f"{PREFIX}-second", node=True, die_with_parent=True) as second:
        apply_web(second)
        assert second.settings.index != cluster.settings.index
        for one in (cluster, second):
            address = one.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}").stdout
            assert get_through(one, "curl", "-sf", "-m5", f"http://{address}/").startswith("web-")
    assert cluster.kubectl("get", "node", "node", "-o", "name").stdout == "node/node\n"


def test_a_server_in_the_box_answers_at_every_fake_pods_address() -> None:
    with Cluster.up(f"{PREFIX}-fake", node=False, kwok_nodes=2, die_with_parent=True) as fake:
        fake.kubectl("create", "deployment", "fake", "--image=none", "--replicas=20")
        fake.kubectl("rollout", "status", "deployment/fake", "--timeout=60s")
        pods = fake.kubectl("get", "pods", "-l", "app=fake", "-o", "jsonpath={.items[*].status.podIP}").stdout.split()
        assert len(set(pods)) == 20
        serve = [sys.executable, "-m", "http.server", "8080", "--bind", "0.0.0.0"]
        server = fake.popen_in_box(serve, cwd=fake.bin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for address in pods:
            assert "kubectl" in get_through(fake, "curl", "-sf", "-m5", f"http://{address}:8080/")
    assert server.wait(timeout=10) == -signal.SIGKILL, "it should have died with the box"


def test_going_down_leaves_nothing_behind() -> None:
    before = look()
    with Cluster.up(f"{PREFIX}-down", node=True, kwok_nodes=1) as up:
        apply_web(up)
        up.popen_in_box(["sleep", "1000"])
        there = added(before, look())
        assert there.keys() >= {"processes", "namespaces", "interfaces", "routes", "cgroups"}, "the snapshot is blind"
        directory = up.dir
    nothing_is_left_of(before)
    assert not directory.exists()


def start_tool(name: str, *, die_with_parent: bool) -> "subprocess.Popen[str]":
    """Start another process that brings a cluster up, says so and then waits for ever."""
    script = (
        "import signal; from dev.cluster import Cluster\n"
        f"Cluster.up({name!r}, node=True, die_with_parent={die_with_parent})\n"
        "print('up', flush=True); signal.pause()"
    )
    return subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def test_a_cluster_bound_to_its_parent_ends_when_the_parent_is_killed() -> None:
    before = look()
    with start_tool(f"{PREFIX}-bound", die_with_parent=True) as tool:
        assert tool.stdout and tool.stdout.readline() == "up\n"
        apply_web(Cluster.get(f"{PREFIX}-bound"))
        tool.kill()
    nothing_is_left_of(before)


def test_a_killed_tools_cluster_lives_on_and_goes_down_by_name() -> None:
    name, before = f"{PREFIX}-orphan", look()
    with start_tool(name, die_with_parent=False) as tool:
        assert tool.stdout and tool.stdout.readline() == "up\n"
        tool.kill()
    apply_web(Cluster.get(name))
    assert registry.take_down(name)
    nothing_is_left_of(before)


def test_a_killed_keepers_cluster_is_dead_and_its_traces_go_with_the_next_down() -> None:
    name, before = f"{PREFIX}-keeperless", look()
    up = Cluster.up(name, node=True)
    apply_web(up)
    keeper = ProcessId.load(up.dir / keeper_files.KEEPER)
    assert keeper
    keeper.send(signal.SIGKILL)
    wait_for("the box to die with its keeper", lambda: not known()[name], timeout=30)
    assert registry.take_down(name)
    nothing_is_left_of(before)


@pytest.mark.parametrize("moment", [keeper_files.KEEPER, keeper_files.BOX, "state.json"])
def test_an_interrupted_up_can_be_repeated(moment: str) -> None:
    name, before = f"{PREFIX}-again", look()
    with start_tool(name, die_with_parent=False) as tool:
        wait_for(f"{moment} of the cluster", (registry.folder() / name / moment).exists, timeout=60, every=0.002)
        tool.kill()
    with Cluster.up(name, node=True) as up:
        assert up.kubectl("get", "node", "node", "-o", "name").stdout == "node/node\n"
    nothing_is_left_of(before)
