"""Which text of a user's is meant by the name of a function, and what is said where none is."""

from __future__ import annotations

from pathlib import Path

import pytest
from genrm_api.functions import FunctionSource
from genrm_scoring.errors import ConfigurationError
from genrm_scoring.modules import LONGEST, Module, found_function, modules_in

ONE = {"rider": Module("def f(): pass\n", "rider.py")}
TWO = {**ONE, "consistency": Module("if True:\n    g = f = len\n", "consistency.py")}
CODE = {"own/rules.py": "def f(): pass\n"}
OWN = FunctionSource(name="own")


def test_a_function_is_of_the_only_file_or_of_the_one_that_is_named() -> None:
    assert found_function("f", None, ONE, {}, "w").module is ONE["rider"]
    assert found_function("rider.f", None, TWO, {}, "w").module is TWO["rider"]
    found = found_function("consistency.f", None, TWO, {}, "w")
    assert (found.module, found.function) == (TWO["consistency"], "f")
    assert found_function("f", OWN, TWO, CODE, "w").module.filename == "ConfigMap own/rules.py"


@pytest.mark.parametrize(
    "source",
    ["from a import f", "import f", "from b import c as f", "from b import *", "class f: pass", "async def f(): pass",
     "try:\n    from a import f\nexcept ImportError:\n    f = None"],
)  # fmt: skip
def test_whatever_may_define_it_is_tried(source: str) -> None:
    assert found_function("f", None, {"a": Module(source, "a.py")}, {}, "w").function == "f"


@pytest.mark.parametrize(
    ("function", "config_map", "modules", "sentence"),
    [
        ("f", None, {}, "w.function: f is wanted, and no Python file was given"),
        ("f", None, TWO, "w.function: f may be of several files; write one of rider.f, consistency.f"),
        ("ride.f", None, TWO, "w.function: ride.f: no file ride.py was given; there are rider.py, consistency.py"),
        ("h", None, ONE, "w.function: rider.py has no function h"),
        ("consistency.h", None, TWO, "w.function: consistency.py has no function h"),
        ("f", None, {"a": Module("def f(:", "a.py")}, "w.function: a.py is no Python: invalid syntax"),
        ("f", FunctionSource(name="other"), ONE, "w.configMap: other: its code was not approved here; remove it"),
        ("h", OWN, ONE, "w.function: ConfigMap own/rules.py has no function h"),
    ],
)
def test_a_function_that_is_not_there_is_named(
    function: str, config_map: FunctionSource | None, modules: dict[str, Module], sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        found_function(function, config_map, modules, CODE, "w")
    assert str(refused.value).startswith(sentence)


def test_files_are_known_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "rider.py").write_text("x = 'é'\n")
    found = modules_in([tmp_path / "rider.py"], "--rules")
    assert found == {"rider": Module("x = 'é'\n", str(tmp_path / "rider.py"))}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    (tmp_path / "bytes.py").write_bytes(b"\xff")
    (tmp_path / "long.py").write_text(" " * (LONGEST + 1))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.py").write_text("")
    for names, sentence in [
        (["none.py"], "none.py cannot be read: .*No such file"),
        (["bytes.py"], "bytes.py cannot be read: 'utf-8' codec"),
        (["long.py"], f"long.py is a file of {LONGEST + 1} bytes; write at most {LONGEST}"),
        (["a.py", "more/a.py"], "more/a.py and .*a.py have one name; rename one"),
    ]:
        with pytest.raises(ConfigurationError, match=f"--rules: .*{sentence}"):
            modules_in([tmp_path / name for name in names], "--rules")
