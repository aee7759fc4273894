"""A file of RewardModels and RewardFleets, as `kubectl apply` takes them; no cluster is asked.

A RewardModel in it is one outside any cluster (`type: External`); a RewardFleet may name those, rules and reward APIs.
Its template may lie in a file of its own (`template_files`), by a path that begins where this file is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from pydantic import ValidationError

from genrm_scoring.errors import ConfigurationError
from genrm_scoring.template_files import with_template

_KINDS: Final[Mapping[str, type[RewardModel] | type[RewardFleet]]] = {
    "RewardModel": RewardModel,
    "RewardFleet": RewardFleet,
}
NAMESPACE: Final = "default"
"""Of what names none."""


@dataclass(frozen=True, slots=True)
class SpecFile:
    models: Mapping[str, RewardModel] = field(default_factory=dict)
    fleets: Mapping[str, RewardFleet] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [*self.fleets, *self.models]

    @property
    def only(self) -> str | None:
        """What is meant where nothing is named: the only fleet, or the only thing there is."""
        for names in (list(self.fleets), self.names):
            if len(names) == 1:
                return names[0]
        return None

    def model(self, name: str) -> RewardModel:
        """
        Raises:
            ConfigurationError: it is not in the file.
        """
        if name not in self.models:
            sentence = f"{name} is not in the file; write it there, or remove it"
            raise ConfigurationError("spec.terms.rewardModel", sentence)
        return self.models[name]


def read(path: Path) -> SpecFile:
    """
    Raises:
        ConfigurationError: names the file, the document, the field, what was found and what to write.
    """
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if document is not None]
    except OSError as e:
        raise ConfigurationError("--spec", f"{path} cannot be read: {e.strerror or e}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigurationError("--spec", f"{path} is no YAML: {e}") from e
    return checked(documents, str(path), path.parent)


def checked(documents: Iterable[Any], where: str, folder: Path | None = None) -> SpecFile:
    """
    Args:
        folder: where files begin that the documents name; default: the working directory.

    Raises:
        ConfigurationError
    """
    models: dict[str, RewardModel] = {}
    fleets: dict[str, RewardFleet] = {}
    for number, document in enumerate(documents, 1):
        found = _resource(document, f"{where}, document {number}", folder or Path())
        if found.name in models or found.name in fleets:
            raise ConfigurationError(f"{where}, document {number}", f"the name {found.name} is there twice; rename one")
        if isinstance(found, RewardModel):
            models[found.name] = found
        else:
            fleets[found.name] = found
    if not models and not fleets:
        raise ConfigurationError(where, "holds no RewardModel and no RewardFleet; write one, as for kubectl apply")
    return SpecFile(models, fleets)


def _resource(document: Any, where: str, folder: Path) -> RewardModel | RewardFleet:
    kind = document.get("kind") if isinstance(document, Mapping) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ConfigurationError(where, f"kind: found {kind!r}; write {' or '.join(_KINDS)}")
    metadata = {"namespace": NAMESPACE, **(document.get("metadata") or {})}
    if not isinstance(metadata.get("name"), str):
        raise ConfigurationError(where, "metadata.name: missing; write the name by which requests ask for it")
    spec, at = document.get("spec"), f"{where}, {kind} {metadata['name']}"
    if kind == "RewardModel" and isinstance(spec, Mapping) and "scoring" in spec:
        spec = {**spec, "scoring": with_template(spec["scoring"], folder, f"{at}: spec.scoring")}
    try:
        return _KINDS[kind].model_validate({**document, "metadata": metadata, "spec": spec})
    except ValidationError as e:
        raise ConfigurationError(at, _sentence(e)) from None


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    field_path = ".".join(map(str, first["loc"]))
    words = first["msg"].removeprefix("Value error, ")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{field_path}: {words}{more}" if field_path else f"{words}{more}"
