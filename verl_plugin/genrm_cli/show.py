"""Reports side by side, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from genrm_cli.verdicts import Report

COLUMNS: Final = 3
"""Panels beside each other."""


def table(reports: Sequence[Report]) -> Table:
    """One column a judge."""
    made = Table(title=f"{reports[0].pairs} pairs", title_justify="left")
    made.add_column("", no_wrap=True)
    for report in reports:
        made.add_column(report.judge, justify="right", overflow="fold")
    for name, cells in rows(reports):
        made.add_row(name, *cells)
    return made


def failures(reports: Sequence[Report]) -> list[str]:
    """Of each judge that failed somewhere, why."""
    return [f"{report.judge}: {_failed(report)}, like: {report.like}" for report in reports if report.failed]


def rows(reports: Sequence[Report]) -> list[tuple[str, list[str]]]:
    return [
        ("accuracy", [_accuracy(report) for report in reports]),
        ("ties", [_share(report.ties) for report in reports]),
        ("same in both orders", [_share(report.consistency) for report in reports]),
        ("prefers the first by", [_signed(report.first) for report in reports]),
        ("pairs without an answer", [f"{report.pairs - report.answered}" for report in reports]),
        ("judgements that failed", [_failed(report) for report in reports]),
        ("requests", [f"{report.calls}" for report in reports]),
        ("tokens a judgement", [_tokens(report) for report in reports]),
        ("seconds a judgement", [f"{report.seconds:.2f}" for report in reports]),
    ]


def curves(reports: Sequence[Report], path: Path) -> None:
    """How often each judge was right, against how sure it was, as a PNG. Each has a panel of its own, because each is
    sure on a scale of its own."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(len(reports), COLUMNS)
    rows = -(-len(reports) // columns)
    size = max(3.2 * columns, 4.5), 3.2 * rows + 0.3
    figure, panels = pyplot.subplots(rows, columns, figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes in panels.flat[len(reports) :]:
        axes.set_axis_off()
    for axes, report in zip(panels.flat, reports, strict=False):
        sure, right = [point.sure for point in report.curve], [point.right for point in report.curve]
        spread = [point.error for point in report.curve]
        below, above = map(min, right, spread), (min(1 - r, s) for r, s in zip(right, spread, strict=True))
        axes.errorbar(sure, right, yerr=[list(below), list(above)], fmt="o-", capsize=3)
        axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
        most = max([*sure, 0]) or 1
        axes.set(xlim=(-0.06 * most, 1.06 * most), ylim=(0, 1.04))
        said = f"right in {_accuracy(report)}" if sure else "answered nothing"
        axes.set_title(f"{report.judge}\n{said}", fontsize=10)
    figure.supxlabel("how sure it was: difference of its scores, or of its preferences", fontsize=10)
    figure.supylabel("share of pairs in which it was right", fontsize=10)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _accuracy(report: Report) -> str:
    if report.accuracy is None or report.error is None:
        return "-"
    return f"{report.accuracy:.1%} ± {report.error * 100:.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _failed(report: Report) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(report.failed.items())) or "none"


def _tokens(report: Report) -> str:
    if report.prompt_tokens is None or report.completion_tokens is None:
        return "-"
    return f"{report.prompt_tokens:.0f} in, {report.completion_tokens:.0f} out"
