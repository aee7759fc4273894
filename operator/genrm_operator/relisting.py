"""What was deleted while a watch was away.

A watch that breaks goes on where it broke off, and nothing is lost. But an API server does not remember for ever, and
one that has started anew remembers nothing: then the watch is answered 410, and what there is is listed once more. That
tells of everything but what is gone. A pod that is known and does not exist would be waited for for ever, and would
keep its slot; a RewardModel would be given children again and again.

So what was known before such a list, and is not in it, is forgotten. Informers do so with each of theirs. Kopf, which
watches the RewardModels, does not say what it has listed: these are listed once more here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from genrm_operator.cache import Cache, Key, Object, identity
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
                    await self._list_again(KINDS[plural], namespace)
                except ApiError as error:
                    log.warning("cannot list %s: %s", plural, error)
                    await asyncio.sleep(RETRY_SECONDS)
                except Exception:
                    log.exception("cannot list %s by a bug of ours", plural)
                    break
                else:
                    break

    async def _list_again(self, kind: str, namespace: str) -> None:
        before = self._cache.known(kind, namespace)
        listed = await self._kube.list(kind, namespace, "")
        forget_what_is_gone(self._cache, self._queue, kind, namespace, before, listed)


def forget_what_is_gone(
    cache: Cache,
    queue: WorkQueue[Key],
    kind: str,
    namespace: str,
    before: Mapping[Object, tuple[Key, Any]],
    listed: Sequence[Mapping[str, Any]],
) -> None:
    """Forget what was known of a kind, and is not listed.

    Args:
        before: what was known (`Cache.known`) when the list was asked for. What came or changed since is there,
            whatever the list says.
    """
    there, now = {identity(kind, obj) for obj in listed}, cache.known(kind, namespace)
    gone = [found for found in before.keys() - there if now.get(found) == before[found]]
    for found in gone:
        for key in cache.forget(kind, before[found][0], found[1]):
            queue.add(key)
    log.info("listed kind=%s there=%d gone=%d", kind, len(there), len(gone))
