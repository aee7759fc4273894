"""Who may reach the engines: the peers of a NetworkPolicy, typed."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from genrm_api.pods import LabelValue
from genrm_api.rules import ApiModel, Rule, rule
from genrm_api.values import without_nulls

_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_V4: Final = rf"({_OCTET}[.]){{3}}{_OCTET}/(3[0-2]|[12]?[0-9])"
_H: Final = "[0-9A-Fa-f]{1,4}"
_V6_ADDRESS: Final = "|".join(
    [
        rf"({_H}:){{7}}{_H}",
        rf"({_H}:){{1,7}}:",
        *(rf"({_H}:){{1,{7 - n}}}(:{_H}){{1,{n}}}" for n in range(1, 6)),
        rf"{_H}:(:{_H}){{1,6}}",
        rf":(:{_H}){{1,7}}",
        "::",
    ]
)
_V6: Final = rf"({_V6_ADDRESS})/(12[0-8]|1[01][0-9]|[1-9]?[0-9])"
CIDR_PATTERN: Final = rf"^({_V4}|{_V6})$"

Cidr = Annotated[str, StringConstraints(max_length=64)]
LabelKey = Annotated[
    str,
    StringConstraints(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$", max_length=317),
]


def _is_cidr(text: str) -> bool:
    return re.fullmatch(CIDR_PATTERN, text) is not None


_HOW: Final = " is no network; write one like 10.0.0.0/8 or fd00::/8"


class LabelExpression(ApiModel):
    key: LabelKey = Field(description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How key and values relate.")
    values: Annotated[list[LabelValue], Field(max_length=32)] | None = Field(
        None, description="Values for In and NotIn; absent for Exists and DoesNotExist."
    )

    rules: ClassVar = (
        Rule(
            cel="!(self.operator in ['In', 'NotIn']) || (has(self.values) && self.values.size() > 0)",
            message="'spec.access: ' + self.key + ' ' + self.operator + ' has no values; write at least one'",
            found_wrong=lambda e: (
                f"spec.access: {e.key} {e.operator} has no values; write at least one"
                if e.operator in ("In", "NotIn") and not e.values
                else None
            ),
        ),
        Rule(
            cel="!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || self.values.size() == 0",
            message="'spec.access: ' + self.key + ' ' + self.operator + ' takes no values; remove them'",
            found_wrong=lambda e: (
                f"spec.access: {e.key} {e.operator} takes no values; remove them"
                if e.operator in ("Exists", "DoesNotExist") and e.values
                else None
            ),
        ),
    )


class LabelSelector(ApiModel):
    match_labels: Annotated[dict[str, LabelValue], Field(max_length=16), BeforeValidator(without_nulls)] | None = Field(
        None, description="Labels that must have these values."
    )
    match_expressions: Annotated[list[LabelExpression], Field(max_length=16)] | None = Field(
        None, description="Further conditions on labels, all of which must hold."
    )


class IpBlock(ApiModel):
    cidr: Cidr = Field(description="Network, like 10.0.0.0/8.")
    except_: Annotated[list[Cidr], Field(max_length=16)] | None = Field(
        None, alias="except", description="Networks inside cidr that are left out."
    )

    rules: ClassVar = (
        Rule(
            cel=f"self.cidr.matches('{CIDR_PATTERN}')",
            message=f"'spec.access: ipBlock.cidr ' + self.cidr + '{_HOW}'",
            found_wrong=lambda b: None if _is_cidr(b.cidr) else f"spec.access: ipBlock.cidr {b.cidr}{_HOW}",
        ),
        Rule(
            cel=f"!has(self.except) || self.except.all(c, c.matches('{CIDR_PATTERN}'))",
            message=f"'spec.access: ipBlock.except ' + self.except.filter(c, !c.matches('{CIDR_PATTERN}'))[0] "
            f"+ '{_HOW}'",
            found_wrong=lambda b: next(
                (f"spec.access: ipBlock.except {c}{_HOW}" for c in b.except_ or () if not _is_cidr(c)), None
            ),
        ),
    )


class Peer(ApiModel):
    """As in a NetworkPolicy: pods chosen by namespace, by label or by both, or a network."""

    namespace_selector: LabelSelector | None = Field(
        None, description="Namespaces of the pods; {} is every namespace. Absent: the RewardModel's own."
    )
    pod_selector: LabelSelector | None = Field(None, description="Labels of the pods. Absent: all pods.")
    ip_block: IpBlock | None = Field(
        None, description="A network instead of pods; what a run on the network of its node needs."
    )

    rules: ClassVar = (
        rule(
            "has(self.namespaceSelector) || has(self.podSelector) || has(self.ipBlock)",
            "spec.access: a peer is empty; write namespaceSelector, podSelector or ipBlock",
            lambda p: p.namespace_selector is None and p.pod_selector is None and p.ip_block is None,
        ),
        rule(
            "!has(self.ipBlock) || !(has(self.namespaceSelector) || has(self.podSelector))",
            "spec.access: a peer has ipBlock beside a selector; write two peers",
            lambda p: p.ip_block is not None and not (p.namespace_selector is None and p.pod_selector is None),
        ),
    )

    def manifest(self) -> dict[str, Any]:
        """As a NetworkPolicy writes it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


Peers = Annotated[list[Peer], Field(max_length=32)]


class Access(ApiModel):
    clients: Peers | None = Field(
        None,
        description="Who may ask for judgements, beside the operator. Absent: every pod of the model's namespace. []: "
        "nobody.",
    )
    monitoring: Peers | None = Field(
        None,
        description="Who else may reach the port, to scrape /metrics. A network policy knows no paths.",
    )
