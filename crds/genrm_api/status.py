"""What the operator says about a RewardModel."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from genrm_api.rules import ApiModel
from genrm_api.values import Int, Number


class ConditionStatus(enum.StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(enum.StrEnum):
    """Why a condition is as it is: every `reason` that the operator writes is one of these."""

    # What a model is doing: the reason of Ready, Available, Progressing and Asleep, and the word in `phase`.
    PENDING = "Pending"
    STARTING = "Starting"
    WAKING = "Waking"
    SERVING = "Serving"
    WAITING = "Waiting"
    SLEEPING = "Sleeping"
    ASLEEP = "Asleep"
    OFF = "Off"
    EXTERNAL = "External"
    DEGRADED = "Degraded"
    # What is wrong, or that nothing is: the reason of Degraded, and then of Ready.
    AS_EXPECTED = "AsExpected"
    UNREADABLE = "Unreadable"
    NOT_SUPPORTED_YET = "NotSupportedYet"
    SLEEP_LEVEL_NOT_SUPPORTED = "SleepLevelNotSupported"
    DATA_PARALLEL_NOT_SUPPORTED = "DataParallelNotSupported"
    CHAT_TEMPLATE_NOT_SUPPORTED = "ChatTemplateNotSupported"
    ENVIRONMENT_NOT_SUPPORTED = "EnvironmentNotSupported"
    HOOK_NOT_READABLE = "HookNotReadable"
    HOST_PATH_REFUSED = "HostPathRefused"
    POD_TEMPLATE_REFUSED = "PodTemplateRefused"
    SLOT_TWICE = "SlotTwice"
    NODES_NOT_SUPPORTED = "NodesNotSupported"
    APPLY_FAILED = "ApplyFailed"
    PODS_REFUSED = "PodsRefused"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    CONTAINER_START_FAILED = "ContainerStartFailed"
    ENGINE_CRASHED = "EngineCrashed"
    OUT_OF_MEMORY = "OutOfMemory"
    POD_FAILED = "PodFailed"
    WEIGHTS_DIFFER = "WeightsDiffer"
    TRANSITION_FAILED = "TransitionFailed"
    ROUTER_UNREACHABLE = "RouterUnreachable"
    HOST_MEMORY_TOO_SMALL = "HostMemoryTooSmall"
    # Why replicas may give different scores: the reason of ImagesDiffer, and of Degraded while a run is scored.
    IMAGE_MOVED = "ImageMoved"
    # What follows from where the weights are: the reason of HostPath.
    NODE_FOLDER = "NodeFolder"
    # Why engines still run what the spec asked for before: the reason of RolloutWaiting.
    RUN_UNDER_WAY = "RunUnderWay"
    # Why a pod goes before the one that replaces it has come: the reason of Progressing.
    RECREATING = "Recreating"
    # Whether engines compute what others like them did before they slept, and what their user knows to be so: the
    # reason of ScoresVerified.
    AS_RECORDED = "AsRecorded"
    BETTER_PREFERRED = "BetterPreferred"
    NOT_COMPARED = "NotCompared"
    NOT_CONFIRMED = "NotConfirmed"
    SCORES_DISPUTED = "ScoresDisputed"
    SCORES_DIFFER = "ScoresDiffer"
    WORSE_PREFERRED = "WorsePreferred"
    # What a sleep gave back of the GPUs: the reason of SleepEffective.
    MEMORY_FREED = "MemoryFreed"
    MEMORY_KEPT = "MemoryKept"
    NOT_MEASURABLE = "NotMeasurable"
    # Whether verdicts can be read from its probabilities: the reason of ScoringValid, and of Degraded if they cannot.
    LABELS_ARE_TOKENS = "LabelsAreTokens"
    LABEL_NOT_ONE_TOKEN = "LabelNotOneToken"
    LABELS_NOT_ASKED = "LabelsNotAsked"
    # Whether it has the GPUs that it shares: the reason of SlotBlocked.
    SLOT_GIVEN = "SlotGiven"
    SLOT_NOT_ASKED = "SlotNotAsked"
    SLOT_AWAITED = "SlotAwaited"
    SLOT_UNSEEN = "SlotUnseen"
    SLOT_DEADLOCK = "SlotDeadlock"
    # Of a RewardFleet, what its models keep it from: the reason of its Ready.
    MODEL_MISSING = "ModelMissing"
    MODEL_DEGRADED = "ModelDegraded"
    MODEL_NOT_READY = "ModelNotReady"


REASONS: Final[Mapping[Reason, str]] = {
    Reason.PENDING: "No pod exists yet.",
    Reason.STARTING: "Engines are starting.",
    Reason.WAKING: "Engines are waking.",
    Reason.SERVING: "All pods that should serve do.",
    Reason.WAITING: "A slot of `gpu.slots` is somebody else's turn; see the condition SlotBlocked.",
    Reason.SLEEPING: "Engines are going to sleep, or pods are going.",
    Reason.ASLEEP: "All engines sleep, as wanted.",
    Reason.OFF: "There are no pods, as wanted.",
    Reason.EXTERNAL: "The endpoint is outside the cluster; the operator does nothing for it.",
    Reason.DEGRADED: "See the condition Degraded.",
    Reason.AS_EXPECTED: "Nothing is wrong.",
    Reason.UNREADABLE: "The object was stored under another schema; the message names the field.",
    Reason.NOT_SUPPORTED_YET: "A field asks for what this version of the operator does not carry out.",
    Reason.SLEEP_LEVEL_NOT_SUPPORTED: "The engine cannot sleep as deep as `lifecycle.sleep.level` says.",
    Reason.DATA_PARALLEL_NOT_SUPPORTED: "The engine's data parallel ranks cannot be put to sleep together.",
    Reason.CHAT_TEMPLATE_NOT_SUPPORTED: "The engine does not take a chat template in this form.",
    Reason.ENVIRONMENT_NOT_SUPPORTED: "A variable of `env` keeps the engine from sleeping.",
    Reason.HOOK_NOT_READABLE: "The body of a hook of `engine.custom` is no JSON.",
    Reason.HOST_PATH_REFUSED: "`model.uri` is a folder of the node outside of what the installation allows.",
    Reason.POD_TEMPLATE_REFUSED: "`podTemplate` touches a part of the pod that is not its own.",
    Reason.SLOT_TWICE: "Two of `gpu.slots` are the same GPU; there are no pods.",
    Reason.NODES_NOT_SUPPORTED: "The engine cannot spread these ranks over `gpu.nodes`.",
    Reason.APPLY_FAILED: "The API server refuses a child, or did not answer; the message says what it said.",
    Reason.PODS_REFUSED: "A quota, a policy or a missing object keeps pods from being made.",
    Reason.UNSCHEDULABLE: "No node takes the pod: GPUs, memory, taints or affinity.",
    Reason.IMAGE_PULL_FAILED: "The engine's image cannot be pulled.",
    Reason.CONTAINER_CONFIG_ERROR: "A Secret, ConfigMap or key that the pod names is missing.",
    Reason.CONTAINER_START_FAILED: "The container runtime cannot start the engine.",
    Reason.ENGINE_CRASHED: "The engine ended; the message has its last words.",
    Reason.OUT_OF_MEMORY: "The engine was killed for memory.",
    Reason.POD_FAILED: "The pod failed as a whole: evicted, or its node is gone.",
    Reason.WEIGHTS_DIFFER: "A pod started with other weights than `resolvedRevision`: it does not serve.",
    Reason.TRANSITION_FAILED: "A sleep, a wake or a verification failed; it is tried again.",
    Reason.ROUTER_UNREACHABLE: "The router does not follow who serves; it is tried again.",
    Reason.HOST_MEMORY_TOO_SMALL: "`resources.limits.memory` does not hold the weights of a model asleep at level 1.",
    Reason.IMAGE_MOVED: "Pods that name one image run different ones; the message says which, and whether they serve.",
    Reason.NODE_FOLDER: "`model.uri` is a folder of the node: the namespace cannot enforce `restricted` or `baseline`.",
    Reason.RUN_UNDER_WAY: "A change of the spec waits for the runs that hold a Lease; the message names them.",
    Reason.RECREATING: "No node has room for a pod of the new revision beside the old ones: one of these goes first.",
    Reason.AS_RECORDED: "Engines computed what was recorded of the first like them.",
    Reason.BETTER_PREFERRED: "Engines prefer the better response of each pair in `scoring.canary`; no more was asked.",
    Reason.NOT_COMPARED: "An engine does not answer what it would be compared by; it serves.",
    Reason.NOT_CONFIRMED: "What was recorded is the word of one pod, which no other one has confirmed yet; it serves.",
    Reason.SCORES_DISPUTED: "Pods of one kind computed different scores, and no third has decided; the first serves.",
    Reason.MEMORY_FREED: "The last sleeps gave most of the GPUs' memory back.",
    Reason.MEMORY_KEPT: "An engine that sleeps keeps more than a fifth of the memory that was in use, and 4 GiB.",
    Reason.NOT_MEASURABLE: "Nobody can see what a sleep gave back: without a GPU, a door, or a driver that says it.",
    Reason.LABELS_ARE_TOKENS: "Each label of `scoring.parse` is one token of the model's.",
    Reason.LABEL_NOT_ONE_TOKEN: "A label of `scoring.parse` is several tokens to the model, and no run may read it. It "
    "serves, for whoever asks it something else.",
    Reason.LABELS_NOT_ASKED: "The engine does not say what its tokenizer makes of the labels of `scoring.parse`.",
    Reason.SLOT_GIVEN: "Its slots are its own for now.",
    Reason.SLOT_NOT_ASKED: "At rest it asks for no slot.",
    Reason.SLOT_AWAITED: "It waits for its turn on a slot; the message says whose it is.",
    Reason.SLOT_UNSEEN: "A slot is not seen to be free; the message says who may have it, and why that is not known.",
    Reason.SLOT_DEADLOCK: "Every run that waits for it holds its slot by another model or a trainer, or waits in a "
    "circle; the message says who waits for whom.",
    Reason.MODEL_MISSING: "A RewardModel that a term of the RewardFleet names is not there.",
    Reason.MODEL_DEGRADED: "A RewardModel of the RewardFleet is Degraded.",
    Reason.MODEL_NOT_READY: "A RewardModel of the RewardFleet is on its way, or waits for its turn.",
    Reason.SCORES_DIFFER: "An engine computes something else than was recorded; it does not serve.",
    Reason.WORSE_PREFERRED: "An engine does not prefer the better response of a pair in `scoring.canary`; it does not "
    "serve.",
}
"""What each of them means, for the reference page."""


class Condition(ApiModel):
    """metav1.Condition."""

    type: Annotated[str, StringConstraints(max_length=316)] = Field(
        description="Ready, Available, Progressing, Degraded, Asleep, and where it applies HostPath, ImagesDiffer, "
        "RolloutWaiting, ScoresVerified, ScoringValid, SleepEffective or SlotBlocked."
    )
    status: ConditionStatus = Field(description="True, False or Unknown.")
    observed_generation: Annotated[Int, Field(ge=0)] | None = Field(
        None, description="metadata.generation this was decided for."
    )
    last_transition_time: str = Field(
        description="When the status last changed.", json_schema_extra={"format": "date-time"}
    )
    reason: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(
        description="One word for programs, from the list in docs/reference/rewardmodel.md."
    )
    message: Annotated[str, StringConstraints(max_length=32768)] = Field(description="A sentence for people.")


class EndpointStatus(ApiModel):
    pod: str = Field(description="Name of the engine pod.")
    uid: str = Field(description="UID of the pod.")
    state: str = Field(
        description="Pending, Gated, Starting, Verifying, Serving, Draining, Sleeping, Asleep, Waking or Failed."
    )
    boot_id: str | None = Field(
        None,
        description="Boot id of the door in the pod, once it answered. Without a door: the pod's uid and how often it "
        "restarted.",
    )


class HeldLease(ApiModel):
    run: str = Field(description="The run that holds the Lease.")
    phase: str = Field(description="What it asks for: idle, prewake or scoring.")


class Pinned(ApiModel):
    """What the pods that may serve were started with; a part is absent while they differ."""

    revision: str | None = Field(
        None,
        description="What answers are stamped with as genrm-revision: a digest of the pods' template, which holds all "
        "that the spec says of the engine.",
    )
    weights: str | None = Field(None, description="As resolvedRevision.")
    image: str | None = Field(
        None,
        description="The engine's image and its digest. A pod whose tag means another one does not serve before no "
        "run holds a Lease. Absent where the runtime knows no digest of a registry.",
    )
    dtype: str | None = Field(None, description="As the engines were told. Absent: what the weights say.")
    chat_template: str | None = Field(
        None,
        description="sha256:… of engine.chatTemplate, its text or its path. Absent: the template in the weights.",
    )
    scoring: str | None = Field(
        None,
        description="sha256:… of the effective scoring block as it is now. A run reads it once, when it begins, and "
        "is scored by what it read.",
    )


class RewardModelStatus(ApiModel):
    observed_generation: Annotated[Int, Field(ge=0)] | None = Field(
        None, description="metadata.generation this status was computed for."
    )
    phase: str | None = Field(
        None, description="One word: Pending, Starting, Waking, Serving, Sleeping, Asleep, Off, External or Degraded."
    )
    conditions: list[Condition] | None = Field(
        None,
        description="Ready in the kstatus sense: asleep as desired is Ready.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    replicas: Annotated[Int, Field(ge=0)] | None = Field(None, description="Engine pods that exist.")
    ready: Annotated[Int, Field(ge=0)] | None = Field(
        None, description="Engine pods whose engine lives, asleep or awake."
    )
    awake: Annotated[Int, Field(ge=0)] | None = Field(
        None, description="Engine pods that are verified awake and serve."
    )
    selector: str | None = Field(None, description="Label selector of the engine pods, for the scale subresource.")
    endpoints: list[EndpointStatus] | None = Field(None, description="Every engine pod and what it is doing.")
    leases: list[HeldLease] | None = Field(None, description="Runs that hold a Lease on this model.")
    last_wake_seconds: Annotated[Number, Field(ge=0)] | None = Field(
        None, description="Seconds from the decision to wake to the last replica serving, last time."
    )
    usual_wake_seconds: Annotated[Number, Field(ge=0)] | None = Field(
        None, description="What nine of ten of the last 16 wakes took at most: how early a pre-wake begins."
    )
    last_sleep_seconds: Annotated[Number, Field(ge=0)] | None = Field(
        None, description="Seconds from the decision to sleep to the last replica asleep, last time."
    )
    golden_rows: str | None = Field(
        None, description="Digest of the ConfigMap with what engines computed of a few fixed texts."
    )
    pinned: Pinned | None = Field(
        None,
        description="What runs are scored by for as long as any of them holds a Lease. Absent without one, and with "
        "rollout.pinDuringLease: false.",
    )
    engine: str | None = Field(None, description="Engine and version as the engine itself reports it.")
    image: str | None = Field(
        None, description="The engine's image, as the container runtime resolved it. Absent while pods differ."
    )
    resolved_revision: str | None = Field(
        None,
        description="The weights that every pod serves: the commit that model.revision was when the first pod looked, "
        "or sha256:… of a folder's index. Absent until a pod has told, and where none can.",
    )
    resolved_model: str | None = Field(None, description="The uri, and the branch of the hub, that it was found for.")
    weight_bytes: Annotated[Int, Field(ge=0)] | None = Field(
        None, description="Size of the weight files in bytes, where a pod could tell."
    )
