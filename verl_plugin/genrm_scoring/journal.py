"""The judgement log: one JSON line per judgement, whatever became of it.

Each process writes its own file, `judgements-<host>-<pid>.jsonl`, one line at a time and flushed, so that a run that is
killed loses at most the line being written. Who wants numbers about a run reads these files; nothing else is recorded
twice.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any, TextIO

from genrm_scoring.types import Judgement, Sample, Score


def record(run: str, sample: Sample, judgement: Judgement, score: Score, ended_at: float) -> dict[str, Any]:
    """One line of the log. `ended_at` is wall-clock time, Unix seconds; the start is counted back from it."""
    answer, endpoint = judgement.answer, judgement.endpoint
    return {
        "run": run,
        "step": sample.step,
        "uid": sample.uid,
        "session": sample.session,
        "started": round(ended_at - judgement.seconds, 6),
        "ended": round(ended_at, 6),
        "seconds": round(judgement.seconds, 6),
        "outcome": judgement.outcome.value,
        "verdict": judgement.verdict.label if judgement.verdict else None,
        "score": score.value,
        "score_source": score.source.value,
        "pod": endpoint.pod if endpoint else None,
        "url": endpoint.url if endpoint else None,
        "revision": answer.revision if answer else None,
        "boot_id": answer.boot_id if answer else None,
        "prompt_tokens": answer.prompt_tokens if answer else None,
        "completion_tokens": answer.completion_tokens if answer else None,
        "attempts": judgement.attempts,
        "failures": [
            {
                "pod": f.endpoint.pod,
                "url": f.endpoint.url,
                "error": f.error,
                "detail": f.detail,
                "seconds": round(f.seconds, 6),
            }
            for f in judgement.failures
        ],
        "detail": judgement.detail,
        "facts": {name: round(value, 6) for name, value in judgement.verdict.facts.items()}
        if judgement.verdict
        else {},
        "votes": [
            {
                "outcome": vote.outcome.value,
                "value": vote.verdict.value if vote.verdict else None,
                "pod": vote.endpoint.pod if vote.endpoint else None,
                "url": vote.endpoint.url if vote.endpoint else None,
                "prompt_tokens": vote.answer.prompt_tokens if vote.answer else None,
                "completion_tokens": vote.answer.completion_tokens if vote.answer else None,
                "detail": vote.detail,
            }
            for vote in judgement.votes
        ],
    }


class JudgementLog:
    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"judgements-{socket.gethostname()}-{os.getpid()}.jsonl"
        self._file: TextIO = self.path.open("a", encoding="utf-8", buffering=1)

    def write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()
