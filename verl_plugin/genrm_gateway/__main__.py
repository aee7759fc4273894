"""The command `genrm-gateway`; every installation has it, and not every one what it needs."""

from __future__ import annotations

import sys


def main() -> int:
    try:
        from genrm_gateway.main import main as command
    except ModuleNotFoundError as e:
        sys.stderr.write(
            f"genrm-gateway: there is no module {e.name}; install genrm-operator with the extra [gateway]\n"
        )
        return 2
    return command()


if __name__ == "__main__":
    sys.exit(main())
