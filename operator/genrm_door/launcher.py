"""The command of an engine pod: put the door into the engine's server, then become that server.

    python3 /genrm/door/genrm_door.pyz launcher --engine vllm|sglang -- <the engine's own arguments>

It adds what the door needs and nothing else; model, port and the rest stand on the command line that the operator
wrote. What it adds comes last, because the engine believes the last word and the last middleware is the outermost.
It stays one process: `exec` keeps the process id, so signals and exit codes are the engine's own. With
`GENRM_START_GATE=1`, or where an engine has run before in this container (`rebirth`), it first waits at the engine's
port until the operator lets it go on (`gate`). Last of all it looks up which commit the model's branch is now, and
gives the engine that (`weights`).

It runs as a script, from the archive or from its folder, and uses nothing but the standard library.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence

ENGINES = ("vllm", "sglang")
DEFAULT_PORTS = {"vllm": 8000, "sglang": 30000}


def engine_command(
    engine: str, args: Sequence[str], environ: Mapping[str, str], *, python: str, root: str
) -> tuple[list[str], dict[str, str]]:
    """The argv and environment to become. `root` is where `genrm_door` is imported from.

    Raises:
        ValueError: there is no door for this engine.
    """
    if engine not in ENGINES:
        raise ValueError(f"no door for engine {engine!r}: it is one of {', '.join(ENGINES)}")
    env = dict(environ)
    path = [root, *(p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p and p != root)]
    env["PYTHONPATH"] = os.pathsep.join(path)
    if engine == "sglang":
        return _sglang(args, env, python)
    env["GENRM_ENGINE"] = engine
    env["VLLM_SERVER_DEV_MODE"] = "1"  # the sleep routes exist only with it; the door is what makes that bearable
    return [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",  # deprecated in 0.32, but every version has it
        *args,
        "--api-server-count=1",  # the door's state lives in one process
        "--middleware=genrm_door.asgi.Door",
    ], env


def _sglang(args: Sequence[str], env: dict[str, str], python: str) -> tuple[list[str], dict[str, str]]:
    """`sglang_server` puts the door in; what would start another server than the one that it wraps is turned off."""
    env["GENRM_ENGINE"] = "sglang-embedding" if "--is-embedding" in args else "sglang"
    env["SGLANG_RUST_SERVER"] = "0"
    env.pop("SGLANG_GRPC_PORT", None)
    return [
        python,
        "-m",
        "genrm_door.sglang_server",
        *args,
        "--tokenizer-worker-num=1",  # the door's state lives in one process
        # SGLang's own warm-up is a client that the closed door turns away; the operator asks the first question.
        "--skip-server-warmup",
    ], env


def main(argv: Sequence[str]) -> None:
    own, separator, rest = _split(argv)
    parser = argparse.ArgumentParser(prog="launcher.py", description="Start an engine behind the genrm door.")
    parser.add_argument("--engine", required=True, choices=ENGINES)
    options = parser.parse_args(own)
    if not separator:
        parser.error("put the engine's arguments behind --")
    # The archive, or the folder that the package is in. Not realpath: a ConfigMap mount is made of links into a hidden
    # folder with another name.
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    sys.path.insert(0, root)
    from genrm_door import alive, gate, rebirth
    from genrm_door.birth import birth
    from genrm_door.settings import PAST_ENV, WEIGHTS_ENV, Settings
    from genrm_door.weights import look_up

    past, folder = os.environ.get(PAST_ENV), os.environ.get(alive.RUN_DIR_ENV)
    alive.forget(folder)
    if past is not None:
        rebirth.bury()
    _, env = engine_command(options.engine, rest, birth(os.environ), python=sys.executable, root=root)
    if past is not None or env.get(gate.START_GATE_ENV) == "1":
        waiting = Settings.from_env({**env, PAST_ENV: past or ""})
        env[PAST_ENV] = gate.wait(waiting, *listens(options.engine, rest))
        alive.begin_to_load(folder)
    # As number 1 of its container it would otherwise hear of no end while it asks the hub.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    weights, rest = look_up(rest, env)
    env[WEIGHTS_ENV] = weights.to_json()
    command, env = engine_command(options.engine, rest, env, python=sys.executable, root=root)
    env = rebirth.remembering(env)
    sys.stderr.write(f"genrm: starting {' '.join(command[1:])}\n")
    sys.stderr.flush()
    os.execve(command[0], command, env)


def listens(engine: str, args: Sequence[str]) -> tuple[str, int]:
    """Where the engine will listen, by its arguments: the host (empty: everywhere) and the port."""
    found = {"--host": "", "--port": str(DEFAULT_PORTS[engine])}
    for at, word in enumerate(args):
        flag, separator, value = word.partition("=")
        if flag in found:
            found[flag] = value if separator else args[at + 1]
    return ("" if found["--host"] == "0.0.0.0" else found["--host"]), int(found["--port"])


def _split(argv: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    """What stands before the first `--`, whether there is one, and what stands behind it."""
    if "--" not in argv:
        return list(argv), False, []
    at = list(argv).index("--")
    return list(argv[:at]), True, list(argv[at + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
