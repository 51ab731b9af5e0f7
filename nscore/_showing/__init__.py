"""What is shown of results: gathered, chosen, drawn."""

__all__: list[str] = []
