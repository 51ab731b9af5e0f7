"""Resampling of records, bounds of scores, two sides on the same records."""

__all__: list[str] = []
