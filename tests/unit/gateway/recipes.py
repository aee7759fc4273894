"""The manifests of the recipes, and a sample as reward_api's training sends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml
from genrm_scoring.modules import Module, Modules

from dev.bootstrap import ROOT
from tests.unit.test_examples import fenced

RECIPES: Final = ROOT / "docs" / "recipes"
RULES: Final = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str.endswith(ground_truth)), "detail": data_source}
"""
RIDER_REWARD: Final = """
import json, re

OLD_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

def rm_preprocess(text_prompts, text_responses, tgt_tokenizer):
    def one(text_prompt, text_response):
        reply = json.loads(text_response[text_response.index("{"):])["Response"]
        prompt = text_prompt.replace("{response}", reply)
        if tgt_tokenizer.chat_template == OLD_TEMPLATE or tgt_tokenizer.chat_template is None:
            return "User: " + prompt + " Assistant: "
        messages = [{"role": "user", "content": prompt}]
        return tgt_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return [one(p, r) for p, r in zip(text_prompts, text_responses)]

def rm_postprocess(results):
    def one(text):
        found = re.findall(r"{[^{}]*}", text.split("</think>")[-1])
        marks = json.loads(found[-1]).values()
        return sum(marks) / len(marks)
    return [one(text) for text in results]
"""
"""In the form of VeRL-with-RMs' rider_reward.py."""
CONSISTENCY_REWARD: Final = """
def rm_preprocess(text_prompts=[], text_responses=[], tgt_tokenizer=None):
    return [f"Consistent? {p} {r}" for p, r in zip(text_prompts, text_responses)]

def rm_postprocess(results):
    return [-1 if "no" in text else 1 for text in results]
"""
ALIGNMENT: Final = """
def custom_alignment_prompt(user_query, response_a, response_b, reference="", **kwargs):
    shown = f"Reference: {reference} " if reference and reference.strip() else ""
    return f"Query: {user_query} {shown}A: {response_a} B: {response_b}"
"""
"""In the form of RM-Gallery's alignment_reward_fn.py."""
MODULES: Final[Mapping[str, Modules]] = {
    "reward-api.md": {"rw_custom": Module(RULES, "rw_custom.py")},
    "verl-with-rms.md": {
        "rider_reward": Module(RIDER_REWARD, "rider_reward.py"),
        "consistency_reward": Module(CONSISTENCY_REWARD, "consistency_reward.py"),
    },
    "rm-gallery.md": {"alignment_reward_fn": Module(ALIGNMENT, "alignment_reward_fn.py")},
}
"""By page, the files that a run of it brings."""


def documents(
    page: str, url: str, model: str | None = None, sampling: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """The manifests of a recipe, with every model at one address.

    Args:
        model: its name there, if not that of each RewardModel.
        sampling: by name of a RewardModel, what is laid over its own.
    """
    found = [d for block in fenced(RECIPES / page, "yaml") for d in yaml.safe_load_all(block)]
    for document in found:
        if document["kind"] == "RewardModel":
            scoring = document["spec"]["scoring"]
            if sampling is not None:
                scoring["sampling"] = {**scoring.get("sampling", {}), **sampling[document["metadata"]["name"]]}
            external = {"url": f"{url}/v1", **({} if model is None else {"model": model})}
            document["spec"] = {"type": "External", "external": external, "scoring": scoring}
    return found


def sample(response: str, truth: str = "4") -> dict[str, Any]:
    return {
        "data_source": "sums",
        "solution_str": f"2 + 2?{response}",
        "ground_truth": truth,
        "extra_info": {"split": "train"},
        "prompt_str": "2 + 2?",
        "response_str": response,
    }
