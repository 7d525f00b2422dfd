"""Models by name: a zoo made on the spot, published files by digest, the user's own paths."""

from __future__ import annotations

from models.registry import DEFAULT_MODEL, Source, is_here, resolve, table

__all__ = ["DEFAULT_MODEL", "Source", "is_here", "resolve", "table"]
