"""`python -m genrm_operator`: run the operator with what the environment says."""

from __future__ import annotations

import logging
import sys

import kopf

from genrm_operator.errors import ConfigurationError
from genrm_operator.handlers import register
from genrm_operator.settings import Settings


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    for noisy in ("aiohttp.access", "httpx", "kopf.objects", "kopf.activities"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        settings = Settings.from_environment()
    except ConfigurationError as error:
        raise SystemExit(f"genrm-operator: {error}") from error
    registry = kopf.OperatorRegistry()
    register(registry, settings)
    kopf.run(
        registry=registry,
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
    )


if __name__ == "__main__":
    main()
