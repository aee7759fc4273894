"""Scoring with reward models, for any training framework.

endpoints   who can be asked        discovery (Kubernetes), StaticEndpoints
judges      question and verdict    built in, or from a template and a parser
templates   a question as text; parsers: an answer as a verdict
votes       several answers to one question; calibration: what a score is turned into
classifiers models that answer with a number
tournaments scores from verdicts on pairs, and which pairs to ask; needs numpy, and is not imported here
groups      the responses to one prompt, judged against each other while they arrive; rankings: in one question
gathering   members of a group that come one by one; arrivals: what each source does with those; neither imported here
normalise   the scores of a group on a common scale
balancing   who is asked next       least in flight
transport   one HTTP request        aiohttp
scorer      one judgement end to end
rules       scores without a model: exact, numeric, math, regex, format, length, Python in a worker
mixing      one score from several models and rules, as a RewardFleet says; normalise and failure are parts of it
breaker     stops a run whose scores mostly fail; telemetry says what else a step's scores show
run_policy  what a failed score means for one run, in place of what the resource says
fleet       a RewardFleet carried out; sources: where its numbers come from; targets: from a resource to what scores
spec_file   resources from a file instead of a cluster
rewards     all of that as a function; frameworks: as TRL, OpenRLHF, slime and verifiers call it; none imported here
leases      saying when the reward model is needed, fleet_leases all of a fleet; lease_thread does so in a thread of its
            own, for programs with an event loop and without, slot_thread for GPUs of the program's own;
            `kubernetes.run_lease` and `kubernetes.slot_lease` are their easy forms
conversations what a prompt says, as roles and texts; refuses what is none. ground_truths: what a data set says is right
journal     the judgement log
cluster     the Kubernetes API as seen from here; only `kubernetes` speaks to a real one, and is not imported here
"""

from genrm_scoring.cluster import Cluster
from genrm_scoring.discovery import KubernetesEndpoints
from genrm_scoring.endpoints import Endpoint, Endpoints, Snapshot, StaticEndpoints
from genrm_scoring.errors import GenrmError
from genrm_scoring.fleet_leases import FleetLease, fleet_lease
from genrm_scoring.journal import JudgementLog
from genrm_scoring.lease_thread import AsyncLease, LeaseThread
from genrm_scoring.leases import gpu_lease, model_lease, run_phase
from genrm_scoring.resolve import resolve, resolve_target
from genrm_scoring.run_lease import RunLease
from genrm_scoring.scorer import Scorer, score_of
from genrm_scoring.slot_thread import AsyncSlots, SlotThread
from genrm_scoring.transport import AiohttpTransport, Transport
from genrm_scoring.types import Judgement, Outcome, Question, Ranking, Sample, Score, ScoreSource, Verdict

__all__ = [
    "AiohttpTransport",
    "AsyncLease",
    "AsyncSlots",
    "Cluster",
    "Endpoint",
    "Endpoints",
    "FleetLease",
    "GenrmError",
    "Judgement",
    "JudgementLog",
    "KubernetesEndpoints",
    "LeaseThread",
    "Outcome",
    "Question",
    "Ranking",
    "RunLease",
    "Sample",
    "Score",
    "ScoreSource",
    "Scorer",
    "SlotThread",
    "Snapshot",
    "StaticEndpoints",
    "Transport",
    "Verdict",
    "fleet_lease",
    "gpu_lease",
    "model_lease",
    "resolve",
    "resolve_target",
    "run_phase",
    "score_of",
]
