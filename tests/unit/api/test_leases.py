"""The demand protocol's wire format."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from genrm_api.leases import DemandLease, Grant, Phase, lease_manifest, lease_name
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 21, 10, 0, 0, 5, tzinfo=UTC)


@given(st.text(max_size=300), st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True))
def test_a_lease_name_is_a_valid_object_name_for_any_run(run: str, model: str) -> None:
    name = lease_name(run, model)
    assert len(name) <= 63 and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)


def test_two_runs_never_meet_in_one_lease_and_one_run_always_does() -> None:
    assert lease_name("a", "judge") == lease_name("a", "judge")
    assert lease_name("a", "judge") != lease_name("b", "judge")


def test_what_is_written_is_what_is_read() -> None:
    obj = lease_manifest("run-1", "judge", "rl", Phase.SCORING, NOW, ttl_seconds=15, reward_model_uid="u")
    lease = DemandLease.from_object(obj)
    assert (lease.run, lease.phase, lease.ttl_seconds, lease.reward_model) == ("run-1", Phase.SCORING, 15, "judge")
    assert lease.renewal == "2026-11-21T10:00:00.000005Z"
    assert obj["metadata"]["ownerReferences"][0]["uid"] == "u"


@pytest.mark.parametrize(
    ("label", "annotation", "slots"),
    [
        (None, None, ()),
        ("gpu-0", None, ("gpu-0",)),
        ("several_slots", "gpu-0,gpu-1", ("gpu-0", "gpu-1")),
        ("gpu-0", " gpu-1, gpu-0,gpu-0,", ("gpu-0", "gpu-1")),
        (None, "gpu-1", ("gpu-1",)),
        ("gpu-0", ",", ("gpu-0",)),
        ("", None, ("",)),
    ],
)
def test_whose_gpus_a_lease_is_for(label: str | None, annotation: str | None, slots: tuple[str, ...]) -> None:
    obj = lease_manifest("run-1", "judge", "rl", Phase.IDLE, NOW)
    if label is not None:
        obj["metadata"]["labels"]["genrm.dev/slot"] = label
    if annotation is not None:
        obj["metadata"]["annotations"]["genrm.dev/slots"] = annotation
    assert DemandLease.from_object(obj).slots == slots


@pytest.mark.parametrize("slots", ["gpu-0", ["gpu-0"], ["gpu-1", "gpu-0"], ("gpu-0", "gpu-1", "gpu-0")])
def test_who_names_the_same_slots_means_the_same_lease(slots: str | list[str]) -> None:
    obj = lease_manifest("run-1", "judge", "rl", Phase.IDLE, NOW, slots=slots)
    found = DemandLease.from_object(obj).slots
    assert set(found) == ({slots} if isinstance(slots, str) else set(slots))
    assert obj["metadata"]["name"] == lease_name("run-1", "judge", found) != lease_name("run-1", "judge")
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", obj["metadata"]["labels"]["genrm.dev/slot"])


def test_a_newer_clients_unknown_phase_keeps_the_engines_awake() -> None:
    obj = lease_manifest("run-1", "judge", "rl", Phase.IDLE, NOW)
    obj["metadata"]["annotations"]["genrm.dev/phase"] = "rehearsing"
    assert DemandLease.from_object(obj).phase.wants_awake


@pytest.mark.parametrize(
    ("said", "phase", "needed_in"),
    [
        ("12.5", Phase.PREWAKE, 12.5),
        ("12.5", Phase.SCORING, None),
        (None, Phase.PREWAKE, None),
        ("0.000", Phase.PREWAKE, None),
        ("-3", Phase.PREWAKE, None),
        ("soon", Phase.PREWAKE, None),
        ("nan", Phase.PREWAKE, None),
        ("inf", Phase.PREWAKE, None),
    ],
)
def test_what_is_no_time_to_come_is_now(said: str | None, phase: Phase, needed_in: float | None) -> None:
    obj = lease_manifest("run-1", "judge", "rl", phase, NOW)
    if said is not None:
        obj["metadata"]["annotations"]["genrm.dev/needed-in-seconds"] = said
    assert DemandLease.from_object(obj).needed_in == needed_in


AT = "2026-11-21T10:00:00.000005Z"


@pytest.mark.parametrize(
    ("word", "grant"),
    [
        (f"{AT} waited=2.100 engine=1.900", Grant(AT, 2.1, 1.9)),
        (f"{AT} waited=0.000", Grant(AT, 0.0)),
        pytest.param(AT, Grant(AT), id="an older operator's"),
        pytest.param(f"{AT} waited=2 canary=0.3 engine=1 by=x", Grant(AT, 2.0, 1.0), id="a newer one's"),
        pytest.param(f"{AT} waited=-1 engine=nan", Grant(AT), id="no seconds"),
        pytest.param("", Grant(""), id="nothing"),
    ],
)
def test_a_grant_says_how_long_was_waited_and_for_what_of_it_for_the_engine(word: str, grant: Grant) -> None:
    assert Grant.read(word) == grant
    assert Grant.read(str(grant)) == grant
