"""VeRL-with-RMs' `rm_preprocess` and `rm_postprocess` as they are, behind the `api` term of a RewardFleet.

    python serve_functions.py rider_reward.py --gateway http://genrm-gateway:6009 --model rider \
        --tokenizer Qwen/QwQ-32B --column rm_prompt_0 --port 5033

For each response: rm_preprocess([prompt], [response], tokenizer) gives the text, the RewardModel goes on from it (the
gateway passes `/v1/completions` to one of its pods, and wakes it), and rm_postprocess([its answer]) gives the score.
What fails is an HTTP error with a sentence, never a score. Needs what genrm-gateway needs, and transformers for a
tokenizer.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException


def application(
    functions: ModuleType, tokenizer: Any, ask: Callable[[str], Any], column: str = "rm_prompt_0"
) -> FastAPI:
    """
    Args:
        functions: the module with the two functions.
        ask: takes a text to where it is gone on from.
        column: of the data set, with the prompt for the reward model.
    """
    app = FastAPI(title="rm_preprocess and rm_postprocess")

    @app.post("/get_reward2")
    async def get_reward2(sample: dict[str, Any]) -> dict[str, float]:
        extra = sample.get("extra_info") or {}
        if not isinstance(prompt := extra.get(column), str):
            raise HTTPException(422, f"extra_info has no text {column}; it has {', '.join(sorted(extra)) or 'nothing'}")
        text = await called(functions.rm_preprocess, [prompt], [sample["response_str"]], tokenizer)
        answer = await ask(str(text))
        score = await called(functions.rm_postprocess, [answer])
        if not isinstance(score, int | float) or not math.isfinite(score):
            raise HTTPException(
                422, f"rm_postprocess made {score!r} of {answer[-200:]!r}; it returns a list of numbers"
            )
        return {"score": float(score)}

    return app


async def called(function: Callable[..., Any], *args: Any) -> Any:
    """What a function of lists makes of one item."""
    try:
        (made,) = await asyncio.to_thread(function, *args)
    except Exception as e:
        raise HTTPException(422, f"{function.__name__} raised {type(e).__name__}: {e}") from e
    return made


def asking(client: httpx.AsyncClient, model: str, sampling: dict[str, Any]) -> Callable[[str], Any]:
    """Of a RewardModel behind the gateway, by its name."""

    async def ask(text: str) -> str:
        try:
            reply = await client.post(f"/{model}/v1/completions", json={"model": model, "prompt": text, **sampling})
        except httpx.HTTPError as e:
            raise HTTPException(503, f"the gateway does not answer: {type(e).__name__} {e}") from e
        if reply.status_code != 200:
            raise HTTPException(reply.status_code, reply.text[:500])
        choice = reply.json()["choices"][0]
        if choice["finish_reason"] != "stop":
            raise HTTPException(422, f"the answer ended with {choice['finish_reason']}: half of it is no verdict")
        return str(choice["text"])

    return ask


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("functions", type=Path, help="Python file with rm_preprocess and rm_postprocess")
    parser.add_argument("--gateway", required=True, help="URL of a genrm-gateway that knows the model")
    parser.add_argument("--model", required=True, help="name of the RewardModel")
    parser.add_argument("--tokenizer", help="that rm_preprocess is given: a folder, or a name on the hub")
    parser.add_argument("--column", default="rm_prompt_0", help="of the data set (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--port", type=int, default=5033)
    given = parser.parse_args()
    tokenizer = None
    if given.tokenizer is not None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    client = httpx.AsyncClient(base_url=given.gateway, timeout=600)
    ask = asking(client, given.model, {"temperature": given.temperature, "max_tokens": given.max_tokens})
    uvicorn.run(application(loaded(given.functions), tokenizer, ask, given.column), host="0.0.0.0", port=given.port)


if __name__ == "__main__":
    main()
