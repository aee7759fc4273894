import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from genrm_verl.import_hooks import after_import


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "genrm_hooked"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("value = 1\n")
    (tmp_path / name / "part.py").write_text("from genrm_hooked import value\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    yield name
    sys.meta_path[:] = before
    for module in [m for m in sys.modules if m.startswith(name)]:
        del sys.modules[module]


def raise_value(module: ModuleType) -> None:
    module.value += 1  # type: ignore[attr-defined]


def test_a_module_is_patched_before_anybody_copies_its_names(package: str) -> None:
    after_import(package, raise_value)
    assert importlib.import_module(f"{package}.part").value == 2
    assert importlib.import_module(package).value == 2


def test_a_module_that_is_already_there_is_patched_at_once(package: str) -> None:
    module = importlib.import_module(package)
    after_import(package, raise_value)
    assert module.value == 2


def test_a_patched_package_still_finds_its_parts_and_its_source(package: str) -> None:
    after_import(package, raise_value)
    module = importlib.import_module(package)
    assert importlib.import_module(f"{package}.part")
    assert module.__spec__ is not None
    assert module.__spec__.loader is not None
    assert module.__spec__.loader.get_source(package) == "value = 1\n"  # type: ignore[attr-defined]


def test_a_module_that_does_not_exist_stays_missing(package: str) -> None:
    after_import("genrm_nowhere", raise_value)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("genrm_nowhere")
