"""What an HTTP reply that is no answer means, whatever was asked. Pure."""

from __future__ import annotations

import re
from typing import Final

from genrm_api.names import HEADER_BOOT_ID, HEADER_REVISION

from genrm_scoring.errors import AttemptFailed, NotServing, PromptTooLong, RequestRefused, ServerFailed
from genrm_scoring.transport import Reply

_TOO_LONG: Final = re.compile(r"maximum (context|model|input) length|context_length_exceeded|max_model_len", re.I)
_RETRYABLE_4XX: Final = (408, 425, 429)


def refusal(reply: Reply) -> AttemptFailed:
    """The error that a reply with a status other than 200 is."""
    words = f"{reply.status}: {reply.body[:300].decode(errors='replace')}"
    if reply.status == 503:
        return NotServing(words)
    if reply.status >= 500 or reply.status in _RETRYABLE_4XX:
        return ServerFailed(words)
    if reply.status in (400, 413, 422) and _TOO_LONG.search(words):
        return PromptTooLong(words)
    return RequestRefused(words)


def stamps(reply: Reply) -> tuple[str | None, str | None]:
    """The door's: the revision of the model that answered, and the boot of its engine."""
    return reply.headers.get(HEADER_REVISION), reply.headers.get(HEADER_BOOT_ID)
