"""Every exception of the operator.

OperatorError
├── ConfigurationError      the operator itself was started wrongly: it exits
├── Deposed                 this process does not lead (any more): it changes nothing, and exits
├── Impossible              a RewardModel that passes the schema but cannot work: Degraded, no retry until it changes
├── ApiError                the API server refused or did not answer
│   ├── NotFound
│   ├── KindAbsent          the cluster does not know the resource at all: its definition is not installed
│   ├── Forbidden           RBAC refuses the operator; the message names verb and resource
│   ├── Expired             it does not remember that far back: what was begun has to begin anew
│   ├── Terminating         the namespace is being deleted: nothing can be made in it, and nothing needs to be
│   └── Conflict
└── EngineError             a pod's door or engine did not do what it was asked
    ├── DoorUnreachable
    ├── EngineHangs         its door answers, and the engine did not end what it was asked
    ├── DrainTimeout        requests inside did not finish in time: the pod goes back into service
    └── NotVerified         the engine answers, but not as one that may serve
        ├── ScoresDiffer    it computes something else than engines like it did before
        └── WorsePreferred  it does not prefer the better response of a pair that its user wrote down
"""

from __future__ import annotations


class OperatorError(Exception):
    """Base of all of ours."""


class ConfigurationError(OperatorError):
    """A setting of the operator is wrong."""


class Deposed(OperatorError):
    """Another operator leads, or may lead by now."""


class Impossible(OperatorError):
    """`reason` is one word for the condition, the message a sentence that says what to write."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ApiError(OperatorError):
    """`call` is `VERB path`, `status` the HTTP status or 0 when nothing answered."""

    def __init__(self, call: str, status: int, message: str) -> None:
        super().__init__(f"{call}: {status or 'no answer'}: {message}")
        self.call = call
        self.status = status


class Expired(ApiError):
    """410: the resource version, or the rest of a list, is too old."""


class NotFound(ApiError):
    """404: the object is gone."""


class KindAbsent(ApiError):
    """404 for the resource, and not for an object of it."""


class Forbidden(ApiError):
    """403: RBAC refuses the operator; the server's message names verb and resource."""


class Terminating(ApiError):
    """403 NamespaceTerminating: what was wanted is on its way out."""


class Conflict(ApiError):
    """409: somebody else was faster."""


class EngineError(OperatorError):
    """`pod` is the pod's name, `status` what it answered, if that was the trouble."""

    def __init__(self, pod: str, message: str, status: int | None = None) -> None:
        super().__init__(f"{pod}: {message}")
        self.pod = pod
        self.status = status


class DoorUnreachable(EngineError):
    """No answer from the door within the deadline."""


class EngineHangs(EngineError):
    """The engine did not answer within the deadline, and its door did: it is not the network's fault."""


class DrainTimeout(EngineError):
    """Requests were still inside at the drain deadline."""


class NotVerified(EngineError):
    """The engine must not serve yet."""


class ScoresDiffer(NotVerified):
    """What it computes is not what engines like it computed before."""


class WorsePreferred(NotVerified):
    """A pair of `scoring.canary` comes out the wrong way."""
