"""Scoring with reward models, for any training framework.

endpoints   who can be asked        discovery (Kubernetes), StaticEndpoints
judges      question and verdict    boxed True/False
balancing   who is asked next       least in flight
transport   one HTTP request        aiohttp
scorer      one judgement end to end
leases      saying when the reward model is needed; lease_thread is their synchronous twin
journal     the judgement log
cluster     the Kubernetes API as seen from here; only `kubernetes` speaks to a real one, and is not imported here
"""

from genrm_scoring.cluster import Cluster
from genrm_scoring.discovery import KubernetesEndpoints
from genrm_scoring.endpoints import Endpoint, Endpoints, Snapshot, StaticEndpoints
from genrm_scoring.errors import GenrmError
from genrm_scoring.journal import JudgementLog
from genrm_scoring.lease_thread import LeaseThread
from genrm_scoring.leases import RunLease, run_lease, run_phase
from genrm_scoring.resolve import resolve
from genrm_scoring.scorer import Scorer, score_of
from genrm_scoring.transport import AiohttpTransport, Transport
from genrm_scoring.types import Judgement, Outcome, Sample, Score, ScoreSource, Verdict

__all__ = [
    "AiohttpTransport",
    "Cluster",
    "Endpoint",
    "Endpoints",
    "GenrmError",
    "Judgement",
    "JudgementLog",
    "KubernetesEndpoints",
    "LeaseThread",
    "Outcome",
    "RunLease",
    "Sample",
    "Score",
    "ScoreSource",
    "Scorer",
    "Snapshot",
    "StaticEndpoints",
    "Transport",
    "Verdict",
    "resolve",
    "run_lease",
    "run_phase",
    "score_of",
]
