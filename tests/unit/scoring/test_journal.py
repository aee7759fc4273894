import json
from pathlib import Path

from genrm_scoring.endpoints import Endpoint
from genrm_scoring.journal import JudgementLog, record
from genrm_scoring.types import Answer, FailedAttempt, Judgement, Outcome, Sample, Score, ScoreSource, Verdict

POD = Endpoint("http://10.0.0.1:8000", "judge-1", "uid-1")
OTHER = Endpoint("http://10.0.0.2:8000", "judge-2", "uid-2")


def test_a_line_tells_the_whole_story_of_a_judgement(tmp_path: Path) -> None:
    log = JudgementLog(tmp_path / "log")
    answer = Answer("ok", 11, 7, "r1", "b1")
    failure = FailedAttempt(OTHER, "Disconnected", "reset", 0.25)
    judgement = Judgement(Outcome.OK, 1.5, 2, Verdict("True", 1.0), answer, POD, (failure,))
    score = Score(1.0, Outcome.OK, ScoreSource.JUDGE)
    log.write(record("run-1", Sample("q", "a", "uid-q", 3, 12), judgement, score, ended_at=1000.0))
    log.close()
    assert json.loads(log.path.read_text()) == {
        "run": "run-1",
        "step": 12,
        "uid": "uid-q",
        "session": 3,
        "started": 998.5,
        "ended": 1000.0,
        "seconds": 1.5,
        "outcome": "ok",
        "verdict": "True",
        "score": 1.0,
        "score_source": "judge",
        "pod": "judge-1",
        "url": POD.url,
        "revision": "r1",
        "boot_id": "b1",
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "attempts": 2,
        "failures": [{"pod": "judge-2", "url": OTHER.url, "error": "Disconnected", "detail": "reset", "seconds": 0.25}],
        "detail": "",
        "facts": {},
        "votes": [],
    }


def test_what_was_asked_several_times_is_told_vote_by_vote() -> None:
    votes = (
        Judgement(Outcome.OK, 1.0, 1, Verdict("3", 3.0), Answer("3", 11, 7), POD),
        Judgement(Outcome.PARSE_FAILED, 1.0, 1, None, Answer("hm", 11, 9), OTHER, detail="no number"),
    )
    judgement = Judgement(Outcome.OK, 1.0, 2, Verdict("1 x 3", 3.0, {"votes": 1.0}), votes=votes)
    line = record("run-1", Sample("q", "a"), judgement, Score(3.0, Outcome.OK, ScoreSource.JUDGE), 5.0)
    assert line["facts"] == {"votes": 1.0}
    assert [(vote["outcome"], vote["value"], vote["pod"], vote["completion_tokens"]) for vote in line["votes"]] == [
        ("ok", 3.0, "judge-1", 7),
        ("parse_failed", None, "judge-2", 9),
    ]


def test_a_failed_judgement_is_logged_without_a_number(tmp_path: Path) -> None:
    judgement = Judgement(Outcome.ASLEEP, 2.0, 0, detail="nobody")
    line = record("run-1", Sample("q", "a"), judgement, Score(None, Outcome.ASLEEP, ScoreSource.DROPPED), 5.0)
    assert (line["score"], line["score_source"], line["outcome"], line["pod"]) == (None, "dropped", "asleep", None)


def test_every_line_is_on_disk_at_once(tmp_path: Path) -> None:
    log = JudgementLog(tmp_path)
    log.write({"a": 1})
    log.write({"a": 2})
    assert len(log.path.read_text().splitlines()) == 2
