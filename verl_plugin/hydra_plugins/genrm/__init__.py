"""Makes verl's own configuration know our keys, so that `reward_model.discovery=k8s` needs no `+` and no changed file.

Hydra imports this module in every Hydra program of the environment, so it is cheap, imports neither verl nor anything
heavy, and keeps out of programs that are not verl's. Two plugins work together: a ConfigSource that serves the yaml of
the *installed* verl with our keys merged under it (verl's own value wins where both have one), and a SearchPathPlugin
that puts this source in front of verl's configuration directory.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from genrm_verl.overlay import OVERLAY
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

_VERL_CONFIG = "verl.trainer.config"
_REWARD_KEYS = "legacy_reward_impl"
"""The file with `reward_model`; in the defaults list of every PPO trainer of verl 0.7.1 and later."""
_PRIMARY_FILES = ("ppo_trainer", "ppo_megatron_trainer")
"""Where `reward_model` can be added in a verl that has no such file."""


class GenrmConfigSource(ConfigSource):  # type: ignore[misc]
    """`genrm://verl.trainer.config`: verl's yaml plus our keys, for the one or two files that need them."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider=provider, path=path)
        self._directory = _verl_config_directory()

    @staticmethod
    def scheme() -> str:
        return "genrm"

    def available(self) -> bool:
        return self._directory is not None

    def is_config(self, config_path: str) -> bool:
        file = self._file(config_path)
        return file is not None and file.is_file()

    def is_group(self, config_path: str) -> bool:
        return False

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return []

    def load_config(self, config_path: str) -> ConfigResult:
        file = self._file(config_path)
        if file is None or not file.is_file():
            raise ConfigLoadError(f"Config not found : {config_path}")
        text = file.read_text(encoding="utf-8")
        return ConfigResult(
            provider=self.provider,
            path=self.full_path(),
            config=OmegaConf.merge(OmegaConf.create(OVERLAY), OmegaConf.create(text)),
            header=ConfigSource._get_header_dict(text[:512]),
        )

    def _file(self, config_path: str) -> Path | None:
        """The yaml of verl that answers for `config_path`, if it is one that we extend."""
        if self._directory is None:
            return None
        extended = (_REWARD_KEYS,) if (self._directory / f"{_REWARD_KEYS}.yaml").is_file() else _PRIMARY_FILES
        name = config_path.removesuffix(".yaml")
        return self._directory / f"{name}.yaml" if name in extended else None


class GenrmSearchPath(SearchPathPlugin):  # type: ignore[misc]
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        main = next((entry for entry in search_path.get_path() if entry.provider == "main"), None)
        ours = f"{GenrmConfigSource.scheme()}://{_VERL_CONFIG}"
        if main is not None and _is_verl_config(main.path):
            search_path.prepend("genrm", ours, SearchPathQuery(provider="main"))
        elif "verl" in sys.modules:
            # A recipe with its own directory that adds verl's by `hydra.searchpath`: its files still win over verl's.
            search_path.append("genrm", ours)


def _verl_config_directory() -> Path | None:
    spec = importlib.util.find_spec("verl")  # finds, does not import
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).parent / "trainer" / "config"
    return directory if directory.is_dir() else None


def _is_verl_config(path: str) -> bool:
    if path.startswith("pkg://"):
        return path.removeprefix("pkg://").replace("/", ".").strip(".") == _VERL_CONFIG
    directory = _verl_config_directory()
    return directory is not None and Path(path.removeprefix("file://")).resolve() == directory.resolve()
