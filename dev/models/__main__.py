"""`python -m dev.models OUT_DIR`: make the tiny models unless they are there; print the folder."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from dev.cache import atomic_dir, locked
from dev.models import Layout


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    root = Path(arguments[0]).absolute()
    version = hashlib.sha256(Path(__file__).with_name("tiny.py").read_bytes()).hexdigest()
    mark = root / "version"
    with locked(f"models-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"):
        if not mark.is_file() or mark.read_text() != version:
            if root.exists() and not mark.is_file():
                print(f"{root} holds something else: remove it, or name another folder", file=sys.stderr)
                return 1
            from dev.models.tiny import write  # torch and transformers: seconds, and only needed here

            shutil.rmtree(root, ignore_errors=True)
            with atomic_dir(root) as fresh:
                write(fresh)
                (fresh / "version").write_text(version)
    print(Layout(root).root)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
