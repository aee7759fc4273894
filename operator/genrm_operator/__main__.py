"""`python -m genrm_operator`: run the operator with what the environment says."""

from __future__ import annotations

import kopf

from genrm_operator import logs
from genrm_operator.errors import ConfigurationError
from genrm_operator.handlers import register
from genrm_operator.settings import Settings


def main() -> None:
    try:
        settings = Settings.from_environment()
    except ConfigurationError as error:
        raise SystemExit(f"genrm-operator: {error}") from error
    logs.configure(settings.log_format, settings.log_level)
    registry = kopf.OperatorRegistry()
    register(registry, settings)
    kopf.run(
        registry=registry,
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
    )


if __name__ == "__main__":
    main()
