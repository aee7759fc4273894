"""Code that lies in ConfigMaps of the cluster, of rules and of functions around a model, for runs that approve it.

Whoever may write such a ConfigMap could otherwise run what he likes in every training run that names the resource. So a
run says which texts it has read, by their SHA-256; any other is refused, and its hash is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from genrm_api.functions import Function, FunctionSource
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel, RewardModelSpec
from genrm_api.rules import ApiModel
from genrm_api.scoring import Scoring
from genrm_api.terms import Term
from pydantic import ValidationError

from genrm_scoring.cluster import CONFIG_MAPS, Cluster
from genrm_scoring.errors import ConfigurationError, NotFound

Code = Mapping[str, str]
"""`place` of a ConfigMap's key → the text of the module."""


def place(source: FunctionSource) -> str:
    return f"{source.name}/{source.key}"


def as_term_says(term: Term, rm: RewardModel) -> RewardModel:
    """A RewardModel as a fleet's term asks it: by its `spec.scoring`, but for what the term says itself. The form of
    the answer (`structured`) is of the judge that reads it, and goes with it.

    Raises:
        ConfigurationError: the two do not go together.
    """
    if not term.has_functions:
        return rm
    spec, around = _written(rm.spec), _written(term)
    scoring = dict(spec.get("scoring") or {})
    for function, beside in (("preprocess", "template"), ("postprocess", "parse")):
        if function in around:
            scoring[function] = around[function]
            scoring.pop(beside, None)
    scoring.pop("judge", None)
    if "postprocess" in around and "structured" in (sampling := scoring.get("sampling", {})):
        scoring["sampling"] = {key: value for key, value in sampling.items() if key != "structured"}
    try:
        return rm.model_copy(update={"spec": RewardModelSpec.model_validate({**spec, "scoring": scoring})})
    except ValidationError as e:
        words = e.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"spec.terms {term.name}", f"with RewardModel {rm.name}: {words}") from None


def _written(part: ApiModel) -> dict[str, Any]:
    """As it was written: a default that is spelled out may be refused beside what it has no meaning for."""
    return part.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


def functions_of(resource: RewardModel | RewardFleet, models: Iterable[RewardModel]) -> Iterator[tuple[str, Function]]:
    """The functions that scoring with a resource calls, each with what names it.

    Args:
        models: those that a fleet's terms name.
    """
    if isinstance(resource, RewardModel):
        yield from _around(f"RewardModel {resource.name} spec.scoring.", resource.spec.scoring)
        return
    by_name = {model.name: model for model in models}
    for term in resource.spec.terms:
        where = f"RewardFleet {resource.name} spec.terms {term.name}"
        if term.rule is not None and term.rule.function is not None:
            yield f"{where} rule", Function(function=term.rule.function, config_map=term.rule.config_map)
        if term.reward_model is not None and (named := by_name.get(term.reward_model.name)) is not None:
            rm = as_term_says(term, named)
            before = f"{where} " if term.has_functions else f"RewardModel {rm.name} spec.scoring."
            yield from _around(before, rm.spec.scoring)


def _around(before: str, scoring: Scoring) -> Iterator[tuple[str, Function]]:
    if scoring.preprocess is not None:
        yield f"{before}preprocess", scoring.preprocess
    if scoring.postprocess is not None:
        yield f"{before}postprocess", scoring.postprocess


async def approved_code(
    cluster: Cluster,
    resource: RewardModel | RewardFleet,
    allowed: Collection[str],
    field: str,
    models: Iterable[RewardModel] = (),
) -> dict[str, str]:
    """The code in ConfigMaps that scoring with a resource runs.

    Args:
        allowed: SHA-256 of texts, as hexadecimal digits.
        field: what approves them, for messages.
        models: those that a fleet's terms name.

    Raises:
        ConfigurationError: it is not there, or not approved.
        ClusterError
    """
    found: dict[str, str] = {}
    for named_by, function in functions_of(resource, models):
        if (source := function.config_map) is None:
            continue
        where = f"{named_by}.configMap"
        try:
            held = await cluster.get(CONFIG_MAPS, resource.namespace, source.name)
        except NotFound:
            raise ConfigurationError(where, f"there is no ConfigMap {resource.namespace}/{source.name}") from None
        data = held.get("data") or {}
        if (text := data.get(source.key)) is None:
            keys = ", ".join(sorted(data)) or "none"
            raise ConfigurationError(where, f"ConfigMap {source.name} has no key {source.key}; it has {keys}")
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest not in allowed:
            raise ConfigurationError(
                where,
                f"its code would run with the rights of this run: read it (kubectl -n {resource.namespace} get "
                f"configmap {source.name} -o yaml), and write {field}={digest}",
            )
        found[place(source)] = text
    return found
