"""`make demo`: everything from nothing, on this machine; exit status 0 only if all of it was observed."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from dev import grpo
from dev.bootstrap import ROOT
from dev.cluster import ClusterError, known
from dev.demo import plot, report
from dev.demo.evidence import Check, Evidence
from dev.demo.training import Training, TrainingFailed
from dev.demo.watch import Watcher, memory_in_use
from dev.prepare import PREPARATION_ERRORS, Prepared, prepare
from dev.stack import Stack, StackError, judge
from dev.steps import Steps

CLUSTER = "demo"
NAMESPACE = "rl"
MODEL = "judge"
PODS = 2
PICTURE = ROOT / "demo-timeline.png"


def main() -> int:
    options = argparse.ArgumentParser(prog="make demo", description=__doc__)
    options.add_argument("--keep", action="store_true", help="leave the cluster and the model up")
    options.add_argument("--steps", type=int, default=3, help="training steps")
    asked = options.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    steps = Steps(console)
    console.print("[bold]1. Prepare[/]  (made once, kept in ~/.cache/genrm)")
    if known().get(CLUSTER):
        console.print("The cluster of an earlier demo is up; run `make cluster-down` first.")
        return 1
    try:
        prepared = prepare(steps)
    except PREPARATION_ERRORS as error:
        console.print(f"[red]{escape(str(error))}[/]", highlight=False)
        return 1
    work = Path(tempfile.mkdtemp(prefix="genrm-demo-"))
    try:
        checks = run(asked, console, steps, prepared, work)
    except (StackError, TrainingFailed, ClusterError) as error:
        console.print(f"[red]{escape(str(error))}[/]", highlight=False)
        console.print(f"The run's files are in {work}")
        if asked.keep:
            console.print("The cluster may be up still: make cluster-status, make cluster-down")
        return 1
    report.show_checks(console, checks)
    ok = all(check.ok for check in checks)
    console.print(
        f"\n{'[bold green]All of it was observed' if ok else '[bold red]Not all of it was observed'}[/]", end=""
    )
    console.print(f" in {time.monotonic() - steps.began:.0f} s.")
    if ok and not asked.keep:
        shutil.rmtree(work, ignore_errors=True)
    else:
        console.print(f"The run's files (verl.log, judgements) are in {work}")
    return 0 if ok else 1


def run(asked: argparse.Namespace, console: Console, steps: Steps, prepared: Prepared, work: Path) -> list[Check]:
    console.print("\n[bold]2. Kubernetes, and the operator by Helm[/]")
    memory_before = memory_in_use()
    stack = Stack.up(CLUSTER, NAMESPACE, prepared, steps, die_with_parent=not asked.keep)
    try:
        evidence, peak = _score(asked, console, steps, stack, work, memory_before)
        report.show(console, evidence)
        plot.draw(evidence, PICTURE)
        memory = f"{peak / 2**30:.1f} GiB"
        console.print(
            f"\n[bold]Peak memory[/]  {memory}, all processes together     [bold]Picture[/]  {PICTURE.name}",
            highlight=False,
        )
        console.print("\n[bold]kubectl describe rm judge[/] tells it like this:")
        console.print(_events(stack), style="dim", highlight=False, markup=False)
        checks = evidence.checks()
        if not asked.keep:
            console.print("[bold]4. Remove everything[/]")
            checks.append(_remove(steps, stack))
    except BaseException:
        if not asked.keep:
            stack.cluster.down()
        raise
    if asked.keep:
        _next_with_cluster(console, stack)
    else:
        with steps.step("cluster down"):
            stack.cluster.down()
        console.print("\n[bold]Next[/]", highlight=False)
        for words in ("make demo KEEP=1", "less examples/rewardmodel.yaml", "make test"):
            console.print(f"  {words}", highlight=False)
    return checks


def _score(
    asked: argparse.Namespace, console: Console, steps: Steps, stack: Stack, work: Path, memory_before: int
) -> tuple[Evidence, int]:
    """Train with rewards from the cluster; return what was seen, and the most memory that was in use."""
    console.print("\n[bold]3. kubectl apply -f rewardmodel.yaml[/], and at once a stock verl GRPO run")
    with steps.step("kubectl apply"):
        stack.apply(judge(stack.prepared.models.judge, name=MODEL, replicas=PODS))
    rewards = grpo.cluster_rewards(MODEL, NAMESPACE, work / "judgements")
    run = grpo.GrpoRun(stack.prepared.verl, stack.prepared.models.root, work, rewards, steps=asked.steps, n=2, epochs=4)
    _show_command(console, run)

    def told(number: int, reward: float, gradient: float) -> None:
        console.print(f"    step {number}: mean reward {reward:.3f}, gradient norm {gradient:.3f}", highlight=False)

    watcher = Watcher(lambda: _addresses(stack), memory_before)
    with watcher, Training(run, stack.client_kubeconfig()) as training:

        def verified(status: Mapping[str, Any]) -> bool:
            training.ended()  # a run that failed meanwhile says so now
            return bool(status.get("engine")) and status.get("ready") == status.get("replicas") == PODS

        with steps.step(f"{PODS} vLLM pods start and are verified; verl starts") as notes:
            status = stack.wait_for_status(MODEL, verified, f"{PODS} engine pods", timeout=400)
            notes.append(status["engine"])
        with steps.step("training"):
            output = training.wait(told, timeout=420)
        ended = time.time()
        with steps.step("engines sleep again"):
            stack.wait_for_phase(MODEL, "Asleep", timeout=60)
            _wait_for_last_samples(watcher, list(_addresses(stack)))
    evidence = Evidence(
        steps=asked.steps,
        samples_per_step=run.samples_per_step,
        training=grpo.read_training(output),
        judgements=grpo.read_lines(work / "judgements", "judgements"),
        samples=watcher.samples,
        engine=status["engine"],
        pods=sorted(_addresses(stack)),
        ended_at=ended,
    )
    return evidence, watcher.peak_memory_bytes


def _wait_for_last_samples(watcher: Watcher, pods: list[str]) -> None:
    """The status says asleep; wait until the watcher has asked each engine once more."""
    since, deadline = time.time(), time.monotonic() + 10
    while time.monotonic() < deadline:
        if {s.pod for s in list(watcher.samples) if s.at > since} >= set(pods):
            return
        time.sleep(0.1)


def _show_command(console: Console, run: grpo.GrpoRun) -> None:
    """The whole command, as a person would paste it: stock but for the overrides."""
    arguments, environment = grpo.command(run, {})
    lines = [" ".join(f"{name}={value}" for name, value in environment.items())]
    lines += ["python -m verl.trainer.main_ppo", *(f"  {shlex.quote(override)}" for override in arguments[3:])]
    console.print(" \\\n".join(f"    {line}" for line in lines), style="dim", highlight=False, markup=False)


def _addresses(stack: Stack) -> Mapping[str, str]:
    pods = stack.items("pods", f"genrm.dev/reward-model={MODEL}")
    return {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods if pod["status"].get("podIP")}


def _events(stack: Stack) -> str:
    described = stack.kubectl("-n", NAMESPACE, "describe", "rm", MODEL)
    return described[described.index("Events:") :]


def _remove(steps: Steps, stack: Stack) -> Check:
    with steps.step("kubectl delete rm, helm uninstall, namespaces, CRD"):
        stack.kubectl("-n", NAMESPACE, "delete", "rm", MODEL, "--wait")
        stack.wait_for_no_children(MODEL, timeout=90)
        stack.uninstall()
    left = stack.leftovers()
    return Check("everything applied was removed again", not left, ", ".join(left) or "nothing of ours is left")


def _next_with_cluster(console: Console, stack: Stack) -> None:
    console.print("\n[bold]The cluster stays up.[/] Next:", highlight=False)
    bin_path = stack.cluster.bin
    for words in (
        f"export KUBECONFIG={stack.cluster.kubeconfig} PATH={bin_path}:$PATH",
        f"kubectl -n {NAMESPACE} get rm -w",
        f'kubectl -n {NAMESPACE} patch rm {MODEL} --type merge -p \'{{"spec":{{"lifecycle":{{"state":"Awake"}}}}}}\'',
        "make cluster-down",
    ):
        console.print(f"  {words}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
