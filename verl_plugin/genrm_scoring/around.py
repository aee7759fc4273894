"""A user's functions around a model: one that makes what it is asked, one that makes a number of what it answers.

    question → preprocess → the model → postprocess → verdict

They run in processes of their own (`rules.process`), where a function that runs away costs one judgement and nothing
else. What fails there ends the judgement with an outcome that says how, as a template or a parser that fails does:
`skipped` where there is nothing to ask, `parse_failed` where there is no number, `timeout` and `aborted`.

What a function is to write into a question comes to it defused, as values come to a template, and what it has written
is defused once more: it may have put together what its parts did not spell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from genrm_api.comparing import ScoringMode
from genrm_api.functions import Function, Preprocess
from genrm_api.scoring import Scoring

from genrm_scoring.cluster_code import Code
from genrm_scoring.errors import (
    AttemptFailed,
    FunctionDied,
    FunctionTimedOut,
    ParseFailed,
    PromptTooLong,
    Unaskable,
)
from genrm_scoring.judges.templated import refuse_hidden_reference
from genrm_scoring.modules import Modules, found_function
from genrm_scoring.rules.around import HIDDEN
from genrm_scoring.rules.process import MEMORY, QUESTION_SECONDS, Ended, Hung, Pool, Process
from genrm_scoring.templates import LONGEST_QUESTION, all_defused, defused_turn
from genrm_scoring.types import Outcome, Question, Verdict

Turns = tuple[tuple[str, str], ...]
_BY_OUTCOME: Final[Mapping[Outcome, type[AttemptFailed]]] = {
    kind.outcome: kind for kind in (Unaskable, ParseFailed, FunctionDied)
}
_ABOUT: Final[Mapping[ScoringMode, int | None]] = {ScoringMode.PAIRWISE: 2, ScoringMode.LISTWISE: None}


class Around:
    """The functions that `scoring` names. Belongs to one event loop; close it.

    Args:
        where: what stands before `preprocess` and `postprocess` in messages: `spec.scoring.`
        processes: questions that can be made or read at the same time.
        seconds: for one of them.

    Raises:
        ConfigurationError: a function is not there.
    """

    def __init__(
        self,
        scoring: Scoring,
        modules: Modules,
        code: Code,
        where: str,
        *,
        processes: int = 1,
        seconds: float = QUESTION_SECONDS,
        memory: int = MEMORY,
    ) -> None:
        self._before, self._after = scoring.preprocess, scoring.postprocess
        about = _ABOUT.get(scoring.mode or ScoringMode.POINTWISE, 1)

        def part(function: Function | None, name: str) -> dict[str, Any] | None:
            if function is None:
                return None
            found = found_function(function.function, function.config_map, modules, code, where + name)
            text, filename = found.module.source, found.module.filename
            named = {"function": found.function, "field": f"{where}{name}.function"}
            return {"source": text, "filename": filename, **named, "about": about}

        setup = {"before": part(self._before, "preprocess"), "after": part(self._after, "postprocess")}
        workers = [Process({**setup, "memory": memory}, seconds) for _ in range(processes)]
        self._pool: Pool[Process] = Pool(workers, Process.close)

    @property
    def asks(self) -> bool:
        return self._before is not None

    @property
    def reads(self) -> bool:
        return self._after is not None

    async def written(self, question: Question) -> Turns:
        """What the function makes of a question.

        Raises:
            Unaskable, PromptTooLong, FunctionTimedOut, FunctionDied
            ConfigurationError: the functions cannot be started at all.
        """
        assert self._before is not None
        fields = all_defused(_fields(question)) | {"text_prompts": _prompts(self._before, question)}
        answer = await self._answer("before", self._before, fields)
        turns = tuple((turn["role"], defused_turn(turn["content"])) for turn in answer["messages"])
        if sum(len(text) for _, text in turns) > LONGEST_QUESTION:
            raise PromptTooLong(f"a question of more than {LONGEST_QUESTION} characters")
        return turns

    async def verdict(self, question: Question, answer: str | float) -> Verdict:
        """What the function makes of the text of an answer, or of a number.

        Raises:
            ParseFailed, FunctionTimedOut, FunctionDied
            ConfigurationError: the functions cannot be started at all.
        """
        assert self._after is not None
        fields = {**_fields(question), "result": answer, "results": [answer]}
        found = await self._answer("after", self._after, fields)
        value = float(found["value"])
        return Verdict(f"{value:g}", value)

    async def close(self) -> None:
        await self._pool.close()

    async def _answer(self, work: str, function: Function, fields: Mapping[str, Any]) -> dict[str, Any]:
        question = {"work": work, "fields": fields}
        try:
            answer = await self._pool.ask(lambda process: process.ask(question))
        except Hung as e:
            raise FunctionTimedOut(f"{function.function} {e}") from None
        except Ended as e:
            raise FunctionDied(f"the {e} in {function.function}") from None
        if "outcome" in answer:
            raise _BY_OUTCOME[Outcome(answer["outcome"])](str(answer["detail"]))
        return answer


def _prompts(spec: Preprocess, question: Question) -> list[str]:
    """What VeRL-with-RMs calls the prompts of the reward model, one for each response.

    Raises:
        Unaskable: the sample has none.
    """
    text = question.prompt
    if (key := spec.prompt_key) is not None:
        found = question.extra.get(key)
        if not isinstance(found, str):
            there = ", ".join(sorted(question.extra)) or "nothing"
            raise Unaskable(f"promptKey: extra has no text {key}; it has {there}")
        text = found
    return [all_defused(text)] * len(question.responses)


def _fields(question: Question) -> dict[str, Any]:
    """A question by all names that functions call its parts."""
    a, *others = question.responses
    fields: dict[str, Any] = {
        "question": question.prompt,
        "prompt": question.prompt,
        "prompt_str": question.prompt,
        "user_query": question.prompt,
        "text_prompts": [question.prompt] * len(question.responses),
        "messages": [{"role": r, "content": t} for r, t in question.messages or (("user", question.prompt),)],
        "reference": question.reference or "",
        "ground_truth": question.ground_truth,
        "principle": question.principle,
        "data_source": question.data_source,
        "extra_info": dict(question.extra),
        "responses": list(question.responses),
        "text_responses": list(question.responses),
        "response": a,
        "response_str": a,
        "solution_str": a,
        "query": question.prompt + a,
    }
    if len(others) == 1:
        fields |= {"response_a": a, "response_b": others[0]}
    try:
        refuse_hidden_reference(question)
    except Unaskable as e:
        fields[HIDDEN] = str(e)
    return fields
