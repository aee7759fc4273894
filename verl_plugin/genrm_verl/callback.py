"""The driver's part: runs between Hydra's composition and verl's `main`, before Ray starts.

It resolves the reward model, rewrites the configuration, and takes the run's Lease, which this process then renews from
a background thread for as long as it lives: when the driver is killed, the renewal ends with it. Whatever is wrong ends
the run here with one message. Hydra turns exceptions of callbacks into warnings and would train on with another reward,
so every error leaves as `SystemExit`.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import traceback
from functools import partial
from types import FrameType
from typing import Any, Final, NoReturn

from genrm_api.judging import FailurePolicy
from genrm_scoring.errors import ClusterUnreachable, GenrmError
from genrm_scoring.fleet_leases import run_leases
from genrm_scoring.lease_thread import LeaseThread
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from genrm_verl import preflight, translate

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 4.5
RELEASE_SECONDS: Final = 6.0


class GenrmCallback(Callback):  # type: ignore[misc]
    """Named in the overlay; does nothing unless `reward_model.discovery` is set."""

    def __init__(self) -> None:
        self._lease: LeaseThread | None = None

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        try:
            self._lease = _begin(config)
        except GenrmError as e:
            raise SystemExit(f"genrm: {e}") from None
        except Exception:
            traceback.print_exc()
            raise SystemExit("genrm: the plugin failed as shown above; this is a bug, please report it") from None

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        if self._lease is not None:
            self._lease.close(RELEASE_SECONDS)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if OmegaConf.select(config, "reward_model.discovery") is not None:
            raise SystemExit("genrm: reward_model.discovery does not work with --multirun; start the runs one by one")


def _begin(config: DictConfig) -> LeaseThread | None:
    request = translate.read_request(config)
    if request is None:
        return None
    _say(preflight.announce(request))
    run = preflight.run_id(str(OmegaConf.select(config, "trainer.experiment_name", default="run")))
    if request.discovery == "static":
        section = preflight.static_section(request, run, translate.workers(config, request))
        translate.apply(config, section, request, os.environ)
        return None
    return _begin_in_cluster(config, request, run)


def _begin_in_cluster(config: DictConfig, request: translate.RewardRequest, run: str) -> LeaseThread:
    from genrm_scoring.kubernetes import connect  # a second of imports that other Hydra runs need not pay

    workers = translate.workers(config, request)
    section, target, found = preflight.cluster_section(connect, request, run, workers)
    translate.apply(config, section, request, os.environ)
    hold = partial(run_leases, run=run, models=target.models, ttl_seconds=section.lease_ttl_s)
    thread = LeaseThread(connect, hold)
    try:
        lease = thread.start(LEASE_SECONDS)
    except TimeoutError:
        raise ClusterUnreachable("KUBECONFIG", f"no Lease for this run within {LEASE_SECONDS} s") from None
    atexit.register(thread.close, RELEASE_SECONDS)
    _leave_in_order_when_terminated()
    holds = f"holds Lease {lease.name}" if lease.name else "needs no Lease"
    _say(f"{found}; run {run} {holds}")
    if target.on_failure.policy is FailurePolicy.DROP and translate.drops_kill_the_run(config):
        _say("with trainer.use_v1=False verl stops at the first score that fails (onFailure.policy is drop)")
    return thread


def _leave_in_order_when_terminated() -> None:
    """SIGTERM must end the program through its exit handlers; Ray sees to that too, but only once it is up."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit_on_signal)


def _exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _say(sentence: str) -> None:
    sys.stderr.write(f"genrm: {sentence}\n")
    sys.stderr.flush()
