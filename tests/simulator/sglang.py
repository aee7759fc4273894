"""SGLang 0.5.23's HTTP as the operator and the scoring library meet it, without a model.

What is imitated was seen on the real one (tests/e2e/contract compares), its mortality included: a release while a
request runs, a resume of what is not released and a forward pass over released memory are each the end of the server.
While it is paused requests wait, uncounted, and go on when it continues. An embedding server (`SimSglangEmbedding`)
rewards instead of speaking.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.simulator.asgi import Receive, Scope, Send, answer, answer_json
from tests.simulator.engine import Bad, Dead, Handler, SimEngine, read_json, stream_chat
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

VERSION = "0.5.23"
TAGS = frozenset({"weights", "kv_cache", "cuda_graph"})
PAUSED = {"message": "Generation paused successfully.", "status": "ok"}
CONTINUED = {"message": "Generation continued successfully.", "status": "ok"}


class SimSglang(SimEngine):
    door = "sglang"
    wakes = "/resume_memory_occupation"
    generates = True
    scoring = frozenset({"/v1/chat/completions", "/v1/completions", "/generate"})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.released: frozenset[str] = frozenset()
        self.paused = False

    def handlers(self) -> Mapping[tuple[str, str], Handler]:
        return {
            ("GET", "/ping"): self._ping,
            ("GET", "/health"): self._health,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("GET", "/model_info"): self._model_info,
            ("GET", "/server_info"): self._server_info,
            ("GET", "/v1/loads"): self._loads,
            ("GET", "/flush_cache"): self._flush_cache,
            ("POST", "/pause_generation"): self._pause,
            ("POST", "/continue_generation"): self._continue,
            ("POST", "/release_memory_occupation"): self._release,
            ("POST", "/resume_memory_occupation"): self._resume,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/v1/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
            ("POST", "/v1/detokenize"): self._detokenize,
            ("POST", "/v1/score"): self._no_pairs,
            **self.tasks(),
        }

    def tasks(self) -> Mapping[tuple[str, str], Handler]:
        """What this server computes."""
        return {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completion,
            ("POST", "/generate"): self._generate_text,
        }

    @property
    def asleep(self) -> bool:
        return self.paused or bool(self.released)

    def error(self, bad: Bad, path: str) -> Mapping[str, Any]:
        if path in ("/generate", "/classify", "/encode"):
            return {"error": {"message": str(bad)}}
        return {"object": "error", "message": str(bad), "type": bad.kind, "param": bad.param, "code": bad.status}

    # -- routes that answer in every state

    async def _ping(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        await answer(send, 200)

    async def _health(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """A forward pass."""
        self._compute("/health")
        await answer(send, 200)

    async def _models(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        card = {
            "id": self.model,
            "object": "model",
            "created": int(self.now()),
            "owned_by": "sglang",
            "root": self.model,
        }
        await answer_json(send, 200, {"object": "list", "data": [{**card, "parent": None, "max_model_len": 4096}]})

    async def _model_info(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        info = {"model_path": f"/models/{self.model}", "served_model_name": self.model, "weight_version": "default"}
        kind = "Qwen2ForCausalLM" if self.generates else "Qwen2ForSequenceClassification"
        more = {"is_generation": self.generates, "model_type": "qwen2", "architectures": [kind]}
        await answer_json(send, 200, {**info, "tokenizer_path": f"/models/{self.model}", **more})

    async def _server_info(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Much more than a stranger should know."""
        arguments = {
            "model_path": f"/models/{self.model}",
            "served_model_name": self.model,
            "is_embedding": not self.generates,
            "enable_memory_saver": True,
            "enable_weights_cpu_backup": True,
            "device": "cpu",
            "dtype": "auto",
            "tp_size": 1,
            "pp_size": 1,
            "dp_size": 1,
            "load_balance_method": "round_robin",
            "disaggregation_mode": "null",
            "max_total_num_tokens": 8192,
        }
        secrets = {"api_key": "a key", "admin_api_key": "a key", "launch_command": "python --api-key 'a key'"}
        states = [{**arguments, **secrets}]
        await answer_json(send, 200, {**arguments, **secrets, "internal_states": states, "version": VERSION})

    async def _loads(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        load = {"dp_rank": 0, "num_running_reqs": self.running, "num_waiting_reqs": self._queued()}
        await answer_json(send, 200, {"timestamp": "", "version": VERSION, "loads": [load]})

    async def _metrics(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        labels = f'engine_type="unified",model_name="{self.model}",moe_ep_rank="0",pp_rank="0",tp_rank="0"'
        lines = []
        for name, value in (("num_running_reqs", self.running), ("num_queue_reqs", self._queued())):
            lines += [f"# TYPE sglang:{name} gauge", f"sglang:{name}{{{labels}}} {float(value)}"]
        await answer(send, 200, ("\n".join(lines) + "\n").encode(), "text/plain; version=1.0.0; charset=utf-8")

    def _queued(self) -> int:
        """While the engine is paused requests wait where its counts do not see them."""
        return 0 if self.paused else len(self.jobs) - self.running

    async def _tokenize(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = read_json(body)
        tokens = tokens_of(
            chatml(request["messages"], asks=request.get("add_generation_prompt", True))
            if "messages" in request
            else self.request(body, "prompt")["prompt"]
        )
        await answer_json(send, 200, {"tokens": tokens, "count": len(tokens), "max_model_len": 4096})

    async def _detokenize(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = self.request(body, "tokens")
        await answer_json(send, 200, {"text": "".join(chr(token) for token in request["tokens"])})

    async def _no_pairs(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        raise Bad(400, "Bad Request", "1 validation error: the simulator compares no pairs")

    # -- memory

    async def _pause(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        mode = read_json(body).get("mode", "abort")
        if mode not in ("abort", "retract", "in_place"):
            raise Bad(400, "Bad Request", f"1 validation error: body.mode is {mode}")
        if scope["path"] not in self.faults.deaf:
            if mode == "abort" and not self.paused:
                self.abort_all()
            self.paused = True
        await answer_json(send, 200, PAUSED)

    async def _continue(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        read_json(body)
        if scope["path"] not in self.faults.deaf:
            self.paused = False
            if self.jobs:
                self._compute("a request that waited")
            await self.wake_waiters()
        await answer_json(send, 200, CONTINUED)

    async def _flush_cache(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        await answer(send, 400 if self.running else 200)

    async def _release(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        tags = self._tags(body)
        if scope["path"] not in self.faults.deaf:
            if self.running:
                raise Dead("a release while a request ran")
            self.released |= tags
        await answer_json(send, 200, None)

    async def _resume(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        tags = self._tags(body)
        if scope["path"] not in self.faults.deaf:
            if not tags <= self.released:
                raise Dead("a resume of what was not released")
            self.released -= tags
            await self.wake_waiters()
        await answer_json(send, 200, None)

    def _tags(self, body: bytes) -> frozenset[str]:
        tags = read_json(body).get("tags")
        if tags is not None and not isinstance(tags, list):
            raise Bad(400, "Bad Request", "1 validation error: body.tags is no list")
        return frozenset(tags) if tags else TAGS

    def _compute(self, what: str) -> None:
        if self.released:
            raise Dead(f"{what} on released memory")

    # -- scoring

    async def _chat(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = self.request(body, "messages")
        text, reason = speak(request["messages"], _choices(request), wanted_tokens(request))
        aborted = await self._spoken(scope, receive)
        if aborted is None:
            return
        if aborted:
            text, reason = "", "abort"
        common = {"id": answer_id("chatcmpl", body), "created": int(self.now()), "model": request.get("model", "")}
        if request.get("stream"):
            await stream_chat(send, common, text, reason)
            return
        message = {"role": "assistant", "content": text, "reasoning_content": None, "tool_calls": None}
        likely = logprobs(request, request["messages"], text)
        choice = {"index": 0, "message": message, "logprobs": likely, "finish_reason": reason, "matched_stop": None}
        counts = usage(request["messages"], text)
        metadata = {"weight_version": "default"}
        document = {**common, "object": "chat.completion", "choices": [choice], "usage": counts, "metadata": metadata}
        await answer_json(send, 200, document)

    async def _completion(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = self.request(body, "prompt")
        text, reason = speak(request["prompt"], _choices(request), wanted_tokens(request))
        aborted = await self._spoken(scope, receive)
        if aborted is None:
            return
        if aborted:
            text, reason = "", "abort"
        common = {"id": answer_id("cmpl", body), "created": int(self.now()), "model": request.get("model", "")}
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason, "matched_stop": None}
        counts = usage(request["prompt"], text)
        await answer_json(send, 200, {**common, "object": "text_completion", "choices": [choice], "usage": counts})

    async def _generate_text(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        request = read_json(body)
        asked = request["input_ids"] if "input_ids" in request else self.request(body, "text")["text"]
        sampling = request.get("sampling_params") or {}
        tokens = int(sampling.get("max_new_tokens", 128))
        text, _ = speak(asked, _choices(sampling), tokens)
        aborted = await self._spoken(scope, receive)
        if aborted is None:
            return
        reason = {"type": "abort", "message": "Abort"} if aborted else {"type": "length", "length": tokens}
        info: dict[str, Any] = {"id": answer_id("gen", body), "finish_reason": reason}
        info |= usage(asked, text)
        if request.get("return_logprob") and request.get("logprob_start_len") == 0:
            _, *likely = prompt_logprobs(asked, corrupt=self.faults.corrupt)
            info["input_token_logprobs"] = [[None, 0, None], *([value, i, None] for i, value in enumerate(likely))]
        await answer_json(send, 200, {"text": "" if aborted else text, "meta_info": info})

    async def _spoken(self, scope: Scope, receive: Receive) -> bool | None:
        if not self.paused:
            self._compute(scope["path"])
        return await self.generate(scope["path"], receive)

    def request(self, body: bytes, needs: str) -> dict[str, Any]:
        """Any model name is served."""
        request = read_json(body)
        if needs not in request:
            raise Bad(400, "Bad Request", f"1 validation error: body.{needs} is missing")
        return request


class SimSglangEmbedding(SimSglang):
    """`--is-embedding` on a reward model with one label. It is not asked to generate: the real one dies of it."""

    door = "sglang-embedding"
    generates = False
    scoring = frozenset({"/classify", "/encode", "/v1/embeddings", "/v1/classify"})

    def tasks(self) -> Mapping[tuple[str, str], Handler]:
        return {
            ("POST", "/classify"): self._rewards,
            ("POST", "/encode"): self._rewards,
            ("POST", "/v1/embeddings"): self._embeddings,
            ("POST", "/v1/classify"): self._classify,
            ("POST", "/v1/rerank"): self._no_pairs,
        }

    async def _rewards(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        def document(texts: Sequence[Any], one: bool) -> Any:
            info: dict[str, Any] = {"id": answer_id("embed", body), "finish_reason": {"type": "length", "length": 0}}
            rows = [{"embedding": [self._reward(t)], "meta_info": info | {"prompt_tokens": len(t)}} for t in texts]
            return rows[0] if one else rows

        by_tokens = "input_ids" in read_json(body)
        await self._rewarded(scope, body, receive, send, "input_ids" if by_tokens else "text", document)

    def _reward(self, text: Any) -> float:
        return reward(text, corrupt=self.faults.corrupt)

    async def _embeddings(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        def document(texts: Sequence[Any], one: bool) -> Any:
            rows = [{"embedding": [self._reward(t)], "index": i, "object": "embedding"} for i, t in enumerate(texts)]
            return {"data": rows, "model": self.model, "object": "list", "usage": usage(texts, "")}

        await self._rewarded(scope, body, receive, send, "input", document)

    async def _classify(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """A softmax over one label: always 1."""

        def document(texts: Sequence[Any], one: bool) -> Any:
            rows = [{"index": i, "label": "LABEL_0", "probs": [1.0], "num_classes": 1} for i in range(len(texts))]
            return {"id": answer_id("classify", body), "object": "list", "model": self.model, "data": rows}

        await self._rewarded(scope, body, receive, send, "input", document)

    async def _rewarded(
        self,
        scope: Scope,
        body: bytes,
        receive: Receive,
        send: Send,
        needs: str,
        document: Callable[[Sequence[Any], bool], Any],
    ) -> None:
        asked = self.request(body, needs)[needs]
        aborted = await self._spoken(scope, receive)
        if aborted is None:
            return
        if aborted:
            raise Bad(400, "BadRequestError", "Abort")
        one = isinstance(asked, str) or all(isinstance(token, int) for token in asked)
        await answer_json(send, 200, document([asked] if one else asked, one))


def _choices(request: Mapping[str, Any]) -> list[Any] | None:
    """The alternatives of a guiding expression of the form `(one|another)`, or what fits a schema."""
    if (form := request.get("response_format") or {}).get("type") == "json_schema":
        return fitting(form["json_schema"]["schema"])
    found = re.fullmatch(r"\((.*)\)", str(request.get("regex") or ""), re.DOTALL)
    words = re.findall(r"(?:\\.|[^\\|])+", found[1], re.DOTALL) if found else []
    return [re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL) for word in words] or None
