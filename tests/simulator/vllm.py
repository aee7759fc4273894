"""vLLM 0.32's HTTP as the operator and the scoring library meet it, without a model.

What is imitated was seen on the real one (tests/e2e/contract compares): `/sleep` with its modes (`abort` ends running
requests with status 200, cut-off text and `finish_reason: "abort"`; `wait` lets them finish; `keep` holds them),
requests that hang while the engine sleeps and go on when it wakes, routes that answer in every state, metric names and
labels, the shape of errors. A pooling server (`SimVllmPooling`) classifies instead of speaking.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from tests.simulator.asgi import Receive, Scope, Send, answer, answer_json
from tests.simulator.engine import Bad, Handler, SimEngine, read_json, stream_chat
from tests.simulator.speech import (
    answer_id,
    chatml,
    fitting,
    logprobs,
    prompt_logprobs,
    reward,
    speak,
    tokens_of,
    usage,
    wanted_tokens,
)

VERSION = "0.32.0"
TAGS = frozenset({"weights", "kv_cache"})


class SimVllm(SimEngine):
    door = "vllm"
    wakes = "/wake_up"
    scoring = frozenset({"/v1/chat/completions", "/v1/completions"})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sleeping: frozenset[str] = frozenset()
        self.paused = False
        self.level = 0
        self.operations = {"sleep": (0, 0.0), "wake": (0, 0.0)}

    def handlers(self) -> Mapping[tuple[str, str], Handler]:
        return {
            ("GET", "/health"): self._health,
            ("GET", "/version"): self._version,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("GET", "/is_sleeping"): self._is_sleeping,
            ("POST", "/sleep"): self._sleep,
            ("POST", "/wake_up"): self._wake_up,
            ("POST", "/reset_prefix_cache"): self._reset_prefix_cache,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
            **self.tasks(),
        }

    def tasks(self) -> Mapping[tuple[str, str], Handler]:
        """What this server computes."""
        return {("POST", "/v1/chat/completions"): self._chat, ("POST", "/v1/completions"): self._completion}

    @property
    def asleep(self) -> bool:
        return self.paused or bool(self.sleeping)

    def error(self, bad: Bad, path: str) -> Mapping[str, Any]:
        return {"error": {"message": str(bad), "type": bad.kind, "param": bad.param, "code": bad.status}}

    # -- routes that answer in every state

    async def _health(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        await answer(send, 200)

    async def _version(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        await answer_json(send, 200, {"version": VERSION})

    async def _models(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        card = {
            "id": self.model,
            "object": "model",
            "created": int(self.now()),
            "owned_by": "vllm",
            "root": self.model,
        }
        await answer_json(send, 200, {"object": "list", "data": [{**card, "parent": None, "max_model_len": 8192}]})

    async def _metrics(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        text = self.metrics()
        await answer(send, 200, text.encode(), "text/plain; version=1.0.0; charset=utf-8")

    def metrics(self) -> str:
        """The metrics that the operator and the balancer read, as vLLM spells them."""
        labels = f'engine="0",model_name="{self.model}"'
        states = {"awake": not self.asleep, "weights_offloaded": self.level == 1, "discard_all": self.level == 2}
        lines = ["# HELP vllm:engine_sleep_state Engine sleep state.", "# TYPE vllm:engine_sleep_state gauge"]
        lines += [f'vllm:engine_sleep_state{{{labels},sleep_state="{s}"}} {float(on)}' for s, on in states.items()]
        for name, value in (
            ("vllm:num_requests_running", self.running + self.faults.strays),
            ("vllm:num_requests_waiting", len(self.jobs) - self.running),
        ):
            lines += [f"# TYPE {name} gauge", f"{name}{{{labels}}} {float(value)}"]
        lines += ["# TYPE vllm:request_success_total counter"]
        lines += [f'vllm:request_success_total{{{labels},finished_reason="stop"}} {float(self.succeeded)}']
        lines += ["# TYPE vllm:sleep_mode_operation_duration_seconds histogram"]
        for operation, (count, seconds) in self.operations.items():
            if count:
                name, label = "vllm:sleep_mode_operation_duration_seconds", f'operation="{operation}"'
                lines += [f"{name}_count{{{label}}} {float(count)}", f"{name}_sum{{{label}}} {seconds}"]
        return "\n".join(lines) + "\n"

    async def _tokenize(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = read_json(body)
        if not {"prompt", "messages"} & set(request):
            raise Bad(400, "Bad Request", "1 validation error: body.prompt is missing")
        tokens = tokens_of(
            request["prompt"]
            if "prompt" in request
            else chatml(request["messages"], asks=request.get("add_generation_prompt", True))
        )
        await answer_json(
            send, 200, {"count": len(tokens), "max_model_len": 8192, "tokens": tokens, "token_strs": None}
        )

    async def _detokenize(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = read_json(body)
        if "tokens" not in request:
            raise Bad(400, "Bad Request", "1 validation error: body.tokens is missing")
        await answer_json(send, 200, {"prompt": "".join(chr(token) for token in request["tokens"])})

    # -- sleep

    async def _is_sleeping(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        await answer_json(send, 200, {"is_sleeping": self.asleep != self.faults.lie})

    async def _sleep(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        query = parse_qs(scope["query_string"].decode())
        level, mode = query.get("level", ["1"])[-1], query.get("mode", ["abort"])[-1]
        if level not in ("0", "1", "2"):
            raise Bad(400, "Bad Request", f"1 validation error: query.level is {level}")
        if mode not in ("abort", "wait", "keep"):
            raise Bad(400, "Bad Request", f"1 validation error: query.mode is {mode}")
        began = time.perf_counter()
        if "/sleep" not in self.faults.deaf:
            self.paused, self.frozen = True, mode == "keep"
            if mode == "abort":
                self.abort_all()
            async with self.changed:
                self.changed.notify_all()
                if mode == "wait":
                    await self.changed.wait_for(lambda: not self.running)
            self.level = int(level)
            if self.level:
                self.sleeping = TAGS
        self._took("sleep", time.perf_counter() - began)
        await answer_json(send, 200, {"status": "sleeping", "level": int(level)})

    async def _wake_up(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        tags = parse_qs(scope["query_string"].decode()).get("tags")
        began = time.perf_counter()
        awake = True
        if "/wake_up" not in self.faults.deaf:
            self.sleeping = self.sleeping - set(tags) if tags else frozenset()
            awake = not self.sleeping
            if awake:
                self.paused, self.frozen, self.level = False, False, 0
            await self.wake_waiters()
        self._took("wake", time.perf_counter() - began)
        await answer_json(send, 200, {"status": "awake" if awake else "sleeping", "tags": tags})

    def _took(self, operation: str, seconds: float) -> None:
        count, total = self.operations[operation]
        self.operations[operation] = (count + 1, total + seconds + self.faults.slow.get(f"/{operation}", 0.0))

    async def _reset_prefix_cache(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        await answer_json(send, 200, {"success": True})

    # -- scoring

    async def _chat(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = self.request(body, "messages")
        text, reason = speak(request["messages"], _choices(request), wanted_tokens(request))
        aborted = await self.generate(scope["path"], receive)
        if aborted is None:
            return
        if aborted:
            text, reason = "", "abort"
        common = {"id": answer_id("chatcmpl", body), "created": int(self.now()), "model": self.model}
        if request.get("stream"):
            await stream_chat(send, common, text, reason)
            return
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None, "reasoning": None},
            "logprobs": logprobs(request, request["messages"], text, "<|im_end|>" if reason == "stop" else ""),
            "finish_reason": reason,
            "stop_reason": None,
        }
        counts = usage(request["messages"], text)
        await answer_json(send, 200, {**common, "object": "chat.completion", "choices": [choice], "usage": counts})

    async def _completion(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = self.request(body, "prompt")
        text, reason = speak(request["prompt"], _choices(request), wanted_tokens(request))
        aborted = await self.generate(scope["path"], receive)
        if aborted is None:
            return
        if aborted:
            text, reason = "", "abort"
        common = {"id": answer_id("cmpl", body), "created": int(self.now()), "model": self.model}
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason, "stop_reason": None}
        if request.get("prompt_logprobs") is not None:
            _, *likely = prompt_logprobs(request["prompt"], corrupt=self.faults.corrupt)
            told = [{str(i): {"logprob": value, "rank": 1, "decoded_token": ""}} for i, value in enumerate(likely)]
            choice["prompt_logprobs"] = [None, *told]
        counts = usage(request["prompt"], text)
        await answer_json(send, 200, {**common, "object": "text_completion", "choices": [choice], "usage": counts})

    def request(self, body: bytes, needs: str) -> dict[str, Any]:
        request = read_json(body)
        if request.get("model", self.model) != self.model:
            raise Bad(404, "NotFoundError", f"The model `{request['model']}` does not exist.", "model")
        if needs not in request:
            raise Bad(400, "Bad Request", f"1 validation error: body.{needs} is missing")
        return request


class SimVllmPooling(SimVllm):
    """`--runner pooling --convert classify` on a model with one label."""

    scoring = frozenset({"/classify", "/pooling"})

    def tasks(self) -> Mapping[tuple[str, str], Handler]:
        pairs = ("/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank")
        return {
            ("POST", "/classify"): self._classify,
            ("POST", "/pooling"): self._pooling,
            **{("POST", path): self._no_pairs for path in pairs},
        }

    async def _no_pairs(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        raise Bad(400, "Bad Request", "1 validation error: the simulator compares no pairs")

    async def _pooling(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """The head's own value, without an activation."""
        texts = self._texts(self.asked(body))
        if await self.generate(scope["path"], receive) is None:
            return
        data = [{"index": i, "object": "pooling", "data": [self._reward(text)]} for i, text in enumerate(texts)]
        common = {"id": answer_id("pool", body), "object": "list", "created": int(self.now()), "model": self.model}
        await answer_json(send, 200, {**common, "data": data, "usage": usage(texts, "")})

    def asked(self, body: bytes) -> dict[str, Any]:
        """A chat, which the engine writes with its own template, or texts."""
        return self.request(body, "messages" if "messages" in read_json(body) else "input")

    def _texts(self, request: Mapping[str, Any]) -> list[Any]:
        if "messages" in request:
            return [chatml(request["messages"], asks=False)]
        asked = request["input"]
        one = isinstance(asked, str) or all(isinstance(token, int) for token in asked)
        return [asked] if one else list(asked)

    def _reward(self, text: Any) -> float:
        return reward(text, corrupt=self.faults.corrupt)

    async def _classify(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = self.asked(body)
        texts = self._texts(request)
        aborted = await self.generate(scope["path"], receive)
        if aborted is None:
            return
        if aborted:
            raise Bad(500, "InternalServerError", "aborted")
        raw = request.get("use_activation") is False
        data = [
            {"index": i, "label": "LABEL_0", "probs": [value if raw else 1 / (1 + math.exp(-value))], "num_classes": 1}
            for i, value in enumerate(map(self._reward, texts))
        ]
        common = {"id": answer_id("classify", body), "object": "list", "created": int(self.now()), "model": self.model}
        counts = {**usage(texts, ""), "completion_tokens": 0}
        await answer_json(send, 200, {**common, "data": data, "usage": counts})


def _choices(request: Mapping[str, Any]) -> list[Any] | None:
    outputs = request.get("structured_outputs") or {}
    if not isinstance(outputs, Mapping):
        return None
    return fitting(outputs["json"]) if "json" in outputs else outputs.get("choice")
