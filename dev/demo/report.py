"""The summary that a person reads at the end."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dev.demo.evidence import Check, Evidence, Span

WIDTH = 84
SIGNS = {"scoring": "█", "awake": "▒", "asleep": "·", "away": " "}
COLOURS = {"scoring": "bold green", "awake": "yellow", "asleep": "blue", "away": "red"}


def show(console: Console, evidence: Evidence) -> None:
    console.print()
    console.print(_steps(evidence))
    _outcomes(console, evidence)
    _timeline(console, evidence)


def show_checks(console: Console, checks: list[Check]) -> None:
    console.print("\n[bold]Observed[/]")
    for check in checks:
        mark = "[green]✓[/]" if check.ok else "[red]✗[/]"
        console.print(f"  {mark} {escape(check.name)} [dim]({escape(check.seen)})[/]", highlight=False)


def _steps(evidence: Evidence) -> Table:
    table = Table(title="Training", title_justify="left", title_style="bold")
    for column in ("step", "mean reward", "gradient norm", "judgements", *(_short(pod) for pod in evidence.pods)):
        table.add_column(column, justify="right")
    for number in range(1, evidence.steps + 1):
        per_pod = evidence.per_pod(number)
        table.add_row(
            str(number),
            _at(evidence.training.rewards, number),
            _at(evidence.training.gradients, number),
            str(len(evidence.of_step(number))),
            *(str(per_pod[pod]) for pod in evidence.pods),
        )
    return table


def _at(values: tuple[float, ...], number: int) -> str:
    return f"{values[number - 1]:.3f}" if number <= len(values) else "-"


def _outcomes(console: Console, evidence: Evidence) -> None:
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(evidence.outcomes().items()))
    seconds = sorted(float(j["seconds"]) for j in evidence.judgements)
    middle = f", median {seconds[len(seconds) // 2]:.2f} s, longest {seconds[-1]:.2f} s" if seconds else ""
    console.print(f"\n[bold]Outcomes[/]  {counted or 'none'}; {evidence.retries()} retries{middle}", highlight=False)
    for line in evidence.judgements:
        for failure in line["failures"]:
            where = f"{failure['pod']}: {failure['error']}"
            console.print(f"  retried: step {line['step']}, {escape(where)}, then {line['outcome']}", highlight=False)


def _timeline(console: Console, evidence: Evidence) -> None:
    spans = evidence.spans()
    if not spans:
        return
    start, end = evidence.window()
    legend = "  ".join(f"[{COLOURS[what]}]{sign if sign != ' ' else '□'}[/] {what}" for what, sign in SIGNS.items())
    console.print(f"\n[bold]Engines[/]  last {end - start:.0f} s   {legend}", highlight=False)
    for pod in evidence.pods:
        bar = _bar([s for s in spans if s.pod == pod], start, end)
        drawn = "".join(f"[{COLOURS[what]}]{SIGNS[what]}[/]" for what in bar)
        console.print(f"  {_short(pod)} {drawn}", highlight=False)
        total = evidence.seconds(pod)
        console.print(
            f"  {'':5} asleep {total['asleep']:.1f} s, awake {total['awake']:.1f} s, "
            f"of it scoring {total['scoring']:.1f} s",
            highlight=False,
        )
    console.print("  [dim]seconds of sleep count from the start of the run[/]")


def _bar(spans: list[Span], start: float, end: float) -> list[str]:
    """One state per column: scoring wins over awake, which wins over asleep, so that nothing short is lost."""
    rank = ["away", "asleep", "awake", "scoring"]
    width = (end - start) / WIDTH
    columns = []
    for column in range(WIDTH):
        low, high = start + column * width, start + (column + 1) * width
        here = {s.what for s in spans if s.start < high and s.end > low}
        columns.append(max(here, key=rank.index, default="away"))
    return columns


def _short(pod: str) -> str:
    return pod.rsplit("-", 1)[-1]
