"""Golden rows: what an engine computes for a few fixed texts, written down once and compared after each wake. Pure.

An engine can answer 200 to everything after a wake and be corrupt (vllm-project/vllm#45650): its scores train a policy
on noise. Words show that badly, because a judge's verdict flips on a near-tie and stays on a far one. So a row is
numbers: of a generative model the log-probability of each token of the text, given those before it; of a classifier
what its head says of the text.

Rows are only compared between engines of one *key*: the same weights, image, arguments and hardware. Even then the last
digits differ from run to run, so the distance that is allowed comes from repeats of the first recording, and is never
below a floor. Distances are means over a row: a single unlikely token may move far, a corrupt engine moves all.

The first recording of a key may itself be of a corrupt engine. So it is only *believed* until two pods have computed
the same; then those two are right for good, whoever was first. Before that, one who differs is written down beside it,
as a suspect, and stays out: one reward for a fleet, and the first serves, because a fleet of one must. The next pod
that starts decides (`vote`). A pod has one voice, however often its container restarts; and only a start speaks against
the first, because a broken sleep may break all sleepers alike.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from genrm_api.names import golden_configmap_name
from genrm_api.rewardmodel import RewardModel, RewardModelType

from genrm_operator.children.metadata import metadata
from genrm_operator.observed import Pod

TEXTS: Final = (
    "A train leaves the station at nine and travels sixty miles in the first hour. In the second hour it slows down "
    "because of snow, and covers only forty. At noon the passengers have tea; the conductor says that they will be "
    "late by twenty minutes. How far is the sea from the station, if they see it at one o'clock? Let us add up what "
    "we know: 60 + 40 = 100 miles after two hours, and then two more at the same pace make 180. So the answer is 180.",
    "def median(values):\n    ordered = sorted(values)\n    middle = len(ordered) // 2\n    if len(ordered) % 2:\n"
    "        return ordered[middle]\n    return (ordered[middle - 1] + ordered[middle]) / 2\n\n\nassert median([3, 1, "
    "2]) == 2\nassert median([4, 1, 3, 2]) == 2.5\n# An empty list raises IndexError, which is what callers expect: "
    "there is no median of nothing.\n",
    "Question: Why does the moon show us the same face every night?\nAnswer: Because it turns once around itself in "
    "the time that it needs to go once around the earth. The tides that the earth raised in its rock slowed its spin "
    "until the two periods were equal, and they keep it so. The far side gets as much sun as the near one; we only do "
    "not see it.\nGrade: the answer is correct, complete, and easy to follow.",
    "Dear committee, I read the two proposals with care. The first is longer, cites nine studies, and answers none of "
    "the questions that were asked. The second fits on a page; it names its assumption, shows one measurement, and "
    "says what would change its mind. I prefer the second, although its table has an error in the third row: 17 + 25 "
    "is 42, not 41. Kind regards, a reviewer.",
)
"""ASCII, so that no tokenizer makes more tokens of a text than it has characters; 100 to 150 tokens of a usual one."""
MARGIN_TOKENS: Final = 8
"""Beside the text: what a tokenizer puts around it, and the token that is generated."""
REPEATS: Final = 5
SPREAD_FACTOR: Final = 5.0
"""Times the largest distance between two repeats."""
FLOORS: Final[Mapping[RewardModelType, float]] = {RewardModelType.GENERATIVE: 0.1, RewardModelType.CLASSIFIER: 0.02}
"""Nats a token; and, of a classifier, a share of the value where that is above 1. Between two starts of one engine
kernels may be chosen anew, which repeats within one start do not show."""
MOST_VALUES: Final = 512
"""Of a row; an embedding has thousands."""
KEPT_KEYS: Final = 4
"""In one ConfigMap: the present one, and those that a rollback may need."""
MOST_SUSPECTS: Final = 3
"""Recordings of one key while no two pods agree: the first, and the last others."""
ANNOTATION_DIGEST: Final = "genrm.dev/golden-digest"
"""On the ConfigMap: of its data, as we wrote it."""

Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """`spread`: the largest distance between two repeats."""

    values: Values
    spread: float

    @classmethod
    def of(cls, repeats: Sequence[Values]) -> Self:
        """The first of them, which no cache has touched."""
        return cls(repeats[0], max((distance(repeats[0], other) for other in repeats[1:]), default=0.0))


@dataclass(frozen=True, slots=True)
class Golden:
    """A recording: `facts` are what its key is made of, `pod`, `uid`, `boot_id` who computed it, `rows` one a text."""

    facts: Mapping[str, str | None]
    pod: str
    uid: str
    boot_id: str
    recorded_at: str
    rows: tuple[Row, ...]
    agreed: bool = False
    """Another pod has computed the same."""


Suspects = tuple[Golden, ...]
"""What was recorded of one key, the first one first. With one that is agreed on, the others are wrong."""


def facts(rm: RewardModel, pod: Pod, revision: str | None) -> dict[str, str | None]:
    """What must be the same for two engines to compute the same: dtype and ranks are among the arguments."""
    return {
        "weights": revision or rm.spec.model.uri,
        "image": pod.image_id,
        "arguments": pod.arguments,
        "device": None if pod.door is None else pod.door.device,
    }


def key(found: Mapping[str, str | None]) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def text(index: int, longest: int | None) -> str:
    """A text that fits into `longest` tokens, whatever the tokenizer."""
    return TEXTS[index] if longest is None else TEXTS[index][: max(longest - MARGIN_TOKENS, 1)]


def rounded(values: Values) -> Values:
    """As it is written down: a float of 16 digits says no more than one of six, and takes three times the room."""
    return tuple(float(f"{value:.6g}") for value in values[:MOST_VALUES])


def distance(one: Values, other: Values) -> float:
    """The mean difference of two rows; infinite where they are not comparable, or no numbers."""
    if len(one) != len(other) or not one or not all(map(math.isfinite, (*one, *other))):
        return math.inf
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def allowed(row: Row, kind: RewardModelType) -> float:
    """How far from a recorded row another start of the same engine may be."""
    size = max(1.0, sum(map(abs, row.values)) / len(row.values)) if kind is RewardModelType.CLASSIFIER else 1.0
    return max(FLOORS[kind] * size, SPREAD_FACTOR * row.spread)


def differs(recorded: Golden, values: Mapping[int, Values], kind: RewardModelType) -> int | None:
    """The first of the rows, by the number of its text, that is further away than allowed."""
    far = (
        i for i, found in values.items() if distance(recorded.rows[i].values, found) > allowed(recorded.rows[i], kind)
    )
    return next(far, None)


def believed(recordings: Suspects) -> Golden:
    """What engines of a key are held to: what two pods agree on, until then what the first computed."""
    return next((recorded for recorded in recordings if recorded.agreed), recordings[0])


def is_disputed(recordings: Suspects) -> bool:
    """Whether pods differ, and none has been confirmed."""
    return len(recordings) > 1 and not any(recorded.agreed for recorded in recordings)


def outvoted(recordings: Suspects) -> frozenset[str]:
    """Boot ids of engines that computed something else than two others agree on, and were let in before those came."""
    held_to = believed(recordings)
    return frozenset(other.boot_id for other in recordings if other is not held_to and held_to.agreed)


def vote(recordings: Suspects, heard: Golden, kind: RewardModelType, *, woken: bool = False) -> Suspects:
    """The recordings of a key once one more engine has answered all texts. What it said before in the same boot does
    not count any more.

    Args:
        heard: what it computed.
        woken: it has slept since its start, or may have: it can confirm what is believed, and nothing else.
    """
    if not recordings:
        return (heard,)
    values = {i: row.values for i, row in enumerate(heard.rows)}
    alike = [recorded for recorded in recordings if differs(recorded, values, kind) is None]
    held_to = believed(recordings)
    if held_to in alike:
        match = held_to
    elif held_to.agreed or woken:
        return recordings
    elif alike:
        match = alike[0]
    else:
        first, *others = recordings
        return (first, *others[-(MOST_SUSPECTS - 2) :], heard)
    confirmed = dataclasses.replace(match, agreed=match.agreed or match.uid != heard.uid)
    kept = (recorded for recorded in recordings if recorded is match or recorded.boot_id != heard.boot_id)
    return tuple(confirmed if recorded is match else recorded for recorded in kept)


def usable(row: Row) -> bool:
    """Whether it can be compared with at all: an engine that computes no numbers records nothing."""
    return bool(row.values) and math.isfinite(row.spread) and all(map(math.isfinite, row.values))


def shown(values: Values) -> str:
    """The first few, for a message."""
    return "[" + ", ".join(f"{value:.4g}" for value in values[:4]) + (", …]" if len(values) > 4 else "]")


# -- as a ConfigMap holds it


def config_map(rm: RewardModel, by_key: Mapping[str, Suspects]) -> dict[str, Any]:
    newest = sorted(by_key.items(), key=lambda item: max(golden.recorded_at for golden in item[1]))[-KEPT_KEYS:]
    data = {key: json.dumps([asdict(one) for one in recorded], separators=(",", ":")) for key, recorded in newest}
    meta = metadata(rm, golden_configmap_name(rm.name), {ANNOTATION_DIGEST: digest(data)})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def read(obj: Mapping[str, Any]) -> dict[str, Suspects] | None:
    """The recordings in a ConfigMap; None if it is not as it was written: somebody has changed it, or another version
    of the operator wrote it in a form of its own."""
    data = obj.get("data") or {}
    if (obj["metadata"].get("annotations") or {}).get(ANNOTATION_DIGEST) != digest(data):
        return None
    try:
        return {key: tuple(map(_golden, json.loads(text))) for key, text in data.items()}
    except (ValueError, KeyError, TypeError):
        return None


def digest(data: Mapping[str, str]) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _golden(document: Mapping[str, Any]) -> Golden:
    rows: Iterable[Mapping[str, Any]] = document["rows"]
    made = tuple(Row(tuple(map(float, row["values"])), float(row["spread"])) for row in rows)
    pod, uid, boot_id, at = (str(document[name]) for name in ("pod", "uid", "boot_id", "recorded_at"))
    return Golden(dict(document["facts"]), pod, uid, boot_id, at, made, bool(document["agreed"]))
