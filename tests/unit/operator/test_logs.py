"""JSON logs: one object a line, fields from the template only."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from genrm_operator import logs
from genrm_operator.errors import ConfigurationError
from genrm_operator.settings import Settings


def line(message: object, *args: object, **more: Any) -> dict[str, Any]:
    record = logging.LogRecord("genrm_operator.x", logging.INFO, __file__, 1, message, args, more.pop("exc_info", None))
    for name, value in more.items():
        setattr(record, name, value)
    text = logs.JsonFormatter().format(record)
    assert "\n" not in text
    return dict(json.loads(text))


@pytest.mark.parametrize(
    ("message", "args", "expected"),
    [
        ("serves namespace=%s pod=%s boot_id=%s", ("rl", "judge-0", "b1"), ("rl", "judge-0", "b1")),
        ("look failed reward_model=%s/%s %s", ("rl", "judge", "404"), ("rl/judge",)),
        ("%s done pod=%s seconds=%.3f", ("wake", "judge-0", 1.23456), ("judge-0", 1.235)),
        ("stops serving pod=%s because=%r", ("judge-0", "it's over"), ("judge-0", "it's over")),
        ("100%% of n=%d", (3,), (3,)),
        ("leads identity=%s epoch=%s", ("a", 7), ("a", 7)),
        ("leads epoch=%s", (None,), (None,)),
        ("applied %s name=%s", ("Pod", "x pod=evil"), ("x pod=evil",)),
    ],
)
def test_pairs_of_the_template_become_fields(message: str, args: tuple[object, ...], expected: tuple[Any, ...]) -> None:
    made = line(message, *args)
    assert made.pop("message") == message % args
    extra = {key: made[key] for key in made if key not in ("time", "level", "logger")}
    assert tuple(extra.values()) == expected


@pytest.mark.parametrize("message", ["f-string with 50% and no=args", "", 42, "dangling %"])
def test_a_message_without_arguments_is_left_alone(message: object) -> None:
    assert set(line(message)) == {"time", "level", "logger", "message"}


def test_no_field_replaces_what_every_line_has() -> None:
    assert line("level=%s time=%s message=%s", "x", "y", "z")["level"] == "INFO"


def test_an_exception_is_one_field() -> None:
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        made = line("broken", exc_info=sys.exc_info())
    assert "RuntimeError: two\nlines" in made["exception"]


def test_kopfs_records_name_their_object() -> None:
    about = {"kind": "RewardModel", "name": "judge", "namespace": "rl"}
    assert line("Handler failed", k8s_ref=about)["object"] == about


@pytest.fixture
def untouched_logging() -> Any:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_every_logger_speaks_json(untouched_logging: None, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "INFO")
    logging.getLogger("kopf._core.reactor.running").info("kopf speaks")
    logging.getLogger("aiohttp.access").info("not this")
    logging.getLogger("genrm_operator.x").debug("nor this")
    logging.getLogger("genrm_operator.x").info("pod=%s", "p")
    lines = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    assert [made["message"] for made in lines] == ["kopf speaks", "pod=p"]


@pytest.mark.parametrize(
    ("name", "word"), [("GENRM_LOG_FORMAT", "xml"), ("GENRM_LOG_LEVEL", "loud"), ("GENRM_METRICS_PORT", "http")]
)
def test_an_unknown_word_is_refused_with_its_name(name: str, word: str, tmp_path: Any) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    with pytest.raises(ConfigurationError, match=rf"{name}='{word}'"):
        Settings.from_environment({"GENRM_MASTER_KEY_FILE": str(key), name: word})
