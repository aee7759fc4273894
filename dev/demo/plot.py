"""The timeline as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from dev.demo.evidence import Evidence

COLOURS = {"asleep": "#9db7d5", "awake": "#f2c14e", "scoring": "#2a9d4a", "away": "#d1495b"}


def draw(evidence: Evidence, path: Path) -> None:
    """One row a pod: asleep, awake and away by the engine's own word, scoring by the judgement log."""
    spans = evidence.spans()
    start, end = evidence.window()
    figure, axes = plt.subplots(figsize=(11, 1.6 + 0.7 * len(evidence.pods)), layout="constrained")
    for row, pod in enumerate(evidence.pods):
        for what, height in (("away", 0.6), ("asleep", 0.6), ("awake", 0.6), ("scoring", 0.34)):
            bars = [(s.start - start, s.end - s.start) for s in spans if s.pod == pod and s.what == what]
            axes.broken_barh(bars, (row - height / 2, height), facecolors=COLOURS[what])
    for step in range(1, evidence.steps + 1):
        if lines := evidence.of_step(step):
            first = min(j["started"] for j in lines) - start
            axes.axvline(first, color="#444444", linewidth=0.8, linestyle=":")
            axes.text(first, -0.62, f" step {step}", fontsize=9, va="bottom", color="#444444")
    axes.set_yticks(range(len(evidence.pods)), evidence.pods, fontsize=9)
    axes.set_xlim(0, end - start)
    axes.set_ylim(len(evidence.pods) - 0.5, -0.7)
    axes.set_xlabel("seconds")
    axes.set_title(f"{evidence.engine}: awake only while the run scores", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(facecolor=colour, label=what) for what, colour in COLOURS.items()]
    figure.legend(handles=handles, ncols=4, loc="outside lower right", fontsize=9, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
