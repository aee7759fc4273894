"""Pydantic and the API server give every manifest, and every change of one, the same verdict.

The CRDs are installed a second time under names that the operator does not watch, so that thousands of objects move
nothing. What is free below `podTemplate.spec` has no verdict at this place: the operator gives it.
"""

from __future__ import annotations

import base64
import copy
import http.client
import json
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml
from genrm_api.rewardfleet import RewardFleet
from genrm_api.rewardmodel import RewardModel
from genrm_api.rules import ApiModel
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dev.cluster import Cluster
from tests.cluster import fleet_manifests, model_manifests
from tests.cluster.conftest import PATIENT, wait_for
from tests.cluster.manifests import Grammar, smallest, text
from tests.unit.api import cases, fleet_cases, shapes

pytestmark = pytest.mark.cluster

EXAMPLES: Final = int(os.environ.get("GENRM_EQUALITY_EXAMPLES", "5000"))
"""Of RewardModels, in both tests together; of RewardFleets a fifth of it. `make fuzz` asks for 100 000."""
GROUP: Final = "equality.genrm.test"
SEEDS = st.integers(0, 2**64 - 1)
SETTINGS = settings(
    deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate],
    derandomize="GENRM_EQUALITY_EXAMPLES" not in os.environ,
)  # fmt: skip


@dataclass(frozen=True)
class Resource:
    """A resource of ours under another name, and what is known of its manifests."""

    kind: str
    crd: dict[str, Any]
    model: type[ApiModel]
    grammar: Grammar
    names: list[str]

    @property
    def plural(self) -> str:
        return f"{self.kind.lower()}s"

    def path(self, below: str = "", *, dry: bool = True) -> str:
        query = "?fieldValidation=Strict" + ("&dryRun=All" if dry else "")
        return f"/apis/{GROUP}/v1alpha1/namespaces/default/{self.plural}{below}{query}"

    def document(self, name: str, spec: str, version: str | None = None) -> str:
        """The text of a whole object around the text of its spec, which may hold a key twice."""
        metadata = {"name": name} | ({"resourceVersion": version} if version else {})
        head = f'"apiVersion": "{GROUP}/v1alpha1", "kind": "{self.kind}"'
        return f'{{{head}, "metadata": {json.dumps(metadata)}, "spec": {spec}}}'

    def read(self, text: str) -> ApiModel:
        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            if len(dict(pairs)) < len(pairs):
                raise ValueError(f"a key is written twice in {pairs}")
            return dict(pairs)

        return self.model.model_validate(ours(json.loads(text, object_pairs_hook=once), self.model))


def ours(found: dict[str, Any], model: type[ApiModel]) -> dict[str, Any]:
    """An object as it would be under its own name."""
    return found | {"apiVersion": "genrm.dev/v1alpha1", "kind": model.__name__}


MODELS: Final = Resource(
    "EqualityModel", model_manifests.CRD, RewardModel, model_manifests.GRAMMAR,
    [*["judge"] * 5, "j", "a" * 40, "a" * 41, "1a", "A", "a-", "a.b", "judge-1", "a-pods", "a-router", "pods"],
)  # fmt: skip
FLEETS: Final = Resource(
    "EqualityFleet", fleet_manifests.CRD, RewardFleet, fleet_manifests.GRAMMAR,
    [*["math"] * 5, "f", "a" * 40, "a" * 41, "1a", "A", "a-", "a.b", "a-pods"],
)  # fmt: skip
BROKEN: Final = [
    pytest.param(resource, spec, says, id=f"{resource.kind}: {name}")
    for resource, found in (
        (MODELS, {name: (shapes.manifest(spec)["spec"], says) for name, (spec, says) in cases.BROKEN.items()}),
        (FLEETS, fleet_cases.BROKEN),
    )
    for name, (spec, says) in found.items()
]
ACCEPTED: Final = [
    pytest.param(resource, spec, id=f"{resource.kind}: {name}")
    for resource, found in (
        (MODELS, {name: shapes.manifest(spec)["spec"] for name, spec in cases.ACCEPTED.items()}),
        (FLEETS, fleet_cases.ACCEPTED),
    )
    for name, spec in found.items()
]
NAMES: Final = [
    pytest.param(resource, name, says, id=f"{resource.kind}: {name}")
    for resource, found in (
        (MODELS, cases.BROKEN_NAMES | dict.fromkeys(cases.ACCEPTED_NAMES)),
        (FLEETS, fleet_cases.BROKEN_NAMES | dict.fromkeys(fleet_cases.ACCEPTED_NAMES)),
    )
    for name, says in found.items()
]

OLD: Final[list[tuple[dict[str, Any], dict[str, Any] | None]]] = [
    (spec, status)
    for spec in (
        {"model": {"uri": "hf://a/b"}},
        {"model": {"uri": "hf://a/b"}, "engine": {"name": "vllm", "maxModelLen": 64}},
        {"model": {"uri": "pvc://w"}, "engine": {"name": "custom", "image": "x", "custom": {"command": ["x"]}}},
        {"model": {"uri": "pvc://w"}, "engine": shapes.hooked()},
        {"type": "Classifier", "model": {"uri": "hf://a/b"}, "engine": {"name": "sglang"}, "gpu": {}},
        {"model": {"uri": "hf://a/b"}, "gpu": {"sharing": "SharedClaim", "slots": [{"name": "s0"}]}},
    )
    for status in (None, {"phase": "Off"}, {"replicas": 0}, {"replicas": 2})
]


class Api:
    """One kept connection; no kubectl for each of thousands of calls."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        files = [kubeconfig.parent / f"equality-{kind}.pem" for kind in ("certificate", "key")]
        for kind, file in zip(("certificate", "key"), files, strict=True):
            file.write_bytes(base64.b64decode(user[f"client-{kind}-data"]))
            file.chmod(0o600)
        context.load_cert_chain(files[0], files[1])
        address = urlsplit(cluster["server"])
        assert address.hostname is not None
        self._connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=PATIENT, context=context)

    def call(self, method: str, path: str, body: str) -> tuple[int, dict[str, Any]]:
        try:
            self._connection.request(method, path, body.encode(), {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read())
        except OSError:
            self._connection.close()  # or who comes next is told that an answer is still due, and nobody what it was
            raise

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def api(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    kubeconfig = tmp_path_factory.mktemp("equality") / "kubeconfig"
    kubeconfig.write_text(cluster.settings.kubeconfig("admin").read_text())
    api = Api(kubeconfig)
    for resource in (MODELS, FLEETS):
        crd = copy.deepcopy(resource.crd)
        crd["metadata"]["name"] = f"{resource.plural}.{GROUP}"
        crd["spec"]["group"] = GROUP
        crd["spec"]["names"] = {"kind": resource.kind, "plural": resource.plural}
        cluster.kubectl("apply", "-f", "-", input=json.dumps(crd))
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{resource.plural}.{GROUP}")
        probe = resource.document("probe", "{}")
        wait_for("the API server serves the CRD", lambda: api.call("POST", resource.path(), probe)[0] != 404)  # noqa: B023
    yield api
    api.close()
    for resource in (MODELS, FLEETS):
        cluster.kubectl("delete", "crd", f"{resource.plural}.{GROUP}", "--wait=false")


@pytest.fixture(scope="module")
def stored(api: Api) -> list[dict[str, Any]]:
    """RewardModels to be changed: with pods and without, and such of which nothing is known yet."""
    made = []
    for number, (spec, status) in enumerate(OLD):
        name = f"old-{number}"
        code, found = api.call("POST", MODELS.path(dry=False), MODELS.document(name, json.dumps(spec)))
        assert code == 201, found
        if status is not None:
            body = json.dumps(found | {"status": status})
            code, found = api.call("PUT", MODELS.path(f"/{name}/status", dry=False), body)
            assert code == 200, found
        made.append(found)
    return made


def servers_word(api: Api, method: str, where: str, text: str) -> str | None:
    """Why the API server refuses; `None` if it does not."""
    code, answer = api.call(method, where, text)
    assert code in (200, 201, 400, 422), answer
    return None if code < 300 else str(answer["message"])


def our_word(resource: Resource, text: str, old: dict[str, Any] | None = None) -> str | None:
    try:
        new = resource.read(text)
    except ValueError as error:
        return str(error)
    if old is None:
        return None
    return new.refused_change(resource.model.model_validate(ours(old, resource.model)))


@pytest.mark.parametrize(("resource", "spec", "says"), BROKEN)
def test_the_api_server_says_the_same_sentence(api: Api, resource: Resource, spec: dict[str, Any], says: str) -> None:
    theirs = servers_word(api, "POST", resource.path(), resource.document("judge", json.dumps(spec)))
    assert theirs is not None
    if says.startswith("spec."):
        assert says in theirs


@pytest.mark.parametrize(("resource", "spec"), ACCEPTED)
def test_the_api_server_takes_what_works(api: Api, resource: Resource, spec: dict[str, Any]) -> None:
    assert servers_word(api, "POST", resource.path(), resource.document("judge", json.dumps(spec))) is None


@pytest.mark.parametrize(("resource", "name", "says"), NAMES)
def test_the_api_server_says_the_same_of_a_name(api: Api, resource: Resource, name: str, says: str | None) -> None:
    spec = shapes.manifest({})["spec"] if resource is MODELS else fleet_cases.fleet(fleet_cases.JUDGE)
    theirs = servers_word(api, "POST", resource.path(), resource.document(name, json.dumps(spec)))
    assert theirs is None if says is None else says in (theirs or "")


@pytest.mark.parametrize(
    ("resource", "examples"),
    [(MODELS, EXAMPLES * 4 // 5), (FLEETS, EXAMPLES // 5)],
    ids=["RewardModel", "RewardFleet"],
)
def test_a_new_manifest_gets_one_verdict(api: Api, resource: Resource, examples: int) -> None:
    verdicts: list[bool] = []

    @settings(SETTINGS, max_examples=examples)
    @given(SEEDS)
    def same(seed: int) -> None:
        luck = Random(seed)
        name = luck.choice(resource.names)

        def words(spec: str) -> tuple[str | None, str | None]:
            whole = resource.document(name, spec)
            return servers_word(api, "POST", resource.path(), whole), our_word(resource, whole)

        verdicts.append(agreed(text(luck, resource.grammar), words))

    same()
    assert 0.1 < sum(verdicts) / len(verdicts) < 0.9, "a test of one verdict only would prove little"


def test_a_change_gets_one_verdict(api: Api, stored: list[dict[str, Any]]) -> None:
    verdicts: list[bool] = []

    @settings(SETTINGS, max_examples=EXAMPLES // 5)
    @given(SEEDS)
    def same(seed: int) -> None:
        luck = Random(seed)
        old = luck.choice(stored)
        name, version = old["metadata"]["name"], old["metadata"]["resourceVersion"]

        def words(spec: str) -> tuple[str | None, str | None]:
            whole = MODELS.document(name, spec, version)
            return servers_word(api, "PUT", MODELS.path(f"/{name}"), whole), our_word(MODELS, whole, old)

        verdicts.append(agreed(text(luck, MODELS.grammar), words))

    same()
    assert 0.05 < sum(verdicts) / len(verdicts) < 0.9, "a test of one verdict only would prove little"


def agreed(spec: str, words: Callable[[str], tuple[str | None, str | None]]) -> bool:
    """The one verdict of both; fails with the least that they do not agree on."""
    theirs, own = words(spec)
    if (theirs is None) != (own is None):
        least = smallest(spec, lambda part: len({word is None for word in words(part)}) == 2)
        theirs, own = words(least)
        raise AssertionError(f"{least}\nAPI server: {theirs}\npydantic: {own}")
    return own is None
