"""Drawing: pieces of pages and of terminals from plain values; no piece knows where its values come from."""

__all__: list[str] = []
