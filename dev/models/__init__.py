"""Tiny models with random weights, and toy data: real files in real formats, made in seconds, without any download.

`write` is in `tiny`; `LAYOUT` names what lies in a finished folder, for those who have no torch.
"""

from dev.models.layout import Layout

__all__ = ["Layout"]
