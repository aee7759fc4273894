"""Every exception of the scoring library, one tree; callers catch by meaning.

GenrmError
├── ConfigurationError            what the user wrote cannot work
│   └── LabelsSplit               by what a model's tokenizer says of it
├── ClusterError                  the Kubernetes API
│   ├── ClusterUnreachable        nobody answered, or not yet able to (retryable)
│   ├── AccessDenied              401 or 403: verb, resource, namespace
│   ├── NotFound
│   ├── AlreadyExists
│   ├── WatchExpired              list again
│   └── ApiRejected               any other answer
├── RewardModelError              the RewardModel a run names
│   ├── NoSuchRewardModel
│   ├── NoRewardModelApi          the cluster does not know the resource at all
│   └── RewardModelUnreadable     it exists, but not in a form this version understands
├── LeaseTaken                    another process holds the Lease of this run
├── NotAwake                      the reward model did not come up for the run in time, or its GPUs were another's
├── WakeRefused                   it never will, as things are: the run has the GPUs itself
├── NoEndpoint                    nobody to ask now; knows when asking again makes sense
├── AttemptFailed                 one request to one endpoint; its class carries the outcome it would end in
│   ├── Transient                 another attempt may succeed
│   │   ├── EndpointLost          nobody is there: ConnectFailed, Disconnected
│   │   ├── AttemptTimeout
│   │   ├── ServerFailed          5xx, 429, or an answer that is none
│   │   ├── NotServing            503: the door is closed, or the engine sleeps
│   │   └── Aborted
│   └── Permanent                 the same request would fail again
│       ├── RequestRefused, PromptTooLong, Truncated, ParseFailed
│       ├── FunctionTimedOut, FunctionDied    a user's function around the model ran out of time, or its process ended
│       └── Unaskable             the sample lacks what the question is about
├── SampleDropped                 the failure policy drops this sample
├── RuleFailed                    a rule has no number for a response; its class carries the outcome
│   ├── GroundTruthUnusable       there is none, or none that the rule can compare with
│   ├── RuleTimedOut, RuleDied    its worker ran out of time, or ended
│   └── RuleAnswered              with something that is no number
├── MixFailed                     the terms of a sample make no number
└── RunStopped                    training on must not go on
    ├── FailureRaised             a failure under policy raise
    └── BreakerTripped            too many failures in one step
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar

from genrm_scoring.types import Outcome, Score, ScoreSource


class GenrmError(Exception):
    """Base of all of ours. Travels between processes whatever its constructor takes: Ray pickles exceptions."""

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[GenrmError], args: tuple[object, ...], facts: dict[str, object]) -> GenrmError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class ConfigurationError(GenrmError):
    """`field` as the user wrote it, and a sentence that says what was found and what to write."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(f"{field}: {sentence}")
        self.field, self.sentence = field, sentence


class LabelsSplit(ConfigurationError):
    """A judge would read the probabilities of labels that are no tokens; whoever reads none may ask the model."""


class ClusterError(GenrmError):
    """The Kubernetes API did not do what was asked."""


class ClusterUnreachable(ClusterError):
    """`where` is the address with the file or account it comes from."""

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(f"the Kubernetes API at {where} does not answer: {detail}")
        self.where = where


class AccessDenied(ClusterError):
    """`status` 401: not known; 403: known, but not allowed."""

    def __init__(self, status: int, verb: str, resource: str, namespace: str, detail: str) -> None:
        if status == 401:
            sentence = f"credentials not accepted (401): {verb} {resource} in namespace {namespace}; log in again"
        else:
            sentence = (
                f"not allowed (403): {verb} {resource} in namespace {namespace}; ask for the role genrm-client there "
                f"(kubectl -n {namespace} create rolebinding genrm-client --clusterrole=genrm-client --user=...)"
            )
        super().__init__(f"{sentence}. The API server says: {detail}" if detail else sentence)
        self.status, self.verb, self.resource, self.namespace = status, verb, resource, namespace


class NotFound(ClusterError):
    def __init__(self, resource: str, namespace: str, name: str) -> None:
        super().__init__(f"no {resource} {namespace}/{name}")


class AlreadyExists(ClusterError):
    pass


class WatchExpired(ClusterError):
    pass


class ApiRejected(ClusterError):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"the Kubernetes API answered {status}: {detail}")
        self.status = status


class RewardModelError(GenrmError):
    pass


class NoSuchRewardModel(RewardModelError):
    """Or no such RewardFleet: `kind` says what was looked for."""

    def __init__(self, name: str, namespace: str, existing: Sequence[str], kind: str = "RewardModel") -> None:
        sentence = f"there is no {kind} {name} in namespace {namespace}"
        there = ", ".join(sorted(existing)[:20])
        if close := get_close_matches(name, existing, n=1):
            sentence += f"; did you mean {close[0]}? There are: {there}"
        elif existing:
            sentence += f"; there are: {there}"
        else:
            sentence += "; the namespace has none (another one? write reward_model.namespace=...)"
        super().__init__(sentence)
        self.name, self.namespace, self.existing = name, namespace, tuple(existing)


class NoRewardModelApi(RewardModelError):
    def __init__(self, where: str) -> None:
        super().__init__(
            f"the cluster at {where} does not know RewardModels: genrm-operator is not installed there (helm install)"
        )


class RewardModelUnreadable(RewardModelError):
    def __init__(self, kind: str, name: str, namespace: str, detail: str) -> None:
        super().__init__(f"{kind} {namespace}/{name} is not understood by this version of the plugin: {detail}")


class NotAwake(GenrmError):
    """`seconds` is how long was waited."""

    def __init__(self, reward_model: str, namespace: str, seconds: float, slots: Sequence[str] = ()) -> None:
        what = f"reward model {namespace}/{reward_model} is not awake"
        if slots:
            what = f"{_slots(slots, reward_model, namespace)} not this run's"
        super().__init__(f"{what} after {seconds:.1f} s; look with kubectl -n {namespace} describe rm {reward_model}")
        self.seconds = seconds


class WakeRefused(GenrmError):
    """The operator says that the reward model can never be awake for this run as things are."""

    def __init__(self, reward_model: str, namespace: str, why: str, slots: Sequence[str] = ()) -> None:
        what = f"reward model {namespace}/{reward_model} is not woken"
        if slots:
            what = f"{_slots(slots, reward_model, namespace)} not given to this run"
        super().__init__(f"{what}: {why}")


def _slots(slots: Sequence[str], reward_model: str, namespace: str) -> str:
    of = f"of reward model {namespace}/{reward_model}"
    return f"slot {slots[0]} {of} is" if len(slots) == 1 else f"slots {', '.join(slots)} {of} are"


class LeaseTaken(GenrmError):
    def __init__(self, name: str, holder: str, why: str) -> None:
        super().__init__(
            f"Lease {name} is held by another process of run {holder} ({why}): end that, give this run another name, "
            "or delete the Lease if you know that its process has ended"
        )


class NoEndpoint(GenrmError):
    """`retry_at` (the caller's clock): when an ejected endpoint may be tried again; `None` if there is none at all."""

    def __init__(self, retry_at: float | None) -> None:
        super().__init__("no endpoint to ask")
        self.retry_at = retry_at


class AttemptFailed(GenrmError):
    """`outcome` is how the judgement ends if this attempt was its last."""

    outcome: ClassVar[Outcome] = Outcome.TRANSPORT


class Transient(AttemptFailed):
    pass


class EndpointLost(Transient):
    pass


class ConnectFailed(EndpointLost):
    pass


class Disconnected(EndpointLost):
    pass


class AttemptTimeout(Transient):
    outcome = Outcome.TIMEOUT


class ServerFailed(Transient):
    pass


class NotServing(Transient):
    outcome = Outcome.ASLEEP


class Aborted(Transient):
    outcome = Outcome.ABORTED


class Permanent(AttemptFailed):
    pass


class RequestRefused(Permanent):
    outcome = Outcome.REFUSED


class PromptTooLong(Permanent):
    outcome = Outcome.TOO_LONG


class Truncated(Permanent):
    outcome = Outcome.TRUNCATED


class ParseFailed(Permanent):
    outcome = Outcome.PARSE_FAILED


class FunctionTimedOut(Permanent):
    outcome = Outcome.TIMEOUT


class FunctionDied(Permanent):
    outcome = Outcome.ABORTED


class Unaskable(Permanent):
    """Known before anybody was asked."""

    outcome = Outcome.SKIPPED


class SampleDropped(GenrmError):
    """Raised towards a framework whose way to drop a sample is an exception."""

    def __init__(self, score: Score) -> None:
        group = ", and its group with it" if score.source is ScoreSource.GROUP_DROPPED else ""
        super().__init__(f"the sample has no score{group}: {score.outcome}: {score.detail or 'no detail is known'}")
        self.score = score


class RuleFailed(GenrmError):
    """`outcome` is how the term's score ends."""

    outcome: ClassVar[Outcome] = Outcome.PARSE_FAILED


class GroundTruthUnusable(RuleFailed):
    outcome = Outcome.REFUSED


class RuleTimedOut(RuleFailed):
    outcome = Outcome.TIMEOUT


class RuleDied(RuleFailed):
    outcome = Outcome.ABORTED


class RuleAnswered(RuleFailed):
    pass


class MixFailed(GenrmError):
    """Every term has its number, and together they make none: a root of the negative, a division by zero."""


class RunStopped(GenrmError):
    """Not to be caught sample by sample: it ends the run."""


class FailureRaised(RunStopped):
    def __init__(self, where: str, outcome: Outcome, detail: str) -> None:
        super().__init__(f"{where} ended as {outcome} under policy raise: {detail or 'no detail is known'}")
        self.outcome = outcome


class BreakerTripped(RunStopped):
    """`failed` of `judged` scores of a step failed; `examples` are sentences about some of them."""

    def __init__(self, failed: int, judged: int, most: float, examples: Sequence[str]) -> None:
        shown = "".join(f"\n  {example}" for example in examples)
        super().__init__(
            f"{failed} of the first {judged} scores of this step failed ({failed / judged:.0%}), more than "
            f"breaker.maxFailedFraction {most:g} allows: training on would learn from what is left. For example:{shown}"
        )
        self.failed, self.judged = failed, judged
