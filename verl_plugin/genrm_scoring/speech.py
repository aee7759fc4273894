"""How a question is put to an endpoint, and how the answer is read: one class for each way of speaking. Pure.

Chat              a judge that answers in words, in OpenAI's format
Classifier        a model that answers with a number, through vLLM's `/classify` or `/pooling`
SglangClassifier  the same through SGLang's `/classify` or `/v1/embeddings`, which take no chats
RewardServer      another framework's reward server
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from genrm_api.external import ROUTES, WireFormat
from genrm_api.rewardmodel import EngineName, RewardModel, RewardModelType, Sampling

from genrm_scoring import chat
from genrm_scoring.classifiers import (
    classify_body,
    embeddings_body,
    read_embeddings_score,
    read_sglang_classify,
    read_vllm_classify,
    read_vllm_pooling,
    sglang_body,
)
from genrm_scoring.errors import ServerFailed
from genrm_scoring.judges import Judge, judge_of
from genrm_scoring.replies import refusal, stamps
from genrm_scoring.reward_apis import request_of, score_in
from genrm_scoring.templates.defused import defused_turn
from genrm_scoring.transport import Reply
from genrm_scoring.types import Answer, Question, Verdict


class Speech(Protocol):
    @property
    def path(self) -> str:
        """Behind the URL of an endpoint; empty where that is the whole route."""
        ...

    @property
    def renders_at(self) -> str | None:
        """The route at which the endpoint first makes of a chat what it takes; `body` is for that one then."""
        ...

    def body(self, question: Question, vote: int) -> bytes:
        """
        Raises:
            AttemptFailed: it cannot be asked.
        """
        ...

    def rendered(self, reply: Reply) -> bytes:
        """The body for `path`, where something is rendered first.

        Raises:
            AttemptFailed: the subclass says what the reply means.
        """
        ...

    def answer(self, reply: Reply) -> Answer:
        """
        Raises:
            AttemptFailed: the subclass says what the reply means.
        """
        ...

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        """
        Raises:
            ParseFailed: it is no verdict.
        """
        ...


class InOneStep:
    """Nothing is rendered first."""

    renders_at: ClassVar[str | None] = None

    def rendered(self, reply: Reply) -> bytes:
        raise TypeError("nothing is rendered first")


@dataclass(frozen=True, slots=True)
class Chat(InOneStep):
    """A judge behind OpenAI's chat route. `path` differs where a URL says where the API begins."""

    judge: Judge
    model: str
    sampling: Sampling
    engine: EngineName = EngineName.VLLM
    path: str = chat.PATH

    def body(self, question: Question, vote: int) -> bytes:
        messages = self.judge.messages(question)
        logprobs, schema = self.judge.reads_logprobs, self.judge.schema
        body = chat.request_body(
            self.model, messages, self.sampling, self.engine, vote=vote, logprobs=logprobs, schema=schema
        )
        return json.dumps(body).encode()

    def answer(self, reply: Reply) -> Answer:
        return chat.read_answer(reply, logprobs=self.judge.reads_logprobs)

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        return self.judge.verdict(answer, question)


_CLASSIFIERS: Final[Mapping[WireFormat, tuple[str, Callable[[bytes], float]]]] = {
    WireFormat.VLLM_CLASSIFY: ("/classify", read_vllm_classify),
    WireFormat.VLLM_POOLING: ("/pooling", read_vllm_pooling),
}


@dataclass(frozen=True, slots=True)
class Classifier(InOneStep):
    """A classifier of chats: the engine writes prompt and response as its own template says."""

    model: str
    wire_format: WireFormat = WireFormat.VLLM_CLASSIFY
    whole_route: bool = False
    """Whether the URL of an endpoint is the route itself."""

    @property
    def path(self) -> str:
        return "" if self.whole_route else _CLASSIFIERS[self.wire_format][0]

    def body(self, question: Question, vote: int) -> bytes:
        return json.dumps(classify_body(self.model, _chat_of(question))).encode()

    def answer(self, reply: Reply) -> Answer:
        return unread(reply)

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        value = _CLASSIFIERS[self.wire_format][1](answer.text.encode())
        return Verdict(f"{value:g}", value)


@dataclass(frozen=True, slots=True)
class SglangClassifier:
    """A classifier of chats on SGLang, which is asked twice: to write the chat with its own template, as tokens, and
    for the number of these. Who wrote it here would need the model's template and tokenizer."""

    model: str
    wire_format: WireFormat = WireFormat.SGLANG_CLASSIFY
    renders_at: ClassVar[str | None] = "/tokenize"

    @property
    def path(self) -> str:
        return ROUTES[self.wire_format]

    def body(self, question: Question, vote: int) -> bytes:
        asked = {"model": self.model, "messages": _chat_of(question), "add_generation_prompt": False}
        return json.dumps(asked).encode()

    def rendered(self, reply: Reply) -> bytes:
        if reply.status != 200:
            raise refusal(reply)
        try:
            tokens = [operator.index(token) for token in json.loads(reply.body)["tokens"]]
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise ServerFailed(f"200 with something that is no list of tokens: {reply.body[:200]!r}") from e
        if self.wire_format is WireFormat.OPENAI_EMBEDDINGS:
            return json.dumps(embeddings_body(self.model, tokens)).encode()
        return json.dumps(sglang_body(tokens)).encode()

    def answer(self, reply: Reply) -> Answer:
        return unread(reply)

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        embeds = self.wire_format is WireFormat.OPENAI_EMBEDDINGS
        value = (read_embeddings_score if embeds else read_sglang_classify)(answer.text.encode())
        return Verdict(f"{value:g}", value)


@dataclass(frozen=True, slots=True)
class RewardServer(InOneStep):
    """Another framework's reward server; the URL of an endpoint is its route."""

    wire_format: WireFormat
    path: str = ""

    def body(self, question: Question, vote: int) -> bytes:
        return json.dumps(request_of(self.wire_format, question)).encode()

    def answer(self, reply: Reply) -> Answer:
        return unread(reply)

    def verdict(self, answer: Answer, question: Question) -> Verdict:
        value = score_in(self.wire_format, answer.text.encode())
        return Verdict(f"{value:g}", value)


def _chat_of(question: Question) -> list[dict[str, str]]:
    """As the policy was asked and answered: a classifier was trained on conversations with their roles."""
    if question.written:
        return [{"role": role, "content": text} for role, text in question.written]
    (response,) = question.responses
    turns = (*(question.messages or (("user", question.prompt),)), ("assistant", response))
    return [{"role": role, "content": defused_turn(text)} for role, text in turns]


def unread(reply: Reply) -> Answer:
    """An answer whose text is the body, for a `verdict` that reads it.

    Raises:
        AttemptFailed
    """
    if reply.status != 200:
        raise refusal(reply)
    revision, boot_id = stamps(reply)
    return Answer(reply.body.decode(errors="replace"), revision=revision, boot_id=boot_id)


REWARD_SERVERS: Final = (WireFormat.GET_REWARD, WireFormat.GET_REWARD2, WireFormat.OPENRLHF, WireFormat.SLIME)
EXTERNAL_PATH: Final = "/chat/completions"
"""Behind the base URL of somebody else's API."""


def speaks(rm: RewardModel) -> bool:
    """Whether it is asked a question in words, and answers in words."""
    external = rm.spec.external
    return rm.spec.type is not RewardModelType.CLASSIFIER and (external is None or external.format.asks_in_words)


def speech_of(rm: RewardModel) -> Speech:
    """How a RewardModel is asked what its `spec.scoring` says.

    Raises:
        ConfigurationError: its template or its parser cannot work.
    """
    if speaks(rm):
        return chat_with(rm, judge_of(rm.spec.scoring))
    external = rm.spec.external
    if external is None:
        sglang = rm.spec.engine.name is EngineName.SGLANG
        return SglangClassifier(rm.served_name) if sglang else Classifier(rm.served_name)
    if external.format in REWARD_SERVERS:
        return RewardServer(external.format)
    if external.format in ROUTES:
        return SglangClassifier(rm.served_name, external.format)
    return Classifier(rm.served_name, external.format, whole_route=True)


def chat_with(rm: RewardModel, judge: Judge) -> Chat:
    """How a RewardModel that `speaks` is asked what a judge wants to know."""
    if rm.spec.external is not None:
        return Chat(judge, rm.served_name, rm.spec.scoring.sampling, EngineName.CUSTOM, EXTERNAL_PATH)
    return Chat(judge, rm.served_name, rm.spec.scoring.sampling, rm.spec.engine.name)
