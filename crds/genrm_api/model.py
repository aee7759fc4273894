"""The weights: where they are, under which name they are served, and what is needed to read them."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from genrm_api.pods import DataKey, ObjectName
from genrm_api.rules import ApiModel, Rule

URI_PATTERN: Final = (
    r"^(hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
    r"|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9._-]+)*"
    r"|oci://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)+(:[A-Za-z0-9_][A-Za-z0-9._-]*)?"
    r"(@sha256:[0-9a-f]{64})?"
    r"|file:///[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)$"
)
COMMIT_PATTERN: Final = r"^[0-9a-f]{40}$"
TOKEN_ENV: Final = "HF_TOKEN"
"""The variable that carries `model.credentialsSecretRef`, as huggingface_hub reads it."""

_URI_SENTENCE: Final = (
    " is none of hf://org/name, pvc://claim/path, oci://registry/image:tag, file:///path; write one of these, without "
    '".."'
)


class CredentialsRef(ApiModel):
    name: ObjectName = Field(description="Name of the Secret, in the namespace of the RewardModel.")
    key: DataKey = Field("token", description="Key inside it.")


class Cache(ApiModel):
    """A volume for what is downloaded and compiled, so that a restart finds it again."""

    claim_name: ObjectName = Field(
        description="PersistentVolumeClaim mounted read-write in every engine pod; with replicas on several nodes it "
        "must be ReadWriteMany."
    )


class Model(ApiModel):
    uri: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="Where the weights are: hf://org/name, pvc://claim/path, oci://registry/image:tag, or file:///path "
        "on the node (only below a prefix that the operator's installation allows)."
    )
    revision: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=253)] | None = (
        Field(
            None,
            description="Branch, tag or commit of an hf:// model. A branch is looked up once; all pods "
            "serve the commit that status.resolvedRevision then names. Default: main.",
        )
    )
    served_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]+$", max_length=253)] | None = Field(
        None, description="Model name in requests to the engine. Default: the resource's name."
    )
    credentials_secret_ref: CredentialsRef | None = Field(
        None, description="Secret with the token for a gated hf:// model. Only the pods read it, as HF_TOKEN."
    )
    cache: Cache | None = Field(
        None, description="Keeps downloads and compiled kernels. Absent: each pod has scratch space of its own."
    )

    rules: ClassVar = (
        Rule(
            cel=f"self.uri.matches('{URI_PATTERN}') && !self.uri.contains('..')",
            message=f"'spec.model.uri: ' + self.uri + '{_URI_SENTENCE}'",
            found_wrong=lambda m: (
                f"spec.model.uri: {m.uri}{_URI_SENTENCE}"
                if ".." in m.uri or re.fullmatch(URI_PATTERN, m.uri) is None
                else None
            ),
        ),
        Rule(
            cel="!has(self.credentialsSecretRef) || self.uri.startsWith('hf://')",
            message="'spec.model.credentialsSecretRef: found with ' + self.uri + ', which needs no token; remove it'",
            found_wrong=lambda m: (
                f"spec.model.credentialsSecretRef: found with {m.uri}, which needs no token; remove it"
                if m.credentials_secret_ref is not None and not m.uri.startswith("hf://")
                else None
            ),
        ),
        Rule(
            cel="!has(self.revision) || self.uri.startsWith('hf://')",
            message="'spec.model.revision: found with ' + self.uri + ', which has no branches; remove it'",
            found_wrong=lambda m: (
                f"spec.model.revision: found with {m.uri}, which has no branches; remove it"
                if m.revision is not None and not m.uri.startswith("hf://")
                else None
            ),
        ),
        Rule(
            cel="!has(self.cache) || !(self.uri + '/').startsWith('pvc://' + self.cache.claimName + '/')",
            message="'spec.model.cache.claimName: ' + self.cache.claimName + ' is the claim of spec.model.uri, which "
            "is mounted read-only; write another claim'",
            found_wrong=lambda m: (
                f"spec.model.cache.claimName: {m.cache.claim_name} is the claim of spec.model.uri, which is mounted "
                "read-only; write another claim"
                if m.cache is not None and f"{m.uri}/".startswith(f"pvc://{m.cache.claim_name}/")
                else None
            ),
        ),
    )

    @property
    def effective_revision(self) -> str | None:
        """Branch, tag or commit of an hf:// model; every other one has none."""
        return (self.revision or "main") if self.uri.startswith("hf://") else None

    @property
    def reloads_the_same(self) -> bool:
        """Whether reading the weights a second time is sure to give the same ones."""
        return not self.uri.startswith("hf://") or re.fullmatch(COMMIT_PATTERN, self.revision or "") is not None
