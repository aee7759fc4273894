"""Names of the files in a folder of tiny models. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    root: Path

    @property
    def policy(self) -> Path:
        """What GRPO trains: a causal language model in float32."""
        return self.root / "policy"

    @property
    def judge(self) -> Path:
        """What judges: a causal language model in bfloat16, with a chat template; vLLM serves it."""
        return self.root / "judge"

    @property
    def classifier(self) -> Path:
        """A reward model: the judge's body with a head of one label in bfloat16; vLLM and SGLang serve it."""
        return self.root / "classifier"

    @property
    def prompts(self) -> Path:
        """Toy prompts as verl reads them."""
        return self.root / "prompts.parquet"
