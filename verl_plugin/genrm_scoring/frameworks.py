"""`Rewards` as training frameworks call them. None of these is imported: each function keeps to a documented contract.

    TRL         reward_funcs=trl_reward(rewards)                    None where there is no score: not in the baseline
    OpenRLHF    a file with reward_func = openrlhf_reward(rewards)  --reward.remote_url FILE
    slime       a module with custom_rm = slime_reward(rewards)     --custom-rm-path MODULE.custom_rm, --group-rm
    verifiers   vf.Rubric(funcs=[verifiers_reward(rewards)])        before 0.4; one function for a group of rollouts

Of the four only TRL has a word for "no score". The others get an exception, which names the outcome: never a zero.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from genrm_scoring.conversations import Turn, as_text, refuse_other_than_text, turns_of
from genrm_scoring.errors import SampleDropped
from genrm_scoring.ground_truths import as_json
from genrm_scoring.rewards import Rewards
from genrm_scoring.types import Sample, Score

Messages = str | Sequence[Mapping[str, Any]]


def trl_reward(
    rewards: Rewards, reference: str = "ground_truth", name: str = "genrm"
) -> Callable[..., list[float | None]]:
    """For `GRPOTrainer(reward_funcs=…)`: `f(prompts, completions, **columns) -> list[float | None]`.

    Args:
        reference: the data set's column with what is right; other columns are passed on as `extra`.
        name: what TRL calls it in its logs.
    """

    def reward(prompts: Sequence[Messages], completions: Sequence[Messages], **columns: Any) -> list[float | None]:
        rows = {key: column for key, column in columns.items() if _is_column(column, len(prompts))}
        samples = [
            _sample(
                prompt,
                text_of(completion),
                rows.get(reference, [None] * len(prompts))[place],
                {key: column[place] for key, column in rows.items() if key != "completion_ids"},
            )
            for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]
        return [score.value for score in rewards.score(samples)]

    reward.__name__ = name
    return reward


def openrlhf_reward(rewards: Rewards) -> Callable[..., dict[str, Any]]:
    """For a file named by `--reward.remote_url`: `reward_func(queries, prompts, labels) -> dict` of tensors.

    `scores`, by which OpenRLHF filters, are the rewards cut to 0 … 1.
    """

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any) -> dict[str, Any]:
        import torch

        samples = [
            _sample(prompt, query.removeprefix(prompt), label)
            for query, prompt, label in zip(queries, prompts, labels, strict=True)
        ]
        scores = rewards.score(samples)
        given = torch.tensor([number_of(score) for score in scores])
        names = dict.fromkeys(term.name for score in scores for term in score.terms)
        terms = [{term.name: term.value for term in score.terms} for score in scores]
        logs = {name: torch.tensor([_or_nan(each.get(name)) for each in terms]) for name in names}
        return {"rewards": given, "scores": given.clamp(0, 1), "extra_logs": logs}

    return reward_func


def slime_reward(rewards: Rewards) -> Callable[..., Awaitable[float | list[float]]]:
    """For `--custom-rm-path`: one `Sample` of slime's, or with `--group-rm` the list of a group."""

    async def custom_rm(args: Any, sample: Any, **_: Any) -> float | list[float]:
        group = sample if isinstance(sample, list) else [sample]
        for one in group:
            refuse_other_than_text({"multimodal_inputs": getattr(one, "multimodal_inputs", None)}, "sample")
        asked = [_sample(one.prompt, one.response, one.label, one.metadata) for one in group]
        scores = await rewards.ascore(asked, [0] * len(asked))
        found = [number_of(score) for score in scores]
        return found if isinstance(sample, list) else found[0]

    return custom_rm


def verifiers_reward(rewards: Rewards, name: str = "genrm") -> Callable[..., Awaitable[list[float]]]:
    """For `vf.Rubric(funcs=…)`: a group function, which verifiers tells by its arguments in the plural."""

    async def reward(
        prompts: Sequence[Messages], completions: Sequence[Messages], answers: Sequence[Any], **_: Any
    ) -> list[float]:
        samples = [
            _sample(prompt, text_of(completion), answer)
            for prompt, completion, answer in zip(prompts, completions, answers, strict=True)
        ]
        return [number_of(score) for score in await rewards.ascore(samples)]

    reward.__name__ = name
    return reward


def text_of(said: Messages) -> str:
    """A prompt or completion as a judge is shown it: a text, or a conversation with its roles."""
    return said if isinstance(said, str) else as_text(turns_of(said, "prompts or completions"))


def number_of(score: Score) -> float:
    """
    Raises:
        SampleDropped: there is none.
    """
    if score.value is None:
        raise SampleDropped(score)
    return score.value


def _sample(prompt: Messages, response: str, truth: Any, extra: Mapping[str, Any] | None = None) -> Sample:
    """
    Raises:
        ConfigurationError: something else than text is asked about.
    """
    messages: tuple[Turn, ...] = () if isinstance(prompt, str) else turns_of(prompt, "prompts")
    question = prompt if isinstance(prompt, str) else as_text(messages)
    refuse_other_than_text(extra or {}, "columns")
    return Sample(question, response, ground_truth=as_json(truth), extra=as_json(extra or {}), messages=messages)


def _is_column(found: Any, rows: int) -> bool:
    return isinstance(found, Sequence) and not isinstance(found, str | bytes) and len(found) == rows


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
