"""Folders of other systems' files and of tables: parts brought together, whole neurons taken out, published scores matched."""

__all__: list[str] = []
