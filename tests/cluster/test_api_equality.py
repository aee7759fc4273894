"""Pydantic and the API server give every manifest, and every change of one, the same verdict.

The CRD is installed a second time under a name that the operator does not watch, so that thousands of objects move
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
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml
from genrm_api.rewardmodel import RewardModel
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dev.bootstrap import ROOT
from dev.cluster import Cluster
from tests.cluster.conftest import wait_for
from tests.cluster.manifests import smallest, text
from tests.unit.api.cases import ACCEPTED, ACCEPTED_NAMES, BROKEN, BROKEN_NAMES, hooked, manifest

pytestmark = pytest.mark.cluster

EXAMPLES: Final = int(os.environ.get("GENRM_EQUALITY_EXAMPLES", "5000"))
"""In both tests together; `make fuzz` asks for 100 000."""
GROUP, KIND, PLURAL = "equality.genrm.test", "EqualityModel", "equalitymodels"
SEEDS = st.integers(0, 2**64 - 1)
SETTINGS = settings(
    deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate],
    derandomize="GENRM_EQUALITY_EXAMPLES" not in os.environ,
)  # fmt: skip
CRD: Final = yaml.safe_load((ROOT / "crds" / "genrm.dev_rewardmodels.yaml").read_text())
SPEC: Final = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

OLD: Final[list[tuple[dict[str, Any], dict[str, Any] | None]]] = [
    (spec, status)
    for spec in (
        {"model": {"uri": "hf://a/b"}},
        {"model": {"uri": "hf://a/b"}, "engine": {"name": "vllm", "maxModelLen": 64}},
        {"model": {"uri": "pvc://w"}, "engine": {"name": "custom", "image": "x", "custom": {"command": ["x"]}}},
        {"model": {"uri": "pvc://w"}, "engine": hooked()},
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
        self._connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=30, context=context)

    def call(self, method: str, path: str, body: str) -> tuple[int, dict[str, Any]]:
        self._connection.request(method, path, body.encode(), {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def api(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    kubeconfig = tmp_path_factory.mktemp("equality") / "kubeconfig"
    kubeconfig.write_text(cluster.settings.kubeconfig("admin").read_text())
    api = Api(kubeconfig)
    crd = copy.deepcopy(CRD)
    crd["metadata"]["name"] = f"{PLURAL}.{GROUP}"
    crd["spec"]["group"] = GROUP
    crd["spec"]["names"] = {"kind": KIND, "plural": PLURAL}
    cluster.kubectl("apply", "-f", "-", input=json.dumps(crd))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{PLURAL}.{GROUP}")
    probe = document("probe", '{"model": {"uri": "hf://a/b"}}')
    wait_for("the API server serves the CRD", lambda: api.call("POST", path(), probe)[0] != 404)
    yield api
    api.close()
    cluster.kubectl("delete", "crd", f"{PLURAL}.{GROUP}", "--wait=false")


@pytest.fixture(scope="module")
def stored(api: Api) -> list[dict[str, Any]]:
    """Objects to be changed: with pods and without, and such of which nothing is known yet."""
    made = []
    for number, (spec, status) in enumerate(OLD):
        name = f"old-{number}"
        code, found = api.call("POST", path(dry=False), document(name, json.dumps(spec)))
        assert code == 201, found
        if status is not None:
            body = json.dumps(found | {"status": status})
            code, found = api.call("PUT", path(f"/{name}/status", dry=False), body)
            assert code == 200, found
        made.append(found)
    return made


def path(below: str = "", *, dry: bool = True) -> str:
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry else "")
    return f"/apis/{GROUP}/v1alpha1/namespaces/default/{PLURAL}{below}{query}"


def document(name: str, spec: str, version: str | None = None) -> str:
    """The text of a whole object around the text of its spec, which may hold a key twice."""
    metadata = {"name": name} | ({"resourceVersion": version} if version else {})
    return f'{{"apiVersion": "{GROUP}/v1alpha1", "kind": "{KIND}", "metadata": {json.dumps(metadata)}, "spec": {spec}}}'


def read(text: str) -> RewardModel:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError(f"a key is written twice in {pairs}")
        return dict(pairs)

    found = json.loads(text, object_pairs_hook=once)
    return RewardModel.model_validate(found | {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel"})


def servers_word(api: Api, method: str, where: str, text: str) -> str | None:
    """Why the API server refuses; `None` if it does not."""
    code, answer = api.call(method, where, text)
    assert code in (200, 201, 400, 422), answer
    return None if code < 300 else str(answer["message"])


def our_word(text: str, old: dict[str, Any] | None = None) -> str | None:
    try:
        new = read(text)
    except ValueError as error:
        return str(error)
    if old is None:
        return None
    return new.refused_change(
        RewardModel.model_validate(old | {"apiVersion": "genrm.dev/v1alpha1", "kind": "RewardModel"})
    )


@pytest.mark.parametrize(("spec", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_the_api_server_says_the_same_sentence(api: Api, spec: dict[str, Any], says: str) -> None:
    theirs = servers_word(api, "POST", path(), document("judge", json.dumps(manifest(spec)["spec"])))
    assert theirs is not None
    if says.startswith("spec."):
        assert says in theirs


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_the_api_server_takes_what_works(api: Api, spec: dict[str, Any]) -> None:
    assert servers_word(api, "POST", path(), document("judge", json.dumps(manifest(spec)["spec"]))) is None


@pytest.mark.parametrize("name", [*BROKEN_NAMES, *ACCEPTED_NAMES])
def test_the_api_server_says_the_same_of_a_name(api: Api, name: str) -> None:
    theirs = servers_word(api, "POST", path(), document(name, json.dumps(manifest({})["spec"])))
    assert BROKEN_NAMES[name] in (theirs or "") if name in BROKEN_NAMES else theirs is None


def test_a_new_manifest_gets_one_verdict(api: Api) -> None:
    verdicts: list[bool] = []

    @settings(SETTINGS, max_examples=EXAMPLES * 4 // 5)
    @given(SEEDS)
    def same(seed: int) -> None:
        luck = Random(seed)
        name = luck.choice(
            [*["judge"] * 5, "j", "a" * 40, "a" * 41, "1a", "A", "a-", "a.b", "judge-1", "a-pods", "a-router", "pods"]
        )

        def words(spec: str) -> tuple[str | None, str | None]:
            whole = document(name, spec)
            return servers_word(api, "POST", path(), whole), our_word(whole)

        verdicts.append(agreed(text(luck, SPEC), words))

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
            whole = document(name, spec, version)
            return servers_word(api, "PUT", path(f"/{name}"), whole), our_word(whole, old)

        verdicts.append(agreed(text(luck, SPEC), words))

    same()
    assert 0.05 < sum(verdicts) / len(verdicts) < 0.9, "a test of one verdict only would prove little"


def agreed(spec: str, words: Callable[[str], tuple[str | None, str | None]]) -> bool:
    """The one verdict of both; fails with the least that they do not agree on."""
    theirs, ours = words(spec)
    if (theirs is None) != (ours is None):
        least = smallest(spec, lambda part: len({word is None for word in words(part)}) == 2)
        theirs, ours = words(least)
        raise AssertionError(f"{least}\nAPI server: {theirs}\npydantic: {ours}")
    return ours is None
