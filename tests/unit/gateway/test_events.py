"""Where server-sent events end, whatever pieces their bytes come in."""

from __future__ import annotations

import json
import re

import pytest
from genrm_gateway.events import Cutter, error_event
from hypothesis import given
from hypothesis import strategies as st

ONE, TWO, DONE = b'data: {"a": "\xc3\xa9"}\n\n', b": still there\n\n", b"data: [DONE]\n\n"
WINDOWS = ONE.replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    ("pieces", "events", "ended"),
    [
        ([], [], False),
        ([b""], [b""], False),
        ([ONE], [ONE], False),
        ([ONE + TWO], [ONE + TWO], False),
        ([ONE + TWO[:5], TWO[5:]], [ONE, TWO], False),
        ([ONE[:-1], b"\n" + TWO], [b"", ONE + TWO], False),
        ([WINDOWS[:-2], b"\r\n"], [b"", WINDOWS], False),
        ([ONE + DONE], [ONE + DONE], True),
        ([DONE[:8], DONE[8:]], [b"", DONE], True),
        ([DONE + TWO], [DONE + TWO], True),
        ([DONE, TWO], [DONE, TWO], True),
        ([b"data:[DONE]\r\n\r\n"], [b"data:[DONE]\r\n\r\n"], True),
        ([b'data: {"content": "data: [DONE]"}\n\n'], [b'data: {"content": "data: [DONE]"}\n\n'], False),
        ([b"data: [DONE] or not\n\n"], [b"data: [DONE] or not\n\n"], False),
    ],
)
def test_events_are_returned_whole_and_the_last_is_known(pieces: list[bytes], events: list[bytes], ended: bool) -> None:
    cutter = Cutter()
    assert [cutter.whole(piece) for piece in pieces] == events
    assert cutter.ended is ended


@pytest.mark.parametrize(
    ("left", "rest"), [(b"data: [DONE]", DONE), (b"data: [DONE]\n", b"data: [DONE]\n\n\n"), (ONE[:-2], b""), (b"", b"")]
)
def test_at_the_end_only_the_last_event_may_lack_its_empty_line(left: bytes, rest: bytes) -> None:
    cutter = Cutter()
    assert cutter.whole(ONE + left) == ONE
    assert cutter.rest() == rest and cutter.ended is bool(rest)


@given(st.lists(st.sampled_from([ONE, TWO, WINDOWS])), st.lists(st.integers(1, 30), min_size=1))
def test_no_cut_loses_or_splits_an_event(events: list[bytes], lengths: list[int]) -> None:
    said, cutter, found = b"".join(events) + DONE, Cutter(), b""
    while said:
        length = lengths[len(said) % len(lengths)]
        some, said = said[:length], said[length:]
        whole = cutter.whole(some)
        assert not whole or re.search(rb"(\n\n|\r\n\r\n)$", whole)
        found += whole
    assert found == b"".join(events) + DONE and cutter.ended


def test_an_error_is_an_event_with_the_fields_of_openais_errors() -> None:
    event = error_event("timeout", "too\nlate")
    assert event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2
    assert json.loads(event.removeprefix(b"data: "))["error"] == {
        "message": "too\nlate",
        "type": "server_error",
        "param": None,
        "code": "timeout",
        "outcome": "timeout",
    }
