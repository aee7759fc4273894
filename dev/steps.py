"""Says what is being done while it is done: one line a step, with its seconds, and what was found in the cache."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape


class Steps:
    """Prints to a console; in a terminal the running step has a spinner."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = time.monotonic()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Run one step. Notes that the block appends to the yielded list are printed behind its seconds."""
        began, notes = time.monotonic(), list[str]()
        try:
            with self.console.status(f"{escape(name)} …") if self.console.is_terminal else contextlib.nullcontext():
                yield notes
        except BaseException:
            self._line("[red]✗[/]", name, time.monotonic() - began, notes)
            raise
        self._line("[green]✓[/]", name, time.monotonic() - began, notes)

    def done(self, name: str, seconds: float, cached: bool) -> None:
        """A step that somebody else timed."""
        self._line("[green]✓[/]", name, seconds, ["cached"] if cached else [])

    def _line(self, mark: str, name: str, seconds: float, notes: list[str]) -> None:
        behind = f"  [dim]{escape(', '.join(notes))}[/]" if notes else ""
        self.console.print(f"  {mark} {escape(name):<44} {seconds:7.1f} s{behind}", highlight=False)
