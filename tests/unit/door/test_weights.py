"""The launcher finds out which weights a start reads, and gives the engine exactly those."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from genrm_door import launcher
from genrm_door.weights import HUB_SECONDS, PIN_DIR_ENV, PIN_FILE, Weights, look_up, of_path, weight_files

from tests.unit.door.hub import Hub, hub
from tests.unit.door.stock import ADMIN, launched

ONE, TWO = "1" * 40, "2" * 40
BYTES = 5_000_000_000
MODEL = ["--model", "org/judge", "--port", "8000"]


@pytest.fixture
def here() -> Iterator[Hub]:
    with hub([ONE]) as up:
        yield up


@pytest.fixture
def environ(here: Hub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": here.url, "HF_HOME": str(tmp_path / "hf"), PIN_DIR_ENV: str(tmp_path / "pin")}


def found(args: list[str], environ: Mapping[str, str]) -> tuple[Weights, list[str]]:
    return look_up(args, environ, sleep=lambda _: None)


def pin(environ: Mapping[str, str], text: str) -> None:
    folder = Path(environ[PIN_DIR_ENV])
    folder.mkdir(exist_ok=True)
    (folder / PIN_FILE).write_text(text)


def cached(environ: Mapping[str, str], commit: str, branch: str = "main", size: int = 0) -> None:
    repository = Path(environ["HF_HOME"]) / "hub" / "models--org--judge"
    (repository / "refs" / branch).parent.mkdir(parents=True)
    (repository / "refs" / branch).write_text(commit)
    if size:
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "model.safetensors").write_bytes(b"0" * size)


@pytest.mark.parametrize(
    ("args", "branch", "rest"),
    [
        (MODEL, "main", MODEL),
        ([*MODEL, "--revision", "v1"], "v1", MODEL),
        (["--revision=v0", *MODEL, "--revision", "feature/x"], "feature%2Fx", MODEL),
        (["--model-path=org/judge"], "main", ["--model-path=org/judge"]),
    ],
)
def test_a_branch_becomes_the_commit_that_it_is_now(
    here: Hub, environ: dict[str, str], args: list[str], branch: str, rest: list[str]
) -> None:
    weights, given = found(args, environ)
    assert (weights, given) == (Weights(ONE, BYTES), [*rest, f"--revision={ONE}"])
    assert here.asked == [(f"/api/models/org/judge/revision/{branch}?blobs=true", None)]


def test_a_branch_that_moves_gives_the_next_start_another_commit_and_a_pin_holds_it(
    here: Hub, environ: dict[str, str]
) -> None:
    here.commits = [ONE, TWO]
    first, _ = found(MODEL, environ)
    second, _ = found(MODEL, environ)
    assert (first.revision, second.revision) == (ONE, TWO), "this is what the pin is for"
    pin(environ, first.to_json())
    asked = len(here.asked)
    weights, given = found([*MODEL, "--revision", "main"], environ)
    assert (weights, given) == (first, [*MODEL, f"--revision={ONE}"])
    assert len(here.asked) == asked, "nobody is asked what is known"


def test_a_commit_is_what_it_is_whatever_the_pin_says(here: Hub, environ: dict[str, str]) -> None:
    pin(environ, Weights(TWO, 1).to_json())
    args = [*MODEL, "--revision", ONE]
    assert found(args, environ) == (Weights(ONE, BYTES), args)
    here.status = 500
    here.asked.clear()
    assert found(args, environ) == (Weights(ONE, None), args)
    assert len(here.asked) == 1, "its size alone is not worth a wait"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"revision": 5}', '{"revision": "--trust-remote-code"}', "null"])
def test_a_pin_that_is_none_is_passed_over(environ: dict[str, str], text: str) -> None:
    pin(environ, text)
    assert found(MODEL, environ)[0] == Weights(ONE, BYTES)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_the_hub_refuses_is_not_asked_again(here: Hub, environ: dict[str, str], status: int) -> None:
    here.status = status
    assert found(MODEL, environ) == (Weights(), MODEL)
    assert len(here.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_is_asked_three_times_and_then_the_cache(
    here: Hub, environ: dict[str, str], status: int
) -> None:
    here.status = status
    assert found(MODEL, environ) == (Weights(), MODEL), "the engine is left to its own devices"
    assert len(here.asked) == 3
    cached(environ, TWO, size=77)
    assert found(MODEL, environ) == (Weights(TWO, 77), [*MODEL, f"--revision={TWO}"])


def test_nobody_listens(environ: dict[str, str]) -> None:
    environ["HF_ENDPOINT"] = "http://127.0.0.1:1"
    assert found(MODEL, environ) == (Weights(), MODEL)


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_the_cache_decides_and_nobody_is_asked(here: Hub, environ: dict[str, str], name: str) -> None:
    environ[name] = "1"
    assert found(MODEL, environ) == (Weights(), MODEL)
    cached(environ, TWO)
    assert found(MODEL, environ) == (Weights(TWO, None), [*MODEL, f"--revision={TWO}"])
    assert here.asked == []


def test_the_download_folder_of_the_engine_is_its_cache(environ: dict[str, str], tmp_path: Path) -> None:
    environ["HF_HUB_OFFLINE"] = "1"
    refs = tmp_path / "own" / "models--org--judge" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(TWO + "\n")
    assert found([*MODEL, f"--download-dir={tmp_path / 'own'}"], environ)[0].revision == TWO


def test_the_token_goes_to_the_hub_and_nowhere_else(here: Hub, environ: dict[str, str]) -> None:
    environ["HF_TOKEN"] = " hf_secret\n"
    here.status = 307
    found(MODEL, environ)
    (_, first), *others = here.asked
    assert first == "Bearer hf_secret"
    assert others and all(authorization is None for _, authorization in others)


def test_another_hub_is_not_asked_in_the_words_of_this_one(here: Hub, environ: dict[str, str]) -> None:
    environ["VLLM_USE_MODELSCOPE"] = "True"
    assert found(MODEL, environ) == (Weights(), MODEL)
    assert here.asked == []


def test_sizes_may_be_unknown(here: Hub, environ: dict[str, str]) -> None:
    here.sizes = False
    assert found(MODEL, environ)[0] == Weights(ONE, None)


def folder(path: Path, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


def test_a_folder_is_named_by_its_index_and_sizes(tmp_path: Path) -> None:
    same = {"model__safetensors": "12345", "config__json": "{}", "README__md": "x"}
    one = of_path(folder(tmp_path / "a", **same))
    assert one.bytes == 5 and one.revision is not None and len(one.revision) == len("sha256:") + 64
    assert of_path(folder(tmp_path / "b", **same, notes__txt="other")) == one, "what is no weight does not count"
    for other in ({"model__safetensors": "123456"}, {"config__json": "{ }"}, {"model__safetensors__index__json": "{}"}):
        assert of_path(folder(tmp_path / f"c{len(str(other))}", **{**same, **other})).revision != one.revision
    assert found(["--model", str(tmp_path / "a")], {}) == (one, ["--model", str(tmp_path / "a")])


def test_what_is_no_folder_of_weights_has_no_name(tmp_path: Path) -> None:
    assert of_path(tmp_path / "missing") == of_path(folder(tmp_path / "empty")) == Weights()
    assert found([], {}) == (Weights(), [])


def test_one_file_is_weights_too(tmp_path: Path) -> None:
    (tmp_path / "judge.gguf").write_bytes(b"123")
    assert of_path(tmp_path / "judge.gguf").bytes == 3


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["b.safetensors", "a.safetensors", "x.bin"], ["a.safetensors", "b.safetensors"]),
        (["consolidated.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["consolidated.safetensors", "params.json"], ["consolidated.safetensors"]),
        (["original/model.pt", "pytorch_model.bin"], ["pytorch_model.bin"]),
        (["README.md"], []),
    ],
)
def test_the_files_that_an_engine_loads(names: list[str], chosen: list[str]) -> None:
    assert weight_files(names) == chosen


def test_the_door_of_a_launched_engine_tells_it(here: Hub, environ: dict[str, str], tmp_path: Path) -> None:
    """The whole way: the launcher's arguments, a real process, the document."""
    for commits, pinned in (([ONE], False), ([TWO], True)):
        here.commits = commits
        with launched(tmp_path, environ=environ, model="org/judge") as pod:
            document = pod.http.get("/genrm/door", headers=ADMIN).json()
            assert document["weights"] == {"revision": ONE, "bytes": BYTES}
            assert pod.http.get("/v1/models").json()["args"][-2:] == ["org/judge", f"--revision={ONE}"]
        if not pinned:
            pin(environ, json.dumps(dataclasses.asdict(Weights(ONE, BYTES))))


def test_a_container_that_is_stopped_while_it_asks_ends_at_once(tmp_path: Path) -> None:
    """As number 1 of its container it hears of no signal for which it has no handler."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "HF_HUB_OFFLINE": "0"}
        words = [sys.executable, launcher.__file__, "--engine", "vllm", "--", *MODEL]
        process = subprocess.Popen(words, env=environ, cwd=tmp_path, stderr=subprocess.PIPE)
        with silent.accept()[0], process:
            process.terminate()
            assert process.wait(HUB_SECONDS / 2) == 128 + signal.SIGTERM


def test_nothing_from_outside_passes_for_the_launchers_word(tmp_path: Path) -> None:
    with launched(tmp_path, environ={"GENRM_WEIGHTS": json.dumps({"revision": TWO, "bytes": 1})}) as pod:
        document = pod.http.get("/genrm/door", headers=ADMIN).json()
        assert document["weights"] == {"revision": None, "bytes": None}
