"""What can go wrong with an embedded cluster.

ClusterError            anything below; the message names the object and what to do
├── ToolchainError      a binary could not be built
├── ComponentFailed     a component of the control plane or the node ended or never became ready
├── WaitTimeout         a condition did not hold in time
└── CommandFailed       a command we ran exited with an error
"""

from collections.abc import Sequence


class ClusterError(Exception):
    """The embedded cluster could not do what was asked."""


class ToolchainError(ClusterError):
    """A binary of the cluster could not be built."""


class ComponentFailed(ClusterError):
    """A component ended while the cluster needed it; `log_tail` holds its last lines."""

    def __init__(self, component: str, exit_code: int, log_tail: str) -> None:
        super().__init__(f"{component} ended with exit code {exit_code}; the end of its log:\n{log_tail}")
        self.component = component
        self.exit_code = exit_code
        self.log_tail = log_tail


class WaitTimeout(ClusterError):
    """A condition did not hold before its deadline; `last` tells what was seen the last time."""

    def __init__(self, what: str, seconds: float, last: str = "") -> None:
        super().__init__(f"waited {seconds:.0f} s for {what}" + (f"; last seen: {last}" if last else ""))
        self.what = what
        self.last = last


class CommandFailed(ClusterError):
    """A command exited with an error."""

    def __init__(self, command: Sequence[str], exit_code: int, output: str) -> None:
        super().__init__(f"{' '.join(command)}: exit {exit_code}\n{output.strip()[-4000:]}")
        self.exit_code = exit_code
        self.output = output
