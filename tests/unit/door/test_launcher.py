"""The launcher decides one command and one environment, and becomes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from genrm_door import launcher
from genrm_door.launcher import engine_command
from genrm_operator.door_source import ARCHIVE_NAME, door_source

OWN = ["--api-server-count=1", "--middleware=genrm_door.asgi.Door"]


@pytest.mark.parametrize(
    ("args", "environ", "tail", "added"),
    [
        pytest.param([], {}, OWN, {"PYTHONPATH": "/genrm"}, id="nothing given"),
        pytest.param(["--model", "m"], {}, ["--model", "m", *OWN], {"PYTHONPATH": "/genrm"}, id="ours comes last"),
        pytest.param(
            ["--middleware", "their.Own", "--api-server-count", "4"],
            {},
            ["--middleware", "their.Own", "--api-server-count", "4", *OWN],
            {"PYTHONPATH": "/genrm"},
            id="the last middleware is the outermost, the last count wins",
        ),
        pytest.param([], {"PYTHONPATH": "/a:/b"}, OWN, {"PYTHONPATH": "/genrm:/a:/b"}, id="keeps a path"),
        pytest.param([], {"PYTHONPATH": "/a::/genrm"}, OWN, {"PYTHONPATH": "/genrm:/a"}, id="adds itself once"),
        pytest.param(
            [], {"VLLM_SERVER_DEV_MODE": "0", "HOME": "/h"}, OWN, {"PYTHONPATH": "/genrm", "HOME": "/h"}, id="dev mode"
        ),
    ],
)
def test_the_command_adds_the_door_and_nothing_else(
    args: list[str], environ: dict[str, str], tail: list[str], added: dict[str, str]
) -> None:
    before = dict(environ)
    argv, env = engine_command("vllm", args, environ, python="/usr/bin/python3", root="/genrm")
    assert argv == ["/usr/bin/python3", "-m", "vllm.entrypoints.openai.api_server", *tail]
    assert env == {**added, "GENRM_ENGINE": "vllm", "VLLM_SERVER_DEV_MODE": "1"}
    assert environ == before


SGLANG = ["--tokenizer-worker-num=1", "--skip-server-warmup"]


@pytest.mark.parametrize(
    ("args", "routes"),
    [
        (["--model-path", "m"], "sglang"),
        (["--is-embedding", "--model-path", "m"], "sglang-embedding"),
        (["--tokenizer-worker-num", "4"], "sglang"),
    ],
)
def test_sglang_is_started_by_the_module_that_wraps_it(args: list[str], routes: str) -> None:
    environ = {"SGLANG_GRPC_PORT": "1", "SGLANG_RUST_SERVER": "1", "HOME": "/h"}
    argv, env = engine_command("sglang", args, environ, python="/usr/bin/python3", root="/genrm")
    assert argv == ["/usr/bin/python3", "-m", "genrm_door.sglang_server", *args, *SGLANG]
    assert {name: env.get(name) for name in ("GENRM_ENGINE", "PYTHONPATH", "HOME")} == {
        "GENRM_ENGINE": routes,
        "PYTHONPATH": "/genrm",
        "HOME": "/h",
    }
    assert env["SGLANG_RUST_SERVER"] == "0"
    assert "SGLANG_GRPC_PORT" not in env


@pytest.mark.parametrize("engine", ["custom", "", "VLLM", "sglang-embedding"])
def test_an_engine_without_a_door_is_refused_with_a_sentence(engine: str) -> None:
    with pytest.raises(ValueError, match="no door for engine"):
        engine_command(engine, [], {}, python="python3", root="/genrm")


def test_a_command_line_without_the_separator_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, launcher.__file__, "--engine", "vllm", "--model", "m"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "unrecognized arguments" in done.stderr or "behind --" in done.stderr


def test_it_becomes_the_engine_from_a_configmap_mount(tmp_path: Path) -> None:
    """Kubernetes mounts a ConfigMap as links into a hidden folder; the engine imports the door out of the archive."""
    mount = tmp_path / "genrm" / "door"
    hidden = mount / "..2026_11_21"
    hidden.mkdir(parents=True)
    (hidden / ARCHIVE_NAME).write_bytes(door_source().archive)
    (mount / "..data").symlink_to(hidden.name)
    archive = mount / ARCHIVE_NAME
    archive.symlink_to(f"..data/{ARCHIVE_NAME}")
    package = tmp_path / "stock" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    (package / "api_server.py").write_text(
        "import genrm_door.asgi, os, sys\n"
        "print(os.getpid(), genrm_door.__file__, os.environ['VLLM_SERVER_DEV_MODE'], *sys.argv[1:])\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(archive), "launcher", "--engine", "vllm", "--", "--port", "1"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "stock")},
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.split() == [str(process.pid), str(archive / "genrm_door" / "__init__.py"), "1", "--port", "1", *OWN]


@pytest.mark.parametrize("words", [[], ["asgi"], ["os"]])
def test_the_archive_runs_its_scripts_and_nothing_else(tmp_path: Path, words: list[str]) -> None:
    archive = tmp_path / ARCHIVE_NAME
    archive.write_bytes(door_source().archive)
    done = subprocess.run([sys.executable, archive, *words], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and done.stderr.startswith("usage: genrm_door.pyz launcher|router|terminate")
