"""What a judgement costs in text: `python tests/bench/bench_parsing.py`.

Writing the question (a prompt of 250 characters, a response of 1 kB) and reading the answer (1 kB, with and without
4 kB of thoughts before it), for each built-in judge. Beside each the way of the system that it comes from, written anew
from its description: prompts by f-string, answers by the regular expressions or searches that it uses. Those take less
care (they guess where ours refuse, and let special tokens through), so being near them is all that can be asked. What
making scores of the verdicts adds, in a tournament of 16 in which each pair is asked once, is counted by verdict. All
take turns in one process. What counts is CPU time, and of many rounds the best: what others do on the machine only adds
to it (as `timeit` says). Budget: 40 µs without thoughts, 100 µs with them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import json_repair
from genrm_api.comparing import Aggregate
from genrm_api.judging import Parse
from genrm_api.scoring import Scoring
from genrm_scoring.judges import LISTWISE, PAIRWISE, POINTWISE, Judge, RankingJudge, pointwise_judge
from genrm_scoring.tournaments import aggregate
from genrm_scoring.tournaments.comparisons import Comparison
from genrm_scoring.types import Answer, Question

BUDGET_MICROSECONDS = {"plain": 40.0, "thinking": 100.0}
PROMPT = "A train leaves at nine and goes at 80 km/h; another at ten, at 120 km/h. " * 3 + "When do they meet?"
RESPONSE = ("The first is 80 km ahead after an hour. The second gains 40 km in each hour. " * 14)[:1014] + r"\boxed{12}"
REASONS = ("The solution sets up the distances, which is right, and divides by the difference of speeds. " * 11)[:950]
THOUGHTS = "<think>" + ("Let me check: 80 times 3 is 240, and 120 times 2 is 240. Yes. " * 70)[:4080] + "</think>\n"
SCORES = '{"scores": {"logic": 0.2, "completeness": 0.15, "accuracy": 0.2, "relevance": 0.2, "clarity": 0.1}}'

ONE, TWO = Question(PROMPT, (RESPONSE,), "12"), Question(PROMPT, (RESPONSE[:500], RESPONSE[500:]), "12")
FOUR = Question(PROMPT, tuple(RESPONSE[n * 250 : n * 250 + 250] for n in range(4)))
ENDS = {
    "boxed-true-false": r"\boxed{True}",
    "five-criteria": SCORES,
    "rider-json": '{"understanding": 1, "rules": 0, "action": 1}',
    "pointwise-1-10": "<score>7</score>",
    "pairwise-abtie": "<result>A</result>",
    "listwise-ranking": "<ranking>2, 4, 1, 3</ranking>",
    "a template and a regex": "Verdict: 7",
}
OWN = Scoring.model_validate(
    {
        "template": "Grade the response to the question.\n\n{{ question }}\n\n{{ response }}",
        "parse": Parse.model_validate({"kind": "regex", "pattern": r"Verdict:\s*(\S+)"}).model_dump(by_alias=True),
    }
)


def _judging(judge: Judge, question: Question) -> Callable[[str], object]:
    def judgement(answer: str) -> object:
        judge.messages(question)
        return judge.verdict(Answer(answer), question)

    return judgement


def _ranking(judge: RankingJudge, question: Question) -> Callable[[str], object]:
    def judgement(answer: str) -> object:
        judge.messages(question)
        return judge.ranking(Answer(answer), question)

    return judgement


OURS: dict[str, Callable[[str], object]] = {
    **{name: _judging(judge, ONE) for name, judge in POINTWISE.items()},
    **{name: _judging(judge, TWO) for name, judge in PAIRWISE.items()},
    **{name: _ranking(judge, FOUR) for name, judge in LISTWISE.items()},
    "a template and a regex": _judging(pointwise_judge(OWN), ONE),
}

_THINKING = [re.compile(p, re.DOTALL) for p in (r"<think>.*?</think>", r"<thinking>.*?</thinking>")]
_RESULT = re.compile(r"<result>(.*?)</result>", re.DOTALL | re.IGNORECASE)
_SCORE = re.compile(r"<score>\s*([0-9.]+)\s*</score>", re.IGNORECASE)
_RANKING = re.compile(r"<ranking>(.*?)</ranking>", re.DOTALL | re.IGNORECASE)
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


def genrm_remote(answer: str) -> float:
    """The last box, its braces counted; anything but True is 0."""
    f"A problem:\n{PROMPT}\nand a solution:\n{RESPONSE}\nFinish with a box."
    start = answer.rfind(r"\boxed")
    depth, at = 0, answer.find("{", start)
    for end in range(at, len(answer)):
        depth += (answer[end] == "{") - (answer[end] == "}")
        if depth == 0:
            return float(answer[at + 1 : end] == "True")
    return 0.0


def reward_api(answer: str) -> float:
    """From the first brace to the last; 5 where that is no JSON. Then digits against digits."""
    f"A problem:\n{PROMPT}\nand a solution:\n{RESPONSE}\nFive criteria."
    found = _OBJECT.search(answer)
    try:
        scores = json.loads(found[0])["scores"] if found else {}
        quality = sum(scores.values())
    except (ValueError, KeyError):
        quality = 5.0
    return 0.2 * float(quality) + 0.8 * (re.sub(r"[^\d.]", "", RESPONSE) == "12")


def verl_with_rms(answer: str) -> float:
    """After the thoughts the last object, repaired; the mean of its values, -1 where there is none."""
    f"A conversation:\n{PROMPT}\nand a reply:\n{RESPONSE}\nThree dimensions."
    said = answer.split("</think>")[-1]
    try:
        found: Any = json_repair.loads(said[said.rfind("{") : said.rfind("}") + 1])
        return float(sum(found.values()) / len(found))
    except (ValueError, AttributeError, ZeroDivisionError):
        return -1.0


def _without_thoughts(answer: str) -> str:
    for pattern in _THINKING:
        answer = pattern.sub("", answer)
    return answer


def rm_gallery_pointwise(answer: str) -> float:
    """A number in a tag, clamped; 5 where there is none."""
    f"A question:\n{PROMPT}\nand an answer:\n{_without_thoughts(RESPONSE)}\nA grade."
    found = _SCORE.search(_without_thoughts(answer))
    return min(10.0, max(1.0, float(found[1]))) if found else 5.0


def rm_gallery_pairwise(answer: str) -> str:
    """A, B or tie in a tag; a tie where there is none."""
    f"A question:\n{PROMPT}\nA:\n{_without_thoughts(RESPONSE[:500])}\nB:\n{_without_thoughts(RESPONSE[500:])}\nWhich?"
    found = _RESULT.search(_without_thoughts(answer))
    word = found[1].strip().lower() if found else "tie"
    return word if word in ("a", "b") else "tie"


def rm_gallery_listwise(answer: str) -> list[int]:
    """A list in a tag, completed; the order of input where there is none."""
    f"A question:\n{PROMPT}\n" + "\n".join(f"{n}: {_without_thoughts(text)}" for n, text in enumerate(FOUR.responses))
    found = _RANKING.search(_without_thoughts(answer))
    places = [int(place) - 1 for place in re.findall(r"\d+", found[1])] if found else []
    return list(dict.fromkeys([*places, *range(4)]))


THEIRS: dict[str, Callable[[str], object]] = {
    "boxed-true-false": genrm_remote,
    "five-criteria": reward_api,
    "rider-json": verl_with_rms,
    "pointwise-1-10": rm_gallery_pointwise,
    "pairwise-abtie": rm_gallery_pairwise,
    "listwise-ranking": rm_gallery_listwise,
}


def _once(judgement: Callable[[str], object], answer: str, times: int) -> float:
    """Mean microseconds of CPU of one judgement."""
    began = time.process_time()
    for _ in range(times):
        judgement(answer)
    return (time.process_time() - began) / times * 1e6


def measure(rounds: int, times: int) -> dict[tuple[str, str, str], float]:
    """Least microseconds by judge, answer (plain, thinking) and whose (ours, theirs)."""
    took: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(rounds):
        for name, end in ENDS.items():
            for kind, before in (("plain", ""), ("thinking", THOUGHTS)):
                answer = before + REASONS + end
                took.setdefault((name, kind, "ours"), []).append(_once(OURS[name], answer, times))
                if name in THEIRS:
                    took.setdefault((name, kind, "theirs"), []).append(_once(THEIRS[name], answer, times))
    return {key: min(found) for key, found in took.items()}


PLAYERS = 16
TOURNAMENT = [Comparison(u, v, float((u * 7 + v * 3) % 5 > 1)) for u, v in itertools.combinations(range(PLAYERS), 2)]


def measure_aggregates(rounds: int) -> dict[str, float]:
    """Least microseconds a verdict, by rule."""

    def once(rule: Aggregate) -> float:
        return _once(lambda _: aggregate(rule, PLAYERS, TOURNAMENT), "", 1) / len(TOURNAMENT)

    return {rule: min(once(rule) for _ in range(rounds)) for rule in Aggregate}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what writing questions and reading answers costs.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--times", type=int, default=200)
    options = parser.parse_args()
    found = measure(options.rounds, options.times)
    missed = 0
    print(f"{'judge':<26} {'plain µs':>10} {'theirs':>8} {'thinking µs':>12} {'theirs':>8}")
    for name in ENDS:
        cells = []
        for kind, budget in BUDGET_MICROSECONDS.items():
            ours, theirs = found[name, kind, "ours"], found.get((name, kind, "theirs"))
            missed += ours > budget
            cells += [f"{ours:.1f}", "" if theirs is None else f"{theirs:.1f}"]
        print(f"{name:<26} {cells[0]:>10} {cells[1]:>8} {cells[2]:>12} {cells[3]:>8}")
    for rule, took in measure_aggregates(options.rounds).items():
        print(f"{'and a verdict to a score, ' + rule:<38} {took:>6.1f}")
    print(json.dumps({"budget_us": BUDGET_MICROSECONDS, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
