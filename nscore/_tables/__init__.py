"""Tables on their way in and out: files, batches, runs of rows, what strangers' files may hold."""

__all__: list[str] = []
