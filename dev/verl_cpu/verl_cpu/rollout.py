"""The rollout backend `cpu_hf`: one Ray actor that generates with transformers.

`GenerationServer` is that actor, `CpuReplica` starts it where verl would start a vLLM server, and `WeightPusher` lives
in the training worker and sends the server the new weights after every step. Sleep and wake are kept, so that a run
which generates while verl thinks the server asleep fails.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import ray
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput


class GenerationServer:
    def __init__(self, model_path: str, response_length: int, end_tokens: list[int]) -> None:
        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
        self.response_length = response_length
        self.end_tokens = set(end_tokens)
        self.global_steps: int | None = None
        self.asleep = True
        self.lock = asyncio.Lock()

    async def ready(self) -> bool:
        return True

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, **_: Any
    ) -> TokenOutput:
        if self.asleep:
            raise RuntimeError("asked to generate while asleep")
        length = int(sampling_params.get("max_tokens") or self.response_length)
        temperature = float(sampling_params.get("temperature", 1.0))
        async with self.lock:
            loop = asyncio.get_running_loop()
            ids, log_probs = await loop.run_in_executor(None, self._sample, list(prompt_ids), length, temperature)
        return TokenOutput(
            token_ids=ids,
            log_probs=log_probs if sampling_params.get("logprobs") else None,
            stop_reason="completed",
            extra_fields={"global_steps": self.global_steps},
        )

    def _sample(self, prompt: list[int], length: int, temperature: float) -> tuple[list[int], list[float]]:
        ids: list[int] = []
        log_probs: list[float] = []
        past, current = None, torch.tensor([prompt])
        with torch.no_grad():
            for _ in range(length):
                out = self.model(current, past_key_values=past, use_cache=True)
                past = out.past_key_values
                log_p = torch.log_softmax(out.logits[0, -1].float() / (temperature or 1.0), -1)
                token = int(torch.multinomial(log_p.exp(), 1)) if temperature else int(log_p.argmax())
                ids.append(token)
                log_probs.append(float(log_p[token]))
                if token in self.end_tokens:
                    break
                current = torch.tensor([[token]])
        return ids, log_probs

    async def load_weights(self, weights: dict[str, torch.Tensor], global_steps: int | None) -> float:
        """Take new weights; return a checksum of them."""
        _, unexpected = self.model.load_state_dict(weights, strict=False)
        if unexpected:
            raise RuntimeError(f"weights of another model: {unexpected}")
        self.global_steps = global_steps
        return float(sum(w.double().abs().sum() for w in weights.values()))

    async def wake_up(self, **_: Any) -> None:
        self.asleep = False

    async def sleep(self, **_: Any) -> None:
        self.asleep = True

    async def abort_all_requests(self, **_: Any) -> None:
        pass

    async def resume_generation(self, **_: Any) -> None:
        pass

    async def clear_kv_cache(self, **_: Any) -> None:
        pass

    async def release_kv_cache(self, **_: Any) -> None:
        pass

    async def resume_kv_cache(self, **_: Any) -> None:
        pass

    async def start_profile(self, **_: Any) -> None:
        pass

    async def stop_profile(self, **_: Any) -> None:
        pass


class CpuReplica(RolloutReplica):  # type: ignore[misc]
    async def launch_servers(self) -> None:
        path = self.model_config.get("path") if hasattr(self.model_config, "get") else self.model_config.path
        end_token = AutoTokenizer.from_pretrained(path).eos_token_id
        # Generation is serialised by a lock; the concurrency is for the calls that must not wait behind it.
        actor = ray.remote(GenerationServer).options(name=_name(self.replica_rank), num_cpus=0, max_concurrency=64)
        server = actor.remote(path, self.config.response_length, [end_token])
        await server.ready.remote()
        self.servers, self._server_handle = [server], server
        self._server_address = _name(self.replica_rank)


class WeightPusher(BaseRollout):  # type: ignore[misc]
    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        self.replica_rank = int(os.environ["RANK"]) if replica_rank == -1 else replica_rank

    async def resume(self, tags: list[str]) -> None:
        if "kv_cache" in tags:
            await self._server().wake_up.remote()

    async def release(self) -> None:
        await self._server().sleep.remote()

    async def update_weights(
        self, weights: Any, wire_format: str = "named_tensors", global_steps: int | None = None, **_: Any
    ) -> None:
        if hasattr(weights, "__aiter__"):
            copied = {name: tensor.detach().cpu().clone() async for name, tensor in weights}
        else:
            copied = {name: tensor.detach().cpu().clone() for name, tensor in weights}
        checksum = await self._server().load_weights.remote(copied, global_steps)
        print(f"[cpu_hf] pushed {len(copied)} tensors step={global_steps} abs-sum={checksum:.6f}", flush=True)

    def _server(self) -> Any:
        return ray.get_actor(_name(self.replica_rank))


def _name(rank: int) -> str:
    return f"cpu_hf_server_{rank}"
