"""The manifests of the recipes, and a sample as reward_api's training sends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from dev.bootstrap import ROOT
from tests.unit.test_examples import fenced

RECIPES: Final = ROOT / "docs" / "recipes"
RULES: Final = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str.endswith(ground_truth)), "detail": data_source}
"""


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
