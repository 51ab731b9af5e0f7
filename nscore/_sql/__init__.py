"""Questions in SQL: what may be asked, two engines that answer alike, a cookbook."""

__all__: list[str] = []
