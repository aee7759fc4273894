"""A reward endpoint outside the cluster: no pods, and runs use it by name like any other."""

from __future__ import annotations

import enum
import re
from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from genrm_api.pods import DataKey, ObjectName
from genrm_api.rules import ApiModel, Rule, rule

URL_PATTERN: Final = (
    r"^https?://([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"
)
IN_CLUSTER: Final = r"^http://[a-z0-9-]+([.][a-z0-9-]+)*[.]svc([.]cluster[.]local)?(:[0-9]{1,5})?(/.*)?$"
_CEL_URL: Final = URL_PATTERN.replace("\\", "\\\\")
_URL_SENTENCE: Final = " is no base URL; write one like https://api.example.com/v1, without user, query or fragment"


class WireFormat(enum.StrEnum):
    OPENAI_CHAT = "openai-chat"
    VLLM_CLASSIFY = "vllm-classify"
    VLLM_POOLING = "vllm-pooling"
    SGLANG_CLASSIFY = "sglang-classify"
    OPENAI_EMBEDDINGS = "openai-embeddings"
    GET_REWARD = "get-reward"
    GET_REWARD2 = "get-reward2"
    OPENRLHF = "openrlhf"
    SLIME = "slime"

    @property
    def asks_in_words(self) -> bool:
        """Whether the endpoint is asked a question; all others give a number for a text."""
        return self is WireFormat.OPENAI_CHAT


NAMES_A_MODEL: Final = (
    WireFormat.OPENAI_CHAT,
    WireFormat.VLLM_CLASSIFY,
    WireFormat.VLLM_POOLING,
    WireFormat.SGLANG_CLASSIFY,
    WireFormat.OPENAI_EMBEDDINGS,
)


class EndpointKeyRef(ApiModel):
    name: ObjectName = Field(description="Name of the Secret, in the namespace of the resource.")
    key: DataKey = Field("api-key", description="Key inside it.")


def endpoint_rules(where: str) -> tuple[Rule, Rule]:
    """What `url` and `credentials_secret_ref` of an endpoint must be; `where` is the field that holds both."""
    in_the_clear = (
        f"{where}.url: http:// outside the cluster would show the key of credentialsSecretRef to the network; write "
        "https://, or remove credentialsSecretRef"
    )
    return (
        Rule(
            cel=f"self.url.matches('{_CEL_URL}') && !self.url.contains('..')",
            message=f"'{where}.url: ' + self.url + '{_URL_SENTENCE}'",
            found_wrong=lambda e: (
                f"{where}.url: {e.url}{_URL_SENTENCE}"
                if ".." in e.url or re.fullmatch(URL_PATTERN, e.url) is None
                else None
            ),
        ),
        rule(
            f"!has(self.credentialsSecretRef) || self.url.startsWith('https://') || self.url.matches('{IN_CLUSTER}')",
            in_the_clear,
            lambda e: (
                e.credentials_secret_ref is not None
                and not e.url.startswith("https://")
                and re.fullmatch(IN_CLUSTER, e.url) is None
            ),
        ),
    )


ROUTES: Final = {WireFormat.SGLANG_CLASSIFY: "/classify", WireFormat.OPENAI_EMBEDDINGS: "/v1/embeddings"}
"""Of formats that are asked on two routes of a server: what the one that is written ends with."""


def _ends_with_its_route(wire_format: WireFormat, route: str) -> Rule:
    return rule(
        f"self.format != '{wire_format}' || self.url.endsWith('{route}')",
        f"spec.external.url: format {wire_format} is spoken at {route}; write the whole route",
        lambda e: e.format is wire_format and not e.url.endswith(route),
    )


class External(ApiModel):
    url: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="Base URL: https://api.example.com/v1 for openai-chat, the whole route for a reward API."
    )
    format: WireFormat = Field(
        WireFormat.OPENAI_CHAT,
        description="What is spoken there: openai-chat asks a question in words; the others send a text and get a "
        "number, as vLLM (vllm-classify, vllm-pooling), SGLang (sglang-classify, or openai-embeddings, whose "
        "embedding is the number) or the reward servers of other frameworks do.",
    )
    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/@-]+$", max_length=253)] | None = Field(
        None, description="Model name in requests, where the format has one. Default: the resource's name."
    )
    credentials_secret_ref: EndpointKeyRef | None = Field(
        None,
        description="Secret with the key that is sent as a bearer token. Read by whoever asks the endpoint: the run or "
        "the gateway, never the operator.",
    )

    rules: ClassVar = (
        *endpoint_rules("spec.external"),
        *(_ends_with_its_route(*spoken) for spoken in ROUTES.items()),
        Rule(
            cel=f"self.format in [{', '.join(repr(str(f)) for f in NAMES_A_MODEL)}] || !has(self.model)",
            message="'spec.external.model: found with format ' + self.format + ', whose requests name no model; "
            "remove it'",
            found_wrong=lambda e: (
                f"spec.external.model: found with format {e.format}, whose requests name no model; remove it"
                if e.format not in NAMES_A_MODEL and e.model is not None
                else None
            ),
        ),
    )
