"""A RewardModel serves a stock GRPO run and sleeps in between, whatever is killed on the way."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from genrm_api.leases import Phase, lease_manifest, lease_name
from rich.console import Console

from dev import grpo
from dev.demo import report
from dev.demo.evidence import Evidence
from dev.demo.watch import Watcher
from dev.stack import RELEASE, SYSTEM_NAMESPACE, Stack
from tests.e2e.conftest import MODEL, NAMESPACE, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SELECTOR = f"genrm.dev/reward-model={MODEL}"
RUNNING = re.compile(r"^vllm:num_requests_running\{[^}]*\} ([0-9.]+)", re.MULTILINE)


def addresses(stack: Stack) -> dict[str, str]:
    pods = stack.items("pods", SELECTOR)
    return {p["metadata"]["name"]: p["status"]["podIP"] for p in pods if p["status"].get("podIP")}


def events(stack: Stack) -> list[str]:
    return [e["reason"] for e in stack.items("events") if e["involvedObject"]["kind"] == "RewardModel"]


@contextmanager
def training(stack: Stack, work: Path, *, steps: int, n: int = 2, overrides: tuple[str, ...] = ()) -> Iterator[Run]:
    """A verl run in a session of its own; nothing of it is left behind."""
    rewards = grpo.cluster_rewards(MODEL, NAMESPACE, work / "judgements")
    run = grpo.GrpoRun(
        stack.prepared.verl, stack.prepared.models.root, work, rewards, steps=steps, n=n, epochs=4, overrides=overrides
    )
    arguments, environment = grpo.command(run, {**os.environ, "KUBECONFIG": str(stack.client_kubeconfig())})
    with (work / "verl.log").open("wb") as log:
        process = subprocess.Popen(
            arguments,
            env=environment,
            cwd=work,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield Run(process, run, work)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


class Run:
    def __init__(self, process: subprocess.Popen[bytes], run: grpo.GrpoRun, work: Path) -> None:
        self.process, self.run, self.work = process, run, work

    @property
    def output(self) -> str:
        return (self.work / "verl.log").read_text(errors="replace")

    def end(self, timeout: float = 400) -> str:
        code = self.process.wait(timeout=timeout)
        assert code == 0, f"verl ended with {code}:\n{self.output[-4000:]}"
        return self.output

    def alive(self) -> bool:
        assert self.process.poll() is None, f"verl ended with {self.process.returncode}:\n{self.output[-4000:]}"
        return True


def test_a_grpo_run_survives_the_death_of_a_judge_and_every_engine_sleeps_between_its_steps(
    asleep: Stack, work: Path
) -> None:
    stack = asleep
    with Watcher(lambda: addresses(stack)) as watcher, training(stack, work, steps=3, n=4) as run:
        engines = {pod: (address, _processes(stack, pod)) for pod, address in addresses(stack).items()}
        victim = wait_for("a judge at work", lambda: run.alive() and _at_work(engines), timeout=400)
        for pid in engines[victim][1]:  # at once: a judgement takes half a second, and kubectl a fifth of one
            os.kill(pid, signal.SIGKILL)
        columns = stack.kubectl("-n", NAMESPACE, "get", "rm", MODEL, "-o", "wide").splitlines()
        output = run.end()
        ended = time.time()
    assert stack.items("leases", SELECTOR) == [], "a run that ends releases its Lease"
    evidence = Evidence(
        steps=3,
        samples_per_step=run.run.samples_per_step,
        training=grpo.read_training(output),
        judgements=grpo.read_lines(work / "judgements", "judgements"),
        samples=watcher.samples,
        engine=stack.status(MODEL)["engine"],
        pods=sorted(addresses(stack)),
        ended_at=ended,
    )
    judged = next(check for check in evidence.checks() if "was judged" in check.name)
    assert judged.ok, f"{judged.seen}; outcomes {evidence.outcomes()}"
    assert evidence.training.learned and len(evidence.training.gradients) == 3
    for step in (1, 2, 3):
        scores = [line["score"] for line in evidence.of_step(step)]
        assert evidence.training.rewards[step - 1] == pytest.approx(sum(scores) / len(scores), abs=1e-6)
    failed = [failure for line in evidence.judgements for failure in line["failures"]]
    assert any(failure["pod"] == victim for failure in failed), "the kill hit a judgement, which was sent elsewhere"
    assert evidence.retries() == len(failed)
    _show(evidence)
    survivor = next(pod for pod in evidence.pods if pod != victim)
    for before, after in ((1, 2), (2, 3)):
        start = max(line["ended"] for line in evidence.of_step(before))
        end = min(line["started"] for line in evidence.of_step(after))
        seen = [
            (round(s.at - start, 1), str(s.state)) for s in evidence.samples if s.pod == survivor and start < s.at < end
        ]
        assert any(state == "asleep" for _, state in seen), f"between steps {before} and {after}: {seen}"
    assert columns[0].split()[:7] == ["NAME", "PHASE", "AWAKE", "READY", "DESIRED", "ENGINE", "LAST-WAKE"]
    assert {"Starting", "Waking", "Serving", "Sleeping", "Asleep"} <= set(events(stack))
    story = stack.kubectl("-n", NAMESPACE, "describe", "rm", MODEL)
    assert "is in phase scoring" in story and "Last Wake Seconds" in story


def _processes(stack: Stack, pod: str) -> list[int]:
    """The processes of a pod's engine, by this machine's numbers: they are in the cgroup of its container."""
    (container,) = stack.get("pods", pod)["status"]["containerStatuses"]
    ident = container["containerID"].removeprefix("containerd://")
    found = []
    for cgroups in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):
            if ident in cgroups.read_text():
                found.append(int(cgroups.parent.name))
    assert found, f"no process is in the container {ident} of {pod}"
    return found


def _at_work(engines: dict[str, tuple[str, list[int]]]) -> str | None:
    """The name of a pod whose engine has a request inside right now."""
    for pod, (address, _) in engines.items():
        with suppress(httpx.HTTPError):
            found = RUNNING.search(httpx.get(f"http://{address}:8000/metrics", timeout=5, trust_env=False).text)
            if found and float(found[1]) > 0:
                return pod
    return None


def _show(evidence: Evidence) -> None:
    """What the demo would show of this run: the retry is in it."""
    console = Console(file=io.StringIO(), width=120)
    report.show(console, evidence)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    print(shown)
    assert "retried: step" in shown


@pytest.mark.parametrize("case", ["no such model", "cluster away", "no permission"])
def test_a_run_that_cannot_find_its_model_stops_at_once_with_one_sentence(stack: Stack, work: Path, case: str) -> None:
    kubeconfig, name = stack.client_kubeconfig(), MODEL
    if case == "no such model":
        name = "jugde"
    elif case == "cluster away":
        away = work / "kubeconfig"
        away.write_text(kubeconfig.read_text().replace(stack.cluster.settings.server, "https://127.0.0.1:9"))
        kubeconfig = away
    else:
        stack.kubectl("-n", NAMESPACE, "create", "serviceaccount", "stranger", check=False)
        kubeconfig = stack.cluster.client_kubeconfig(NAMESPACE, "stranger", work / "kubeconfig")
    rewards = grpo.cluster_rewards(name, NAMESPACE, work / "judgements")
    run = grpo.GrpoRun(stack.prepared.verl, stack.prepared.models.root, work, rewards)
    arguments, environment = grpo.command(run, {**os.environ, "KUBECONFIG": str(kubeconfig)})
    lines, first = [], None
    with subprocess.Popen(
        arguments, env=environment, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if first is None and line.startswith("genrm: "):
                first = time.monotonic()
        code = process.wait(timeout=60)
    assert first is not None and time.monotonic() - first <= 10, "within 10 s of the plugin's first line"
    output = "".join(lines)
    assert code == 1 and "Traceback" not in output and "Started a local Ray instance" not in output
    says = {"no such model": MODEL, "cluster away": "127.0.0.1:9", "no permission": "genrm-client"}[case]
    (message,) = [line for line in lines if line.startswith("genrm: ")][1:]
    assert says in message, message


def test_the_killed_engine_comes_back_verified_and_the_story_is_told(asleep: Stack) -> None:
    assert asleep.status(MODEL)["ready"] == 2 and "EngineRestarted" in events(asleep)


def test_engines_sleep_soon_after_a_run_was_killed_while_it_scored(asleep: Stack, work: Path) -> None:
    ttl = 5
    with training(asleep, work, steps=50, overrides=(f"reward_model.lease_ttl_s={ttl}",)) as run:
        wait_for("the run scores", lambda: run.alive() and asleep.status(MODEL).get("awake") == 2, timeout=400)
        os.killpg(run.process.pid, signal.SIGKILL)
        killed = time.monotonic()
        sleep_seconds = asleep.wait_for_phase(MODEL, "Asleep", timeout=ttl + 30).get("lastSleepSeconds", 0.0)
        took = time.monotonic() - killed
    assert took <= ttl + sleep_seconds + 2, f"asleep {took:.1f} s after the kill, TTL {ttl} s, sleep {sleep_seconds} s"


def test_the_operator_killed_during_a_wake_converges_and_every_pod_serves_once(asleep: Stack) -> None:
    stack = asleep
    before = {pod: _wakes(address) for pod, address in addresses(stack).items()}
    leader = json.loads(stack.kubectl("-n", SYSTEM_NAMESPACE, "get", "lease", RELEASE, "-o", "json"))
    operator = leader["spec"]["holderIdentity"]
    lease = lease_manifest("e2e", MODEL, NAMESPACE, Phase.SCORING, datetime.now(UTC), ttl_seconds=120)
    stack.apply(lease)
    stack.cluster.kill_container(SYSTEM_NAMESPACE, operator, "operator")
    stack.wait_for_phase(MODEL, "Serving", timeout=120)
    # The EndpointSlice controller writes a moment after the pods' labels are there.
    wait_for("both are among the endpoints", lambda: served(stack) == sorted(addresses(stack).values()), 10)
    assert {pod: _wakes(address) - before[pod] for pod, address in addresses(stack).items()} == dict.fromkeys(before, 1)
    stack.kubectl("-n", NAMESPACE, "delete", "lease", lease_name("e2e", MODEL))
    stack.wait_for_phase(MODEL, "Asleep", timeout=60)


def served(stack: Stack) -> list[str]:
    """The addresses that clients are told of."""
    slices = stack.items("endpointslices", f"kubernetes.io/service-name={MODEL}-pods")
    ready = (e for s in slices for e in s.get("endpoints") or () if e["conditions"]["ready"])
    return sorted(address for endpoint in ready for address in endpoint["addresses"])


def _wakes(address: str) -> int:
    """How often this engine was woken, as it counts itself."""
    text = httpx.get(f"http://{address}:8000/metrics", timeout=10, trust_env=False).text
    pattern = r'^vllm:sleep_mode_operation_duration_seconds_count\{[^}]*operation="wake[^}]*\} ([0-9.]+)'
    return sum(int(float(n)) for n in re.findall(pattern, text, re.MULTILINE))


def test_admin_routes_are_closed_to_other_pods_and_the_engine_does_not_notice(asleep: Stack) -> None:
    stack = asleep
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "neighbour"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "c",
                    "image": "local/base:1",
                    "imagePullPolicy": "Never",
                    "command": ["busybox", "sleep", "600"],
                }
            ],
        },
    }
    stack.apply(pod)
    stack.kubectl("-n", NAMESPACE, "wait", "pod/neighbour", "--for=condition=Ready", "--timeout=60s")
    target = next(iter(addresses(stack).values()))
    curl = ["exec", "neighbour", "--", "curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}"]
    tried = {
        f"{method} {path}": stack.kubectl(
            "-n", NAMESPACE, *curl, "-X", method, "-H", "Authorization: Bearer guess", f"http://{target}:8000{path}"
        )
        for method, path in (
            ("POST", "/sleep?level=1"), ("POST", "/wake_up"), ("GET", "/is_sleeping"), ("POST", "/collective_rpc"),
            ("POST", "/update_weights"), ("GET", "/genrm/door"), ("PUT", "/genrm/door"), ("POST", "//wake_up"),
        )
    }  # fmt: skip
    assert set(tried.values()) == {"404"}, tried
    health = stack.kubectl("-n", NAMESPACE, *curl, f"http://{target}:8000/health")
    assert health == "200" and stack.status(MODEL)["phase"] == "Asleep"
    stack.kubectl("-n", NAMESPACE, "delete", "pod", "neighbour", "--wait")
