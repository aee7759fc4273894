"""What a run is scored by, as it was when the run started: one run is scored by one judge. Pure.

The resource is kept as the cluster has it, and what the run wants otherwise stands beside it, so that who reads the
record of a run sees both; `scored_by` is what comes of them.

It travels to every process of the run inside verl's configuration, as text: OmegaConf would take `${` in a template for
an interpolation of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Self

from genrm_api.judging import OnFailure
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from genrm_scoring.cluster_code import Code
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.run_policy import policies_of, under, written_out
from genrm_scoring.targets import drops_samples, needs_siblings

_KEPT = ("name", "namespace", "uid", "generation")


@dataclass(frozen=True, slots=True)
class Target:
    """A RewardModel or RewardFleet, and the RewardModels behind it: for a model, itself."""

    resource: RewardModel | RewardFleet
    models: tuple[RewardModel, ...]
    code: Code = field(default_factory=dict)
    """What the run approved of rules' code in ConfigMaps."""
    run_policy: OnFailure | None = None
    """The run's own failure policy, in place of the resource's."""

    @property
    def scored_by(self) -> RewardModel | RewardFleet:
        """The resource as this run is scored by it."""
        return under(self.resource, self.run_policy)

    @property
    def name(self) -> str:
        return self.resource.name

    @property
    def namespace(self) -> str:
        return self.resource.namespace

    @property
    def needs_siblings(self) -> bool:
        return needs_siblings(self.scored_by)

    @property
    def drops_samples(self) -> bool:
        return drops_samples(self.scored_by)

    @property
    def on_failure(self) -> OnFailure:
        """What it means for a sample that it has no score."""
        return policies_of(self.scored_by)[""]

    @property
    def has_pods(self) -> bool:
        """Whether anything must be woken for it."""
        return any(not rm.spec.is_external for rm in self.models)

    def model(self, name: str) -> RewardModel:
        """
        Raises:
            ConfigurationError: the fleet's terms name none like this.
        """
        for rm in self.models:
            if rm.name == name:
                return rm
        raise ConfigurationError(
            "spec.terms.rewardModel", f"{name} is none of {', '.join(m.name for m in self.models)}"
        )

    def text(self) -> str:
        manifests = [_manifest(it) for it in (self.resource, *self.models)]
        everything: dict[str, Any] = {"resources": manifests, "code": dict(self.code)}
        if self.run_policy is not None:
            everything["onFailure"] = written_out(self.run_policy)
        written = json.dumps(everything, ensure_ascii=True)
        return written.replace("$", "\\u0024")  # only texts can hold one

    @classmethod
    def read(cls, text: str) -> Self:
        written = json.loads(text)
        first, *models = written["resources"]
        kind = RewardFleet if first["kind"] == "RewardFleet" else RewardModel
        policy = written.get("onFailure")
        return cls(
            kind.model_validate(first),
            tuple(RewardModel.model_validate(each) for each in models),
            written["code"],
            None if policy is None else OnFailure.model_validate(policy),
        )


def _manifest(it: RewardModel | RewardFleet) -> dict[str, Any]:
    # As it was written: a default that is spelled out may be refused beside what it has no meaning for.
    spec = it.spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    written = {"apiVersion": it.api_version, "kind": it.kind, "spec": spec}
    return {**written, "metadata": {key: it.metadata[key] for key in _KEPT if key in it.metadata}}
