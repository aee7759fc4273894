"""Which adapter serves which `engine.name`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from genrm_api.rewardmodel import EngineName

from genrm_operator.engines.adapter import Adapter
from genrm_operator.engines.custom import Custom
from genrm_operator.engines.sglang import Sglang
from genrm_operator.engines.vllm import Vllm

_ADAPTERS: Final[Mapping[EngineName, Adapter]] = {
    EngineName.VLLM: Vllm(),
    EngineName.SGLANG: Sglang(),
    EngineName.CUSTOM: Custom(),
}


def adapter_for(name: EngineName) -> Adapter:
    return _ADAPTERS[name]
