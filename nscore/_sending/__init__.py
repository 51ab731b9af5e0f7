"""What stands between the engine and the network, and what is written down of it: limits, retries, transport, journal."""

__all__: list[str] = []
