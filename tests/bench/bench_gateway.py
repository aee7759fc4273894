"""What the gateway costs: `make bench-gateway`.

An engine that answers at once and a client, both in Go, on the same machine as the gateway. First the client asks the
engine itself, then through the gateway, one request at a time: the difference is what the gateway adds to a judgement.
Then as many single samples and batches as it bears, by rules and by the judge, and what its memory does over a million.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from dev.bootstrap import ROOT
from tests.bench.common import Figures
from tests.simulator.client import free_port

RESPONSE: Final = "Two and two are four. " * 45 + r"So it is \boxed{4}."
SAMPLE: Final = {"prompt": "What is 2 + 2?", "response": RESPONSE, "ground_truth": "4"}
SINGLE: Final = {
    "data_source": "sums",
    "solution_str": f"What is 2 + 2?{RESPONSE}",
    "ground_truth": "4",
    "extra_info": {"split": "train"},
    "prompt_str": "What is 2 + 2?",
    "response_str": RESPONSE,
}
QUESTION: Final = {"model": "judge", "messages": [{"role": "user", "content": RESPONSE}]}
BATCH: Final = 256


def spec(engine: int) -> list[dict[str, Any]]:
    judge = {"type": "External", "external": {"url": f"http://127.0.0.1:{engine}/v1"}}
    rules = {"terms": [{"name": "right", "rule": {"kind": "numeric", "extract": "boxed"}}]}
    return [
        {"kind": "RewardModel", "metadata": {"name": "judge"}, "spec": judge},
        {"kind": "RewardFleet", "metadata": {"name": "rules"}, "spec": rules},
    ]


@contextmanager
def started(*command: str, until: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process, and its first line that has `until` in it."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if until in line), "") if until else ""
        yield process, line
    finally:
        process.terminate()
        process.wait(30)


class Load:
    def __init__(self, program: Path, work: Path) -> None:
        self._program, self._work = program, work

    def ask(self, url: str, body: Mapping[str, Any], connections: int, requests: int) -> dict[str, float]:
        (path := self._work / "body.json").write_text(json.dumps(body))
        command = [str(self._program), "load", url, str(connections), str(requests), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
        found: dict[str, float] = json.loads(done.stdout)
        if found["failed"]:
            raise SystemExit(f"{url}: {found['failed']:.0f} of {requests} requests failed")
        return found


def rss_mib(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description="What the gateway costs.")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=1_000_000, help="for the memory")
    given = parser.parse_args()
    figures, n = Figures(), given.requests
    with ExitStack() as opened:
        work = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="genrm-gateway-")))
        program, engine = work / "gateway_load", free_port()
        subprocess.run(["go", "build", "-o", program, "."], cwd=Path(__file__).parent / "gateway_load", check=True)
        (work / "spec.yaml").write_text(yaml.safe_dump_all(spec(engine)))
        opened.enter_context(started(str(program), "engine", str(engine)))
        command = [sys.executable, "-m", "genrm_gateway.main", "--spec", str(work / "spec.yaml"), "--port", "0"]
        gateway, line = opened.enter_context(started(*command, "--host", "127.0.0.1", until="listens at"))
        url = line.partition("listens at ")[2].split()[0]
        httpx.get(f"{url}/healthz", trust_env=False).raise_for_status()
        load = Load(program, work)
        load.ask(f"{url}/judge/get_reward2", SINGLE, 1, 200)  # what is imported at the first request is no cost of one

        direct = load.ask(f"http://127.0.0.1:{engine}/v1/chat/completions", QUESTION, 1, n)
        judged = load.ask(f"{url}/judge/get_reward2", SINGLE, 1, n)
        passed = load.ask(f"{url}/judge/v1/chat/completions", QUESTION, 1, n)
        figures.note("engine itself, one at a time, p50", direct["p50_ms"], "ms")
        figures.note("added to a judgement, p50", judged["p50_ms"] - direct["p50_ms"], "ms", most=1.5)
        figures.note("added to a judgement, p99", judged["p99_ms"] - direct["p99_ms"], "ms")
        figures.note("added to what is passed on, p50", passed["p50_ms"] - direct["p50_ms"], "ms", most=1.5)
        for name, target, least in (("rule", "rules", 1000.0), ("judge", "judge", None)):
            single = load.ask(f"{url}/{target}/get_reward2", SINGLE, 64, 2 * n)
            figures.note(f"single samples, {name}, 64 at once", single["per_second"], "per second", least=least)
            figures.note(f"the same, p99 of a request, {name}", single["p99_ms"], "ms")
            batch = {"samples": [{**SAMPLE, "prompt": f"What is {i} + 2?"} for i in range(BATCH)]}
            many = load.ask(f"{url}/{target}/v1/score", batch, 4, max(8, n // BATCH))
            figures.note(f"samples in batches of {BATCH}, {name}", many["per_second"] * BATCH, "per second")
        before = rss_mib(gateway.pid)
        rounds = max(1, given.samples // BATCH)
        half = load.ask(f"{url}/rules/v1/score", batch, 4, rounds // 2)
        middle = rss_mib(gateway.pid)
        load.ask(f"{url}/rules/v1/score", batch, 4, rounds - rounds // 2)
        figures.note("memory before", before, "MiB")
        figures.note(f"memory after {rounds // 2 * BATCH} samples", middle, "MiB")
        figures.note(f"memory after {rounds * BATCH} samples", rss_mib(gateway.pid), "MiB", most=middle * 1.05)
        figures.note("batches during that", half["per_second"] * BATCH, "per second")
    return 0 if all(figure.met is not False for figure in figures.figures) else 1


if __name__ == "__main__":
    sys.exit(main())
