"""What the pod of `helm test` does: the program of that pod, with the permissions of that pod, as a process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dev.bootstrap import ROOT
from tests.cluster.conftest import World, wait_for

pytestmark = pytest.mark.cluster

VERDICTS = {"structured": {"choice": [r"\boxed{True}", r"\boxed{False}"]}}


def score(world: World, target: str, wait: int = 30) -> subprocess.CompletedProcess[str]:
    account = "genrm-operator-test"
    world.kubectl("create", "serviceaccount", account)
    subject = f"--serviceaccount={world.namespace}:{account}"
    world.kubectl("create", "rolebinding", account, "--clusterrole=genrm-client", subject)
    kubeconfig = world.cluster.client_kubeconfig(world.namespace, account)
    command = [sys.executable, "-m", "genrm_scoring.smoke", target, "--wait", str(wait)]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_model_that_sleeps_wakes_scores_one_sample_and_sleeps_again(world: World) -> None:
    world.apply(scoring={"sampling": VERDICTS})
    world.phase("Asleep")
    done = score(world, f"{world.namespace}/judge")
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert said[0] == f"RewardModel {world.namespace}/judge: Asleep"
    assert said[-1].startswith("ok by http://") and " is worth " in said[-1]
    assert sum(world.calls("/v1/chat/completions").values()) >= 1
    wait_for("the Lease to be given back", lambda: not world.objects("leases"))
    world.phase("Asleep")


def test_a_model_that_cannot_serve_fails_the_test_and_says_where_to_look(world: World) -> None:
    world.apply(lifecycle={"state": "Asleep"})
    world.phase("Asleep")
    done = score(world, f"{world.namespace}/judge", wait=1)
    assert done.returncode == 1
    assert f"kubectl -n {world.namespace} describe rm judge says why" in done.stdout, done.stdout + done.stderr


def test_a_name_that_is_wrong_is_told_in_one_sentence(world: World) -> None:
    done = score(world, f"{world.namespace}/jugde")
    assert done.returncode == 1
    assert done.stdout.startswith(f"failed: there is no RewardModel jugde in namespace {world.namespace}")
    assert "Traceback" not in done.stderr
