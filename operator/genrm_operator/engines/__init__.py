"""One file per engine: the only places that know an engine's flags, environment and admin routes."""

from genrm_operator.engines.adapter import Adapter, Container
from genrm_operator.engines.registry import adapter_for

__all__ = ["Adapter", "Container", "adapter_for"]
