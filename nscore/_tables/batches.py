"""The rows of a query, batch after batch, as the engine makes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator

import polars as pl

__all__ = ["batches_of"]

WAITING = 4


def batches_of(frame: pl.LazyFrame, chunk_size: int | None = None) -> Generator[pl.DataFrame, None, None]:
    """The batches in order; a few wait to be taken, at most. Whoever does not take them all closes the generator.

    `collect_batches` would be the plain way, and takes a panic of the engine for the end of the rows: a broken file
    would be read up to where it breaks, without a word.
    """
    waiting: queue.Queue[pl.DataFrame | None] = queue.Queue(WAITING)
    stopped = threading.Event()
    errors: list[BaseException] = []

    def put(batch: pl.DataFrame | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(batch, timeout=0.1)
            except queue.Full:
                continue
            return False
        return True

    def run() -> None:
        try:
            frame.sink_batches(put, chunk_size=chunk_size, maintain_order=True, engine="streaming")
        except BaseException as error:  # noqa: BLE001  (a panic is no Exception; it is raised where batches are taken)
            errors.append(error)
        put(None)

    engine = threading.Thread(target=run, name="nscore-batches", daemon=True)
    engine.start()
    try:
        while (batch := waiting.get()) is not None:
            yield batch
    finally:
        stopped.set()
        engine.join()
    if errors:
        raise errors[0]
