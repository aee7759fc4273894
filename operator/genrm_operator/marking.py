"""What the operator writes on a pod: its serving label, that its engine may have GPUs, what is known of it.

Each answer of the API server is believed at once; the watch repeats it a moment later.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from genrm_api.names import ANNOTATION_BOOT_ID, ANNOTATION_RELEASED, CONDITION_VERIFIED, LABEL_SERVING

from genrm_operator.cache import Cache, Key
from genrm_operator.errors import NotFound
from genrm_operator.kube import Kube
from genrm_operator.observed import Pod
from genrm_operator.workqueue import WorkQueue


@dataclass(frozen=True, slots=True)
class Marker:
    kube: Kube
    cache: Cache
    queue: WorkQueue[Key]

    async def serving(self, key: Key, pod: Pod, serving: str | None, boot_id: str | None) -> None:
        patch = {"metadata": {"labels": {LABEL_SERVING: serving}, "annotations": {ANNOTATION_BOOT_ID: boot_id}}}
        try:
            answer = await self.kube.merge_patch("Pod", pod.namespace, pod.name, patch)
        except NotFound:
            self.cache.forget("Pod", key, pod.uid)  # its deletion was missed
            return
        if pod.uid in self.cache.pods[key]:
            self.cache.put_pod(answer, deleted=False)
            self.queue.add(key)  # it may tell more than what was written

    async def let_in(self, key: Key, pod: Pod) -> None:
        """Write down that its engine may have the GPUs that it shares, before it hears of it: whoever looks at the pod
        later and gets no answer knows then that it may have them."""
        assert pod.door is not None, "only a pod whose gate has answered is let in"
        patch = {"metadata": {"annotations": {ANNOTATION_RELEASED: pod.door.boot_id}}}
        answer = await self.kube.merge_patch("Pod", pod.namespace, pod.name, patch)
        if pod.uid in self.cache.pods[key]:
            self.cache.put_pod(answer, deleted=False)

    async def tell(self, pod: Pod, reason: str, *, joins: bool = True) -> None:
        """Tell Kubernetes what is known of this pod, in this boot of its server; if it `joins`, a rollout may go on."""
        assert pod.door is not None, "only a pod whose door has answered is verified"
        condition = {
            "type": CONDITION_VERIFIED,
            "status": "True" if joins else "False",
            "reason": reason,
            "message": pod.door.boot_id,
            "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        answer = await self.kube.set_pod_condition(pod.namespace, pod.name, condition)
        if pod.uid in self.cache.pods[pod.namespace, pod.reward_model]:
            self.cache.put_pod(answer, deleted=False)
