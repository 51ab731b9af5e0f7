"""The simulation stage from the inside: choice, plan, shards, engine, workers, the folder of a run."""

__all__: list[str] = []
