"""The entropy coder without a container, for experts: no promise of stability."""

from __future__ import annotations

from ._narrows import SymbolCoder

__all__ = ["SymbolCoder"]
