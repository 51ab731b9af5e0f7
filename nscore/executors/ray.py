"""`ray`: tasks on a Ray cluster, an existing one or one that is started on this machine."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from nscore.errors import ExecutorError, NscoreError, SettingError
from nscore.executors._protocol import cores, executor

__all__ = ["Ray"]

J = TypeVar("J")
R = TypeVar("R")

ATTEMPTS = 3
PATIENCE_S = 15.0


@executor("ray")
@dataclass(frozen=True, slots=True)
class Ray:
    """Works on a Ray cluster, a task a job; tasks of lost workers are run again.

    What jobs read and write must be to be reached from every machine: a shared folder, or an object store. Where it all
    ends early, the jobs that are out, two a worker at most, are waited for, up to 15 seconds.

    Args:
        workers: how many jobs at a time; as many as the cluster has processors, if left out.
        address: of the cluster, as `ray.init` takes it; left out, what `RAY_ADDRESS` says, else a cluster on this machine.
    """

    workers: int = 0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise SettingError(f"workers: found {self.workers}, expected 1 or more")
        ray = _ray()
        if not ray.is_initialized():
            try:
                if self.address is None:
                    ray.init(
                        num_cpus=self.workers or cores(),
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level="ERROR",
                    )
                else:
                    ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, ValueError, RuntimeError) as error:
                said = str(error).split("\n", maxsplit=1)[0]
                raise ExecutorError(f"ray at {self.address or 'this machine'}: {said}") from error
        if not self.workers:
            object.__setattr__(self, "workers", max(1, int(ray.cluster_resources().get("CPU", 1))))

    @property
    def name(self) -> str:
        """`ray`."""
        return "ray"

    def each(self, work: Callable[[J], R], jobs: Iterable[J]) -> Generator[R, None, None]:
        """See `Executor.each`."""
        ray = _ray()
        task = ray.remote(max_retries=ATTEMPTS, num_cpus=1)(work)
        rest = iter(jobs)
        waiting: deque[Any] = deque(task.remote(job) for job in itertools.islice(rest, 2 * self.workers))
        try:
            while waiting:
                try:
                    result = ray.get(waiting[0])
                except ray.exceptions.RayTaskError as error:
                    cause = error.cause
                    raise (cause if isinstance(cause, NscoreError) else error) from None
                except ray.exceptions.RayError as error:
                    said = str(error).split("\n", maxsplit=1)[0]
                    raise ExecutorError(f"ray lost the workers of a job {ATTEMPTS + 1} times: {said}") from error
                waiting.popleft()
                waiting.extend(task.remote(job) for job in itertools.islice(rest, 1))
                yield result
        finally:
            _let_end(list(waiting))


def _let_end(tasks: list[Any]) -> None:
    """Waits for tasks whose results nobody wants.

    They are not cancelled: where one ends in that very moment, Ray takes this process down with it.
    """
    ray = _ray()
    if not tasks or not ray.is_initialized():
        return
    done, _ = ray.wait(tasks, num_returns=len(tasks), timeout=PATIENCE_S)
    for each in done:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(each)  # an error that nobody fetches would be printed


def _ray() -> Any:  # noqa: ANN401  (a module that need not be there)
    try:
        import ray  # noqa: PLC0415  (an extra)
    except ImportError:
        raise ExecutorError("the executor ray needs the package ray: pip install 'nscore[ray]'") from None
    return ray
