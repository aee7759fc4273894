"""A real Kubernetes on this machine, without Docker: for tests, the demo and development.

Start at `cluster.Cluster`. `toolchain` builds the programs; `settings` says what a cluster is, `components` how its
programs are started; `box` runs them inside namespaces, `keeper` guards the box from outside; `registry` knows
them by name, `store` keeps images.
"""

from dev.cluster.cluster import Cluster
from dev.cluster.errors import ClusterError, CommandFailed, ComponentFailed, ToolchainError, WaitTimeout
from dev.cluster.registry import known, take_down

__all__ = [
    "Cluster",
    "ClusterError",
    "CommandFailed",
    "ComponentFailed",
    "ToolchainError",
    "WaitTimeout",
    "known",
    "take_down",
]
