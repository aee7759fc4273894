"""The chart's CEL runs on the oldest Kubernetes that Chart.yaml admits.

An API server compiles a new expression with the functions of the release *before* it, so that a rollback can still read
what was stored: on 1.30 these are the functions of 1.29. Which function came when is in k8s.io/apiserver,
pkg/cel/environment/base.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from tests.unit.rendering import CHART, render

FLOOR: Final = (1, 30)
FUNCTIONS: Final = {
    "the language": "all exists exists_one filter map has size in type dyn int uint double string bytes bool duration "
    "timestamp matches startsWith endsWith contains getDate getDayOfMonth getDayOfWeek getDayOfYear getFullYear "
    "getHours getMilliseconds getMinutes getMonth getSeconds",
    "strings": "charAt format indexOf join lastIndexOf lowerAscii quote replace split substring trim upperAscii",
    "lists": "isSorted sum min max",
    "regex": "find findAll",
    "urls": "url isURL getScheme getHost getHostname getPort getEscapedPath getQuery",
    "1.27, authorizer": "path group serviceAccount resource subresource namespace name check allowed reason "
    "errored error",
    "1.28, optionals": "optional of none ofNonZeroValue or orValue optMap optFlatMap hasValue value",
    "1.28, quantities": "quantity isQuantity sign isInteger asInteger asApproximateFloat add sub isLessThan "
    "isGreaterThan compareTo",
    "1.29, sets": "equivalent intersects",
}
KNOWN: Final = {name for names in FUNCTIONS.values() for name in names.split()}
NEWER: Final = {
    "1.30": "ip isIP cidr isCIDR containsIP family isLoopback isUnspecified prefixLength masked",
    "1.31": "fieldSelector labelSelector dns1123Label validate named",
    "1.32": "transformMap transformList transformMapEntry existsOne",
    "1.33": "semver isSemver major minor patch",
    "1.34": "sort sortBy slice flatten distinct range reverse first last lists",
}


def functions(expression: str) -> set[str]:
    bare = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "''", expression)
    return set(re.findall(r"\b([A-Za-z_]\w*)\s*\(", bare)) - {"in"}


def expressions(manifest: Any) -> Iterator[str]:
    """Every CEL expression in a manifest: VAPs', and rules of CRDs."""
    if isinstance(manifest, dict):
        for key, value in manifest.items():
            if isinstance(value, str) and key in ("expression", "messageExpression", "rule"):
                yield value
            yield from expressions(value)
    elif isinstance(manifest, list):
        for item in manifest:
            yield from expressions(item)


def test_the_floor_is_the_one_that_the_functions_are_checked_for() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={FLOOR[0]}.{FLOOR[1]}.0-0"


def test_the_table_of_functions_holds_none_that_is_newer() -> None:
    assert not KNOWN & {name for names in NEWER.values() for name in names.split()}


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("has(self.a) && self.b.all(x, x in ['f(x)'])", {"has", "all"}),
        ("'it is ' + string(size(self.a))", {"string", "size"}),
        ("ip('10.0.0.1').family() == 4", {"ip", "family"}),
        (r"self.a == 'it\'s (so)' || sets.contains(self.x, [1])", {"contains"}),
    ],
)
def test_the_reader_of_expressions_finds_the_functions(expression: str, found: set[str]) -> None:
    assert functions(expression) == found


def test_no_expression_uses_a_function_newer_than_the_floor() -> None:
    manifests = render()
    for kind, least in (("ValidatingAdmissionPolicy", 10), ("CustomResourceDefinition", 20)):
        found = [e for (k, _), manifest in manifests.items() if k == kind for e in expressions(manifest)]
        assert len(found) >= least
        for expression in found:
            unknown = functions(expression) - KNOWN
            assert not unknown, f"{kind}: {unknown} is not in Kubernetes {FLOOR[0]}.{FLOOR[1] - 1}: {expression}"
