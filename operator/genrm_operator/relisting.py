"""What was deleted while a watch was away.

A watch that breaks goes on where it broke off, and nothing is lost. But an API server does not remember for ever, and
one that has started anew remembers nothing: then the watch is answered 410, and Kopf lists what there is and goes on
from there. That tells of everything but what is gone. A pod that is known and does not exist would be waited for for
ever, and would keep its slot; a RewardModel would be given children again and again.

So after each such listing the kind is listed once more here, and what was known before, and is not there, is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from genrm_api.names import LABEL_REWARD_MODEL

from genrm_operator.cache import Cache, Key, identity
from genrm_operator.errors import ApiError
from genrm_operator.kube import KINDS, Kube
from genrm_operator.watches import Watches
from genrm_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0


class Relisting:
    """Follows the watches' listings until cancelled."""

    def __init__(self, kube: Kube, cache: Cache, queue: WorkQueue[Key], watches: Watches) -> None:
        self._kube, self._cache, self._queue, self._watches = kube, cache, queue, watches

    async def run(self) -> None:
        while True:
            plural, namespace = await self._watches.listed_again.get()
            while True:
                try:
                    await self._forget_what_is_gone(KINDS[plural], namespace)
                except ApiError as error:
                    log.warning("cannot list %s: %s", plural, error)
                    await asyncio.sleep(RETRY_SECONDS)
                except Exception:
                    log.exception("cannot list %s by a bug of ours", plural)
                    break
                else:
                    break

    async def _forget_what_is_gone(self, kind: str, namespace: str) -> None:
        before = self._cache.known(kind, namespace)
        listed = await self._kube.list(kind, namespace, "" if kind == "RewardModel" else LABEL_REWARD_MODEL)
        there, now = {identity(kind, obj) for obj in listed}, self._cache.known(kind, namespace)
        # What came or changed while we listed is there, whatever the list says.
        gone = [found for found in before.keys() - there if now.get(found) == before[found]]
        for found in gone:
            for key in self._cache.forget(kind, before[found][0], found[1]):
                self._queue.add(key)
        log.info("listed again kind=%s there=%d gone=%d", kind, len(there), len(gone))
