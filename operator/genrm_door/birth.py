"""What a start of the container is given before its engine: an identity, and a secret of its own.

The boot id names this start, from the gate to the end of the engine. The secret is how the pod's preStop hook, which
runs in the same container, proves to the door that it is that hook and no neighbour: pods with `hostNetwork`, sidecars
and meshes share the loopback address, but not the folder in which the secret lies. The door knows its digest only.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from genrm_door.alive import RUN_DIR_ENV
from genrm_door.settings import BOOT_ID_ENV, LAUNCH_ENV, LOCAL_ENV, PAST_ENV, WEIGHTS_ENV

SECRET_FILE = "secret"
_OF_ANOTHER_START = frozenset({LAUNCH_ENV, LOCAL_ENV, PAST_ENV, WEIGHTS_ENV})


def birth(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with what belongs to this start. Without `GENRM_RUN_DIR` there is no secret, and no hook.

    Raises:
        OSError: the folder cannot be written to.
    """
    env = {name: value for name, value in environ.items() if name not in _OF_ANOTHER_START}
    env[BOOT_ID_ENV] = secrets.token_hex(8)
    if folder := environ.get(RUN_DIR_ENV):
        secret = secrets.token_hex(32)
        fresh = Path(folder) / f".{secrets.token_hex(8)}"
        with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secret)
        fresh.replace(Path(folder) / SECRET_FILE)  # an earlier start of the container has left its own
        env[LOCAL_ENV] = hashlib.sha256(secret.encode()).hexdigest()
    return env
