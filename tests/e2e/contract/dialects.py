"""Where the engines differ: how each is asked, put to sleep and woken, and what it says. The contract is one for all.

A dialect states what both must do: the simulator's class of that name and the real server.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from genrm_api.rewardmodel import RewardModel
from genrm_operator.engines import adapter_for
from genrm_operator.engines.adapter import Call

MODEL = "judge"
CHAT = "/v1/chat/completions"
ROWS = 16
Order = tuple[str, Mapping[str, Any] | None]


@dataclass(frozen=True)
class Dialect:
    kind: str
    """The simulator's name for this engine."""
    door: str
    """The door's name for its routes."""
    scores_at: str
    ask: Callable[[str], Mapping[str, Any]]
    """A question that is answered at once."""
    long: Callable[[str], Mapping[str, Any]]
    """One that keeps a real engine busy for seconds."""
    verdict: Callable[[Any], Any]
    """What counts in the answer to `ask`. Raises for one that is not as it should be."""
    weigh: Callable[[str], Mapping[str, Any]]
    """A question whose answer holds a number that is the model's own, to be compared before and after a night."""
    weight: Callable[[Any], float]
    ended: Callable[[Any], str]
    """Why the answer to `long` ends."""
    sleep: Sequence[Order]
    wake: Sequence[Order]
    rendering: Callable[..., Order]
    """The question what the engine's chat template makes of messages; `opens`: with the head of an answer."""
    tokens: Callable[[Any], Sequence[int]]
    """As the operator reads the answer."""
    golden: Callable[[str | Sequence[int]], Order]
    """The question by which the operator compares engines."""
    numbers: Callable[[Any], Sequence[float]]
    """As it reads the answer."""
    memory: Mapping[str, Any]
    """What the door's document says of the memory of the sleeper."""
    reads: Sequence[str]
    """Open routes that answer in every state."""
    metrics: frozenset[tuple[str, tuple[str, ...]]]
    """Sample names with their label names, as an engine publishes them that has slept, woken and scored."""
    empty: Mapping[str, int]
    """What it answers to an empty request, or to a task that its model cannot do; else 404. `ask` itself is proper."""
    sleep_metric: bool = False
    abort: str | None = None
    """Why an answer ends that a sleep cut off; None: those inside are not cut off by an answer."""
    bad: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)


def _one_of_two(answer: Any) -> str:
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] in ("True", "False")
    return str(choice["message"]["content"])


def _finish_reason(answer: Any) -> str:
    return str(answer["choices"][0]["finish_reason"])


def _question(text: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0, **more}


def _many(text: str) -> list[str]:
    """A batch that a tiny model computes for seconds."""
    return [f"{text} {i} " + "a long answer to judge, word by word, " * 100 for i in range(ROWS)]


def _logprob(answer: Any) -> float:
    """Of the first token. Which token it is may change between equals; how likely the likeliest is does not."""
    return float(answer["choices"][0]["logprobs"]["content"][0]["logprob"])


def _probability(answer: Any) -> float:
    (row,) = answer["data"]
    assert set(row) >= {"index", "label", "probs", "num_classes"}
    return round(float(row["probs"][0]), 4)


def _reward(answer: Any) -> float:
    (value,) = answer["embedding"]
    assert answer["meta_info"]["id"]
    return round(float(value), 3)


_VLLM: Mapping[str, Any] = {
    "door": "vllm",
    "memory": {"paused": True, "released": ["kv_cache", "weights"], "level": 1},
    "reads": ("/metrics", "/v1/models", "/version"),
    "sleep_metric": True,
    "metrics": frozenset(
        {
            ("vllm:engine_sleep_state", ("engine", "model_name", "sleep_state")),
            ("vllm:num_requests_running", ("engine", "model_name")),
            ("vllm:num_requests_waiting", ("engine", "model_name")),
            ("vllm:request_success_total", ("engine", "finished_reason", "model_name")),
            ("vllm:sleep_mode_operation_duration_seconds_count", ("operation",)),
            ("vllm:sleep_mode_operation_duration_seconds_sum", ("operation",)),
        }
    ),
}
_RANKS = ("engine_type", "model_name", "moe_ep_rank", "pp_rank", "tp_rank")
_SGLANG: Mapping[str, Any] = {
    "memory": {"paused": True, "released": ["kv_cache", "weights"], "level": None},
    "reads": ("/metrics", "/v1/models", "/model_info", "/server_info", "/v1/loads"),
    "metrics": frozenset({("sglang:num_running_reqs", _RANKS), ("sglang:num_queue_reqs", _RANKS)}),
    "empty": dict.fromkeys(
        (
            *("/v1/completions", "/generate", "/encode", "/v1/classify", "/v1/embeddings", "/v1/rerank", "/v1/score"),
            *("/tokenize", "/v1/tokenize", "/detokenize", "/v1/detokenize"),
        ),
        400,
    ),
}


def _orders(engine: str, kind: str) -> Mapping[str, Any]:
    """What the operator orders of such a model."""
    spec = {"type": kind, "model": {"uri": "hf://a/b"}, "engine": {"name": engine}}
    rm = RewardModel.model_validate({"metadata": {"name": MODEL, "namespace": "rl", "uid": "u"}, "spec": spec})
    adapter = adapter_for(rm.spec.engine.name)

    def order(call: Call | None) -> Order:
        assert call is not None
        return (f"{call.path}?{urlencode(call.query)}" if call.query else call.path, call.body)

    return {
        "sleep": tuple(map(order, adapter.sleep(rm))),
        "wake": tuple(map(order, adapter.wake(rm))),
        "rendering": lambda messages, opens: order(adapter.rendering(rm, messages, opens=opens)),
        "tokens": adapter.tokens,
        "golden": lambda asked: order(adapter.golden_row(rm, asked, salt=secrets.token_hex(8))),
        "numbers": adapter.golden_values,
    }


DIALECTS: Mapping[str, Dialect] = {
    "vllm": Dialect(
        kind="vllm",
        scores_at=CHAT,
        ask=lambda text: _question(text, structured_outputs={"choice": ["True", "False"]}),
        long=lambda text: _question(text, max_tokens=2000, ignore_eos=True),
        verdict=_one_of_two,
        ended=_finish_reason,
        abort="abort",
        weigh=lambda text: _question(text, max_tokens=1, logprobs=True),
        weight=_logprob,
        empty={"/v1/completions": 400, "/tokenize": 400, "/detokenize": 400},
        bad={404: _question("x") | {"model": "nobody"}, 400: {"model": MODEL}},
        **_VLLM,
        **_orders("vllm", "Generative"),
    ),
    "vllm-pooling": Dialect(
        kind="vllm-pooling",
        scores_at="/classify",
        ask=lambda text: {"model": MODEL, "input": text},
        long=lambda text: {"model": MODEL, "input": _many(text)},
        verdict=_probability,
        weigh=lambda text: {"model": MODEL, "input": text, "use_activation": False},
        weight=_probability,
        ended=lambda answer: f"{len(answer['data'])} rows",
        empty=dict.fromkeys(
            (
                *("/pooling", "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank"),
                *("/tokenize", "/detokenize"),
            ),
            400,
        ),
        bad={404: {"model": "nobody", "input": "x"}, 400: {"model": MODEL}},
        **_VLLM,
        **_orders("vllm", "Classifier"),
    ),
    "sglang": Dialect(
        kind="sglang",
        door="sglang",
        scores_at=CHAT,
        ask=lambda text: _question(text, regex="(True|False)"),
        long=lambda text: _question(text, max_tokens=900, ignore_eos=True),
        verdict=_one_of_two,
        weigh=lambda text: _question(text, max_tokens=1, logprobs=True),
        weight=_logprob,
        ended=_finish_reason,
        abort="abort",
        bad={400: {"model": MODEL}},
        **_SGLANG,
        **_orders("sglang", "Generative"),
    ),
    "sglang-embedding": Dialect(
        kind="sglang-embedding",
        door="sglang-embedding",
        scores_at="/classify",
        ask=lambda text: {"text": text},
        long=lambda text: {"text": _many(text)},
        verdict=_reward,
        weigh=lambda text: {"text": text},
        weight=_reward,
        ended=lambda answer: f"{len(answer)} rows",
        bad={400: {}},
        **_SGLANG,
        **_orders("sglang", "Classifier"),
    ),
}
