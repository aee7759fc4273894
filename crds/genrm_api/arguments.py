"""Engine arguments that nobody may pass around the operator.

`spec.engine.args` is appended to the command line that the operator writes, and both engines read theirs by argparse,
where the last word wins and any unambiguous beginning of an option is that option. So an argument is refused as soon as
it could be read as one of the flags below: those that the operator and the door rest on, those that a typed field sets,
and those that would show a secret to everybody who can read a pod. The lists are of vLLM 0.32 and SGLang 0.5.23.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from genrm_api.rules import Rule, quoted


@dataclass(frozen=True, slots=True)
class Reserved:
    """The flags of one engine."""

    operator: tuple[str, ...]
    """Set by the operator or the door, or apt to take the HTTP server from behind the door."""
    fields: tuple[str, ...]
    """Set by a field of `spec`."""
    secrets: tuple[str, ...]


_VLLM: Final = Reserved(
    operator=(
        "--model",
        "--served-model-name",
        "--host",
        "--port",
        "--uds",
        "--middleware",
        "--api-key",
        "--config",
        "--root-path",
        "--api-server-count",
        "-asc",
        "--enable-sleep-mode",
        "--no-enable-sleep-mode",
        "--headless",
        "--grpc",
        "--grpc-port",
        "--tokens-only",
        "--ssl-keyfile",
        "--ssl-certfile",
        "--ssl-ca-certs",
        "--ssl-cert-reqs",
        "--ssl-ciphers",
        "--data-parallel-rank",
        "--data-parallel-size-local",
        "--data-parallel-start-rank",
        "--data-parallel-external-lb",
        "--data-parallel-hybrid-lb",
        "--data-parallel-multi-port-external-lb",
        "--nnodes",
        "-n",
        "--node-rank",
        "-r",
        "--master-addr",
        "--master-port",
        "-dpr",
        "-dpn",
        "-dpl",
        "-dpe",
        "-dph",
        "-dpm",
    ),
    fields=(
        "--tensor-parallel-size",
        "-tp",
        "--pipeline-parallel-size",
        "-pp",
        "--data-parallel-size",
        "-dp",
        "--dtype",
        "--quantization",
        "-q",
        "--max-model-len",
        "--gpu-memory-utilization",
        "--device-memory-utilization",
        "--chat-template",
        "--revision",
        "--runner",
        "--convert",
    ),
    secrets=("--hf-token",),
)

_SGLANG: Final = Reserved(
    operator=(
        "--model-path",
        "--served-model-name",
        "--host",
        "--port",
        "--fastapi-root-path",
        "--config",
        "--device",
        "--enable-memory-saver",
        "--enable-weights-cpu-backup",
        "--enable-metrics",
        "--tokenizer-worker-num",
        "--enable-http-worker-reuseport",
        "--enable-http2",
        "--smg-grpc-mode",
        "--smg-http-sidecar-port",
        "--grpc-mode",
        "--grpc-port",
        "--grpc-http-sidecar-port",
        "--sidecar",
        "--sidecar-args",
        "--ssl-keyfile",
        "--ssl-keyfile-password",
        "--ssl-certfile",
        "--ssl-ca-certs",
        "--enable-ssl-refresh",
        "--encoder-only",
        "--disaggregation-mode",
        "--use-ray",
        "--nnodes",
        "--node-rank",
        "--dist-init-addr",
        "--nccl-init-addr",
        "--gated-launch-port",
        "--attn-dp-size",
        "--attention-data-parallel-size",
        "--enable-dp-attention",
    ),
    fields=(
        "--tp-size",
        "--tensor-parallel-size",
        "--pp-size",
        "--pipeline-parallel-size",
        "--dp-size",
        "--data-parallel-size",
        "--dtype",
        "--quantization",
        "--context-length",
        "--mem-fraction-static",
        "--chat-template",
        "--revision",
        "--is-embedding",
    ),
    secrets=("--api-key", "--admin-api-key"),
)

RESERVED_ARGS: Final[Mapping[str, Reserved]] = {"vllm": _VLLM, "sglang": _SGLANG}
"""By `spec.engine.name`. An engine of the user's own has none."""


def flag(arg: str) -> str:
    """The option that an argument names, as the engines' parsers read it, or another version's might.

    `--api_key=x` and `--api-key.y` are `--api-key`.
    """
    return arg.split("=")[0].split(".")[0].replace("_", "-")


def names_one_of(given: str, flags: tuple[str, ...]) -> bool:
    """Whether argparse would, or could with another version's options, take `given` for one of `flags`.

    Any beginning of a long option counts, ambiguous or not; `-q` may carry its value without a space; a bare `--` would
    turn what the launcher appends into positionals.
    """
    if len(given) < 2 or not given.startswith("-"):
        return False
    return any(known.startswith(given) or (len(known) == 2 and given.startswith(known)) for known in flags)


def refuse_args(kind: str, sentence: str) -> Rule:
    """A rule of `engine`: none of `args` names a flag of this kind (a field of `Reserved`)."""
    lists = {name: getattr(reserved, kind) for name, reserved in RESERVED_ARGS.items()}
    known = " : ".join(
        f"self.name == '{name}' ? [{', '.join(quoted(flag) for flag in flags)}]" for name, flags in lists.items()
    )
    found = (
        "self.args.map(a, a.split('=', 2)[0].split('.', 2)[0].replace('_', '-'))"
        f".filter(f, f.size() > 1 && f.startsWith('-') && ({known} : [])"
        ".exists(k, k.startsWith(f) || (k.size() == 2 && f.startsWith(k))))"
    )

    def found_wrong(engine: Any) -> str | None:
        flags = lists.get(str(engine.name), ())
        bad = next((f for f in map(flag, engine.args or ()) if names_one_of(f, flags)), None)
        return None if bad is None else f"spec.engine.args: {bad} {sentence}"

    return Rule(
        cel=f"!has(self.args) || {found}.size() == 0",
        message=f"'spec.engine.args: ' + {found}[0] + {quoted(' ' + sentence)}",
        found_wrong=found_wrong,
    )
