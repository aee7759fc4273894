"""The door's archive as a command: `python3 genrm_door.pyz launcher|router|terminate|alive <arguments of that one>`."""

import runpy
import sys

SCRIPTS = ("launcher", "router", "terminate", "alive")


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in SCRIPTS:
        sys.exit(f"usage: genrm_door.pyz {'|'.join(SCRIPTS)} ...")
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(f"genrm_door.{script}", run_name="__main__")


if __name__ == "__main__":
    main()
