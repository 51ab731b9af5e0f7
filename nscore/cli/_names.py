"""Lists on the command line."""

from __future__ import annotations

import argparse

__all__ = ["names"]


def names(text: str) -> list[str]:
    """A list separated by commas, of at least one name."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError("expected names separated by commas, found none")
    return found
