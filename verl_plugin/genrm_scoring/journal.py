"""The judgement log: one JSON line per judgement, whatever became of it; one per score that is made of several.

Each process writes its own file, `judgements-<host>-<pid>.jsonl`, one line at a time and flushed, so that a run that is
killed loses at most the line being written. Who wants numbers about a run reads these files; nothing else is recorded
twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any, TextIO

from genrm_scoring.types import Judgement, Question, Sample, Score


def record(run: str, sample: Sample, judgement: Judgement, score: Score, ended_at: float) -> dict[str, Any]:
    """A line about a sample that was judged by itself. `ended_at` is wall-clock time, Unix seconds; the start is
    counted back from it."""
    given = {"score": score.value, "score_source": score.source.value}
    return {"run": run, **_named(sample), **_judged(judgement, ended_at), **given}


def record_question(run: str, asked: str, question: Question, judgement: Judgement, ended_at: float) -> dict[str, Any]:
    """A line about a question whose answer is a part of some samples' scores: they have lines of their own.

    Args:
        asked: the term or RewardModel that the question went to.
    """
    return {
        "run": run,
        "asked": asked,
        "prompt": digest(question.prompt),
        "responses": [digest(response) for response in question.responses],
        **_judged(judgement, ended_at),
    }


def record_score(run: str, sample: Sample, score: Score, ended_at: float) -> dict[str, Any]:
    """A line about a sample whose score was made among its siblings, or of several terms."""
    return {
        "run": run,
        **_named(sample),
        "prompt": digest(sample.question),
        "response": digest(sample.response),
        "ended": round(ended_at, 6),
        "outcome": score.outcome.value,
        "score": score.value,
        "score_source": score.source.value,
        "detail": score.detail,
        "terms": {
            term.name: {
                "value": term.value,
                "raw": term.raw,
                "outcome": term.outcome.value,
                "source": term.source.value,
                "detail": term.detail,
            }
            for term in score.terms
        },
    }


def digest(text: str) -> str:
    """Tells texts apart in the logs, which hold none."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def _named(sample: Sample) -> dict[str, Any]:
    return {"step": sample.step, "uid": sample.uid, "session": sample.session}


def _judged(judgement: Judgement, ended_at: float) -> dict[str, Any]:
    answer, endpoint = judgement.answer, judgement.endpoint
    return {
        "started": round(ended_at - judgement.seconds, 6),
        "ended": round(ended_at, 6),
        "seconds": round(judgement.seconds, 6),
        "outcome": judgement.outcome.value,
        "verdict": judgement.verdict.label if judgement.verdict else None,
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
    """Args:
    about: `judgements`, or `scores` where a sample's score is made of several: the file's name begins with it.
    """

    def __init__(self, directory: Path, about: str = "judgements") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{about}-{socket.gethostname()}-{os.getpid()}.jsonl"
        self._file: TextIO = self.path.open("a", encoding="utf-8", buffering=1)

    def write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()
