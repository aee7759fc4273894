"""`genrm`: know a judge before a run trains on it.

genrm eval judge --data preferences.parquet --spec judges.yaml          RewardModels of a file (type External)
genrm eval judge --data preferences.jsonl --namespace rl judge-a judge-b    of the cluster, which wake for it
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path

from genrm_api.leases import Phase
from genrm_api.rewardmodel import RewardModel
from genrm_scoring import spec_file
from genrm_scoring.cluster_code import approved_code
from genrm_scoring.errors import ConfigurationError, GenrmError
from genrm_scoring.labels import refuse_labels_that_it_splits
from genrm_scoring.modules import modules_in
from genrm_scoring.resolve import resolve
from genrm_scoring.targets import Means, key_in, reached, scorer_of
from rich.console import Console
from rich.progress import Progress

from genrm_cli import preferences, show
from genrm_cli.trial import AT_ONCE, tried
from genrm_cli.verdicts import Report, report


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        reports = asyncio.run(_evaluated(given, console))
    except GenrmError as e:
        console.print(f"genrm: {e}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    Console().print(show.table(reports))
    for line in show.failures(reports):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "report.json").write_text(json.dumps([asdict(each) for each in reports], indent=1))
        show.curves(reports, given.out / "calibration.png")
        console.print(f"written: {given.out / 'report.json'} and calibration.png", markup=False, highlight=False)
    return 0 if all(each.answered for each in reports) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="genrm", description="Reward models as Kubernetes resources.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    what = verbs.add_parser("eval", help="try something on data").add_subparsers(dest="what", required=True)
    judge = what.add_parser("judge", help="ask judges about pairs of which the better one is known")
    add = judge.add_argument
    add("judges", nargs="*", metavar="NAME", help="RewardModels; default: all of --spec")
    add("--data", type=Path, required=True, help="Parquet, JSON lines or JSON: prompt, chosen, rejected")
    add("--spec", type=Path, help="file of RewardModels; without it those of the cluster are asked")
    add("--namespace", help="of the cluster's; default: that of the credentials")
    add("--secrets", type=Path, metavar="DIR", help="endpoints' keys: DIR/SECRET/KEY, as Secrets are mounted")
    add(
        "--rules",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="Python file with functions around models",
    )
    add(
        "--allow-cluster-code",
        action="append",
        default=[],
        metavar="SHA256",
        help="of code in a ConfigMap that may run",
    )
    add("--limit", type=int, help="pairs; default: all")
    add("--at-once", type=int, default=AT_ONCE, help="pairs that are asked about at the same time")
    add("--out", type=Path, metavar="DIR", help="for report.json and calibration.png")
    return parser


async def _evaluated(given: argparse.Namespace, console: Console) -> list[Report]:
    """
    Raises:
        GenrmError
    """
    pairs = preferences.read(given.data, given.limit)
    async with AsyncExitStack() as opened:
        means = Means(modules=modules_in(given.rules, "--rules"), rule_processes=os.cpu_count() or 1)
        if given.secrets is not None:
            means = replace(means, key=key_in(given.secrets))
        if given.spec is not None:
            models = _of_file(spec_file.read(given.spec), given.judges)
        else:
            models, means = await _of_cluster(given, means, opened)
        with Progress(console=console, transient=True) as progress:
            return [await _one(rm, means, pairs, given.at_once, progress) for rm in models]


async def _one(
    rm: RewardModel, means: Means, pairs: Sequence[preferences.Preference], at_once: int, progress: Progress
) -> Report:
    bar = progress.add_task(rm.name, total=len(pairs))
    async with reached(rm, means) as way:
        where = f"RewardModel {rm.name} spec.scoring.parse.values"
        await refuse_labels_that_it_splits(rm.spec.scoring, rm.served_name, way.endpoints, way.transport, where)
        trials = await tried(rm, scorer_of(rm, way), pairs, lambda: progress.advance(bar), at_once)
    return report(rm.name, trials)


def _of_file(spec: spec_file.SpecFile, names: Sequence[str]) -> list[RewardModel]:
    for name in names:
        if name not in spec.models:
            raise ConfigurationError("NAME", f"{name} is no RewardModel there; there are {', '.join(spec.models)}")
    models = [spec.models[name] for name in names] if names else list(spec.models.values())
    if not models:
        raise ConfigurationError("--spec", "holds no RewardModel; a RewardFleet is no judge")
    return models


async def _of_cluster(
    given: argparse.Namespace, means: Means, opened: AsyncExitStack
) -> tuple[list[RewardModel], Means]:
    """The models, awake for as long as `opened` is."""
    from genrm_scoring.kubernetes import connect, run_lease

    if not given.judges:
        raise ConfigurationError("NAME", "missing; write the names of RewardModels (kubectl get rm), or --spec")
    cluster = await opened.enter_async_context(connect())
    models = [await resolve(cluster, name, given.namespace) for name in given.judges]
    code: dict[str, str] = {}
    for rm in models:
        code |= await approved_code(cluster, rm, given.allow_cluster_code, "--allow-cluster-code")
    run = f"genrm-eval-{secrets.token_hex(4)}"
    for rm in models:
        if rm.spec.external is None:
            held = run_lease(rm.name, run=run, namespace=rm.namespace)
            (await opened.enter_async_context(held)).set_phase(Phase.SCORING)
    return models, replace(means, cluster=cluster, code=code)


if __name__ == "__main__":
    sys.exit(main())
