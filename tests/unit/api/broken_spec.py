"""Specs that are refused, with what is said of them; those of `spec.scoring` are in `broken_scoring`."""

from __future__ import annotations

from typing import Any

from tests.unit.api.shapes import CUSTOM, REFERENCE, env, external, hooked, peer, scoring, sleep, slots

BROKEN_SPEC: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"replica": 2}, "replica"),
    "a field by its Python name": ({"engine": {"max_model_len": 5}}, "max_model_len"),
    "nothing by a Python name": ({"engine": {"max_model_len": None}}, "max_model_len"),
    "bad type": ({"replicas": "two"}, "replicas"),
    "a flag for a number": ({"replicas": True}, "replicas"),
    "a whole number with a point": ({"replicas": 2.0}, "replicas"),
    "missing model": ({"model": None}, "spec.model: missing; write uri: hf://org/name"),
    "unknown engine": ({"engine": {"name": "tgi"}}, "'vllm', 'sglang' or 'custom'"),
    "duration": ({"scoring": {"timeout": "soon"}}, "timeout"),
    # Every cross-field rule, with the sentence that both sides say.
    "wrong scheme": (
        {"model": {"uri": "s3://bucket"}},
        "spec.model.uri: s3://bucket is none of hf://org/name, pvc://claim/path, oci://registry/image:tag, "
        'file:///path; write one of these, without ".."',
    ),
    "path upwards": ({"model": {"uri": "file:///a/../b"}}, "spec.model.uri: file:///a/../b is none"),
    "a token for a volume": (
        {"model": {"uri": "pvc://w/m", "credentialsSecretRef": {"name": "hf"}}},
        "spec.model.credentialsSecretRef: found with pvc://w/m, which needs no token; remove it",
    ),
    "one claim for weights and cache": (
        {"model": {"uri": "pvc://w", "cache": {"claimName": "w"}}},
        "spec.model.cache.claimName: w is the claim of spec.model.uri, which is mounted read-only; write another claim",
    ),
    "custom without command": (
        {"engine": {"name": "custom", "image": "x"}},
        "spec.engine.custom: missing with spec.engine.name custom; write the command that starts it",
    ),
    "command without custom": (
        {"engine": {"custom": {"command": ["x"]}}},
        "spec.engine.custom: found with engine vllm; remove it or write name: custom",
    ),
    "custom without image": (
        {"engine": {"name": "custom", "custom": {"command": ["x"]}}},
        "spec.engine.image: missing; engine custom has no default image, write one",
    ),
    "a vLLM field for custom": (
        {"engine": CUSTOM | {"maxModelLen": 5}},
        "spec.engine.maxModelLen has no meaning for engine custom; remove it, and write it into spec.engine.args",
    ),
    "custom cannot sleep": (
        {"engine": CUSTOM, "lifecycle": {"state": "Asleep"}},
        "spec.lifecycle.state: Asleep with spec.engine.name custom, which cannot sleep; write Off",
    ),
    "a server that never wakes": (
        {"engine": hooked(wake=None)},
        "spec.engine.custom: sleep, wake and isSleeping come together; write all three, or none of them",
    ),
    "a sleep that nobody can see": (
        {"engine": hooked(isSleeping=None)},
        "spec.engine.custom: sleep, wake and isSleeping come together; write all three, or none of them",
    ),
    "a count before no sleep": (
        {"engine": hooked(sleep=None, wake=None, isSleeping=None, inFlight={"path": "/load"})},
        "spec.engine.custom.inFlight: found without sleep, before which it is asked; write sleep, wake and isSleeping",
    ),
    "a hook elsewhere": ({"engine": hooked(sleep={"path": "http://a/sleep"})}, "sleep.path"),
    "a hook without path": ({"engine": hooked(sleep={"method": "POST"})}, "path"),
    "an order by GET": ({"engine": hooked(wake={"path": "/wake", "method": "GET"})}, "method"),
    "a question with a method": ({"engine": hooked(inFlight={"path": "/load", "method": "GET"})}, "method"),
    "a body that is no object": ({"engine": hooked(wake={"path": "/wake", "body": "[]"})}, "body"),
    "no time to start": (
        {"engine": {"startupTimeout": "25h"}},
        "spec.engine.startupTimeout: 25h is no time to wait; write more than 0s and at most 24h",
    ),
    "reserved argument": ({"engine": {"args": ["--port=9"]}}, "spec.engine.args: --port is set by the operator"),
    "argument of a field": (
        {"engine": {"args": ["--enforce-eager", "--max_model_len", "9"]}},
        "spec.engine.args: --max-model-len is what a field sets; remove it and write spec.type",
    ),
    "a secret as argument": (
        {"engine": {"args": ["--hf-token=hf_x"]}},
        "spec.engine.args: --hf-token would show a secret to all who read pods; remove it; a token for the hub is "
        "spec.model.credentialsSecretRef",
    ),
    "more GPUs than a pod has": (
        {"engine": {"tensorParallel": 16, "pipelineParallel": 8}, "gpu": {}},
        "spec.engine: tensorParallel x pipelineParallel x dataParallel is 128 GPUs, and one pod has at most 64; write",
    ),
    "a chat template that is none": (
        {"engine": {"chatTemplate": "chatml"}},
        "spec.engine.chatTemplate: neither an absolute path nor a Jinja template; write a text with {{ }} in it",
    ),
    "reserved variable": (
        {"env": [{"name": "LD_PRELOAD", "value": "x"}]},
        "spec.env: LD_PRELOAD is reserved for the operator; remove it",
    ),
    "a variable without value": (env(), "spec.env: A has neither value nor valueFrom; write exactly one of them"),
    "a variable with two values": (
        env(value="", valueFrom={"secretKeyRef": REFERENCE}),
        "spec.env: A has value and valueFrom; write exactly one of them",
    ),
    "a value from nowhere": (
        env(valueFrom={}),
        "spec.env: valueFrom needs one source; write exactly one of secretKeyRef and configMapKeyRef",
    ),
    "a value from two places": (
        env(valueFrom={"secretKeyRef": REFERENCE, "configMapKeyRef": REFERENCE}),
        "spec.env: valueFrom needs one source",
    ),
    "a variable twice": (
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}, {"name": "A", "value": "2"}]},
        "spec.env: A is set more than once; write it once",
    ),
    "the token twice": (
        {
            "model": {"uri": "hf://a/b", "credentialsSecretRef": {"name": "hf"}},
            "env": [{"name": "HF_TOKEN", "value": "x"}],
        },
        "spec.env: HF_TOKEN is set by spec.model.credentialsSecretRef; remove one of them",
    ),
    "nobody as a peer": (
        peer(),
        "spec.access: a peer is empty; write namespaceSelector, podSelector or ipBlock",
    ),
    "pods and a network in one peer": (
        peer(podSelector={}, ipBlock={"cidr": "10.0.0.0/8"}),
        "spec.access: a peer has ipBlock beside a selector; write two peers",
    ),
    "no network": (
        peer(ipBlock={"cidr": "10.0.0/8"}),
        "spec.access: ipBlock.cidr 10.0.0/8 is no network; write one like 10.0.0.0/8 or fd00::/8",
    ),
    "no network to leave out": (
        peer(ipBlock={"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.256.0.0/16"]}),
        "spec.access: ipBlock.except 10.256.0.0/16 is no network; write one like 10.0.0.0/8 or fd00::/8",
    ),
    "In without values": (
        peer(podSelector={"matchExpressions": [{"key": "team", "operator": "In"}]}),
        "spec.access: team In has no values; write at least one",
    ),
    "Exists with values": (
        peer(podSelector={"matchExpressions": [{"key": "team", "operator": "Exists", "values": ["a"]}]}),
        "spec.access: team Exists takes no values; remove them",
    ),
    "a label of ours": (
        {"podTemplate": {"metadata": {"labels": {"genrm.dev/serving": "true"}}}},
        "spec.podTemplate.metadata.labels: genrm.dev/serving belongs to the operator; remove it, keys below genrm.dev/ "
        "are its own",
    ),
    "an annotation of ours": (
        {"podTemplate": {"metadata": {"annotations": {"genrm.dev/boot-id": "x"}}}},
        "spec.podTemplate.metadata.annotations: genrm.dev/boot-id belongs to the operator",
    ),
    "no time to drain": (
        {"lifecycle": {"sleep": {"drainTimeout": "0s"}}},
        "spec.lifecycle.sleep.drainTimeout: 0s is no time to wait; write more than 0s and at most 24h",
    ),
    "a judgement of days": (
        {"scoring": {"timeout": "24h1ms"}},
        "spec.scoring.timeout: 24h1ms is no time to wait; write more than 0s and at most 24h",
    ),
    "value policy without value": (
        {"scoring": {"onFailure": {"policy": "value"}}},
        "spec.scoring.onFailure.value: missing under policy value; write the score of a failed judgement",
    ),
    "value without value policy": (
        {"scoring": {"onFailure": {"value": 0}}},
        "spec.scoring.onFailure.value: found under policy drop, which has no use for it; remove it or write",
    ),
    "the same choice twice": (
        {"scoring": {"sampling": {"structured": {"choice": ["yes", "no", "yes"]}}}},
        "spec.scoring.sampling.structured.choice: the same text twice; write each once",
    ),
    "a branch of a volume": (
        {"model": {"uri": "pvc://w", "revision": "main"}},
        "spec.model.revision: found with pvc://w, which has no branches; remove it",
    ),
    "external without endpoint": (
        {"type": "External", "model": None},
        "spec.external: missing with type External; write the url of the endpoint",
    ),
    "an endpoint for a model of ours": (
        {"external": {"url": "https://a/v1"}},
        "spec.external: found with type Generative; remove it or write type: External",
    ),
    "weights of an endpoint": (
        external() | {"model": {"uri": "hf://a/b"}},
        "spec.model has no meaning for type External, which has no pods; remove it",
    ),
    "an engine for an endpoint": (external() | {"engine": {}}, "spec.engine has no meaning for type External"),
    "GPUs for an endpoint": (external() | {"gpu": {}}, "spec.gpu has no meaning for type External"),
    "a life of an endpoint": (external() | {"lifecycle": {}}, "spec.lifecycle has no meaning for type External"),
    "pods of an endpoint": (external() | {"podTemplate": {}}, "spec.podTemplate has no meaning for type External"),
    "replicas of an endpoint": (
        external() | {"replicas": 2},
        "spec.replicas: type External has no pods to count; remove it",
    ),
    "no endpoint": (
        external(url="api.example.com"),
        "spec.external.url: api.example.com is no base URL; write one like https://api.example.com/v1, without user,",
    ),
    "a classifier of SGLang without its route": (
        external(format="sglang-classify"),
        "spec.external.url: format sglang-classify is spoken at /classify; write the whole route",
    ),
    "an embedding for a number without its route": (
        external(format="openai-embeddings"),
        "spec.external.url: format openai-embeddings is spoken at /v1/embeddings; write the whole route",
    ),
    "an endpoint with a password": (external(url="https://a:b@c/v1"), "spec.external.url: https://a:b@c/v1 is no base"),
    "a model for a format without": (
        external(format="get-reward2", model="x"),
        "spec.external.model: found with format get-reward2, whose requests name no model; remove it",
    ),
    "a key in the clear": (
        external(url="http://api.example.com", credentialsSecretRef={"name": "s"}),
        "spec.external.url: http:// outside the cluster would show the key of credentialsSecretRef to the network",
    ),
    "a key in the clear to one that sounds near": (
        external(url="http://a.svc.example.com", credentialsSecretRef={"name": "s"}),
        "spec.external.url: http:// outside the cluster",
    ),
    "words for a classifier": (
        {"type": "Classifier", **scoring(mode="pairwise")},
        "spec.scoring.mode: pairwise asks in words, and type Classifier gives a number; write classify",
    ),
    "a judge for a classifier": (
        {"type": "Classifier", **scoring(judge="boxed-true-false")},
        "spec.scoring.judge: found for type Classifier, which gives a number; remove it",
    ),
    "sampling of a classifier": (
        {"type": "Classifier", **scoring(sampling={})},
        "spec.scoring.sampling: found for type Classifier, which gives a number; remove it",
    ),
    "words for a reward API": (
        external(format="slime") | scoring(mode="pointwise"),
        "spec.scoring.mode: pointwise asks in words, and format slime gives a number; write classify",
    ),
    "votes of a reward API": (
        external(format="openrlhf") | scoring(votes={"count": 2}),
        "spec.scoring.votes: found for format openrlhf, which gives a number; remove it",
    ),
    "a number from a judge": (
        scoring(mode="classify"),
        "spec.scoring.mode: classify needs a model that gives a number; write pointwise, or type: Classifier",
    ),
    "a classifier that its router cannot ask": (
        {"type": "Classifier", "routing": {"mode": "Router"}},
        "spec.routing.mode: Router with type Classifier and spec.engine.name vllm, whose /classify sglang-router does "
        "not pass on; write Direct, or engine sglang",
    ),
    "shared GPUs without slots": (
        {"gpu": {"sharing": "SharedClaim"}},
        "spec.gpu.slots: missing with sharing SharedClaim; write one for each replica",
    ),
    "slots of GPUs of its own": (
        slots({"name": "a"}, sharing="Exclusive"),
        "spec.gpu.slots: found with sharing Exclusive, where each pod has its own GPUs; remove them, or write",
    ),
    "a slot twice": (
        slots({"name": "a"}, {"name": "b"}, {"name": "a"}),
        "spec.gpu.slots: a is there more than once; write it once",
    ),
    "a slot nowhere": (
        slots({"name": "a", "node": "n"}, sharing="Colocated"),
        "spec.gpu.slots: a has no place; write node and devices",
    ),
    "a claim somewhere": (
        slots({"name": "a", "devices": [0]}),
        "spec.gpu.slots: a has node or devices, which its claim decides; remove them",
    ),
    "a device twice": (
        slots({"name": "a", "node": "n", "devices": [1, 1]}, sharing="Colocated"),
        "spec.gpu.slots: a names a device twice; write each once",
    ),
    "fewer slots than replicas": (
        slots({"name": "a"}) | {"replicas": 2},
        "spec.gpu.slots: 1 for another number of spec.replicas; write one for each replica",
    ),
    "a slot too small": (
        slots({"name": "a", "node": "n", "devices": [0]}, sharing="Colocated", engine={"tensorParallel": 2}),
        "spec.gpu.slots: a has another number of devices than tensorParallel x pipelineParallel x dataParallel",
    ),
    "who chooses the GPUs of a slot": (
        slots({"name": "a"}, env=[{"name": "CUDA_VISIBLE_DEVICES", "value": "1"}]),
        "spec.env: CUDA_VISIBLE_DEVICES chooses GPUs, which spec.gpu.slots does; remove it",
    ),
    "a slot on several nodes": (
        {"gpu": {"sharing": "SharedClaim", "slots": [{"name": "a"}], "nodes": 2}, "engine": {"tensorParallel": 2}},
        "spec.gpu.nodes: more than 1 with sharing SharedClaim, whose slots lie on one node each; remove it",
    ),
    "unequal nodes": (
        {"gpu": {"nodes": 3}, "engine": {"tensorParallel": 4, "pipelineParallel": 2}},
        "spec.gpu.nodes: 3 does not divide tensorParallel x pipelineParallel of spec.engine; write a number of nodes",
    ),
    "more nodes than GPUs": (
        {"gpu": {"nodes": 2}},
        "spec.gpu.nodes: 2 does not divide tensorParallel x pipelineParallel of spec.engine; write a number of nodes",
    ),
    "a custom engine on several nodes": (
        {"gpu": {"nodes": 2}, "engine": CUSTOM | {"tensorParallel": 2}},
        "spec.gpu.nodes: more than 1 with spec.engine.name custom, whose parts the operator cannot bring together",
    ),
    "a surge in a slot": (
        slots({"name": "a"}, rollout={"surge": True}),
        "spec.rollout.surge: true with spec.gpu.slots, and a second pod can have the GPUs of none; remove it, or write",
    ),
    "a surge over several nodes": (
        {"gpu": {"nodes": 2}, "engine": {"tensorParallel": 2}, "rollout": {"surge": True}},
        "spec.rollout.surge: true with spec.gpu.nodes more than 1, whose groups of pods are replaced one after another",
    ),
    "a surge by a word": ({"rollout": {"surge": "yes"}}, "surge"),
    "a sleep over several nodes": (
        {"gpu": {"nodes": 2}, "engine": {"tensorParallel": 2}, **sleep(mode="Engine")},
        "spec.lifecycle.sleep.mode: Engine with spec.gpu.nodes more than 1, and no sleep over several nodes is proved; "
        "write None or ScaleToZero, or remove it",
    ),
    "a restart over several nodes": (
        {"gpu": {"nodes": 2}, "engine": {"tensorParallel": 2}, **sleep(mode="Restart")},
        "spec.lifecycle.sleep.mode: Restart with spec.gpu.nodes more than 1, and no sleep over several nodes is proved",
    ),
    "asleep over several nodes": (
        {"gpu": {"nodes": 2}, "engine": {"tensorParallel": 2}, "lifecycle": {"state": "Asleep"}},
        "spec.lifecycle.state: Asleep with spec.gpu.nodes more than 1, and no sleep over several nodes is proved",
    ),
    "ranks by hand": (
        {"engine": {"args": ["--node-rank=1"]}},
        "spec.engine.args: --node-rank is set by the operator or the door",
    ),
    "asleep and never asleep": (
        {"lifecycle": {"state": "Asleep", "sleep": {"mode": "None"}}},
        "spec.lifecycle.state: Asleep with sleep.mode None, which never sleeps; write state: Off, or another mode",
    ),
    "a depth of no sleep": (
        sleep(level=2, mode="Restart"),
        "spec.lifecycle.sleep.level: 2 with mode Restart, which keeps no weights either way; write level: 1 or mode",
    ),
    "weights that may have moved": (
        sleep(level=2),
        "spec.lifecycle.sleep.level: 2 reads the weights again at each wake, and a branch may have moved by "
        "then; write",
    ),
    "a custom engine that sleeps": (
        sleep(mode="Engine") | {"engine": CUSTOM},
        "spec.lifecycle.sleep.mode: Engine with spec.engine.name custom, which cannot sleep; write None, or remove it",
    ),
    "a custom engine that sleeps deep": (
        sleep(level=2) | {"engine": CUSTOM, "model": {"uri": "pvc://w"}},
        "spec.lifecycle.sleep.level: 2 with spec.engine.name custom, which cannot sleep; remove it",
    ),
    "a server with hooks that sleeps deep": (
        sleep(level=2) | {"engine": hooked(), "model": {"uri": "pvc://w"}},
        "spec.lifecycle.sleep.level: 2 with spec.engine.custom.sleep, which sleeps as deep as the server makes it",
    ),
    "a server whose requests nobody can end": (
        sleep(onDrainTimeout="Abort") | {"engine": hooked()},
        "spec.lifecycle.sleep.onDrainTimeout: Abort with spec.engine.name custom, whose requests the operator cannot",
    ),
    "no time to sleep": (sleep(timeout="0s"), "spec.lifecycle.sleep.timeout: 0s is no time to wait"),
    "no time to wake": (
        {"lifecycle": {"wake": {"timeout": "25h"}}},
        "spec.lifecycle.wake.timeout: 25h is no time to wait",
    ),
    "no time to be idle": (
        {"lifecycle": {"idle": {"sleepAfter": "0s"}}},
        "spec.lifecycle.idle.sleepAfter: 0s is no time to wait",
    ),
    "off at once": (
        {"lifecycle": {"idle": {"offAfter": "24h1ms"}}},
        "spec.lifecycle.idle.offAfter: 24h1ms is no time to wait",
    ),
    "off before asleep": (
        {"lifecycle": {"idle": {"sleepAfter": "2m", "offAfter": "119s"}}},
        "spec.lifecycle.idle.offAfter: 119s comes before sleepAfter; write a longer time",
    ),
    "an answer longer than the context": (
        {"engine": {"maxModelLen": 4096}, "scoring": {"sampling": {"maxTokens": 8192}}},
        "spec.scoring.sampling.maxTokens: 8192 leaves no room for the question in spec.engine.maxModelLen; write less",
    ),
}
