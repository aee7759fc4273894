"""Reports side by side, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from genrm_cli.verdicts import Report


def table(reports: Sequence[Report]) -> Table:
    """One column a judge."""
    made = Table(title=f"{reports[0].pairs} pairs", title_justify="left")
    made.add_column("")
    for report in reports:
        made.add_column(report.judge, justify="right")
    for name, cells in rows(reports):
        made.add_row(name, *cells)
    return made


def rows(reports: Sequence[Report]) -> list[tuple[str, list[str]]]:
    return [
        ("accuracy", [_accuracy(report) for report in reports]),
        ("ties", [_share(report.ties) for report in reports]),
        ("same in both orders", [_share(report.consistency) for report in reports]),
        ("prefers the first by", [_signed(report.first) for report in reports]),
        ("pairs without an answer", [f"{report.pairs - report.answered}" for report in reports]),
        ("judgements that failed", [_failed(report) for report in reports]),
        ("requests", [f"{report.calls}" for report in reports]),
        ("tokens a judgement, in + out", [_tokens(report) for report in reports]),
        ("seconds a judgement", [f"{report.seconds:.2f}" for report in reports]),
    ]


def curves(reports: Sequence[Report], path: Path) -> None:
    """How often each judge was right, against how sure it was, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), constrained_layout=True)
    for report in reports:
        axes.plot(
            [point.sure for point in report.curve], [point.right for point in report.curve], "o-", label=report.judge
        )
    axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="how sure it was: |difference of scores|, or of preferences",
        ylabel="share of pairs in which it was right",
        ylim=(0, 1.02),
    )
    axes.legend()
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
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(report.failed.items())) or "0"


def _tokens(report: Report) -> str:
    if report.prompt_tokens is None or report.completion_tokens is None:
        return "-"
    return f"{report.prompt_tokens:.0f} + {report.completion_tokens:.0f}"
