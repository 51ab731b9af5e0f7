"""Every error that nscore raises on purpose.

```
NscoreError
├── TableError          a table is not what its stage needs (also a ValueError)
├── SourceError         a file of another system that cannot be read as its format (also a ValueError)
├── LeakError           a record that an explanation's author was shown would be scored
├── CalibrationError    a fit that would touch the tokens it is judged on, or has nothing to fit
├── PoolError           sequence scores that cannot be merged into one score
├── SimulatorError      simulators that cannot be run as they were named
├── BackendError        a model server that cannot do, or will not, what the run needs
├── ReplyError          a reply that holds no answer: it becomes a status, and no run ends by it
├── LimitError          a request larger than a limit it would have to keep (also a ValueError)
├── OutageError         a server that has not answered for long
├── RunError            a run directory that this run cannot go on with
│   └── JournalError    its journal cannot be read or written
├── ExecutorError       workers of a shard that were lost again and again, or a cluster that is not there
├── StorageError        a file that the disk does not take: full, read-only, broken
├── QueryError          a question in SQL that cannot be answered (also a ValueError)
├── SettingError        a setting on the command line's way in (file or environment) that is wrong
└── UnknownNameError    a metric, simulator or method that nobody registered (also a LookupError)
```

A message says what was found, where (file, row, column), what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BackendError",
    "CalibrationError",
    "ExecutorError",
    "JournalError",
    "LeakError",
    "LimitError",
    "NscoreError",
    "OutageError",
    "PoolError",
    "QueryError",
    "ReplyError",
    "RunError",
    "SettingError",
    "SimulatorError",
    "SourceError",
    "StorageError",
    "TableError",
    "UnknownNameError",
]


class NscoreError(Exception):
    """The base of every error that nscore raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # from the process of a worker to the one that waits, whatever the class is made with
        return _same, (type(self), self.args, self.__dict__)


def _same(kind: type[NscoreError], args: tuple[object, ...], state: dict[str, object]) -> NscoreError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class TableError(NscoreError, ValueError):
    """A table is not what its stage needs.

    Attributes:
        problem: the kind of fault, e.g. `"missing column"`, `"gap in positions"`.
        where: the file (or `"the frame"`) and, where one row is at fault, its number counted from 0.
        column: the column at fault, if it is one.
    """

    def __init__(self, problem: str, where: str, *, found: str, mend: str, column: str | None = None) -> None:
        self.problem, self.where, self.column = problem, where, column
        place = where if column is None else f"{where}, column {column!r}"
        super().__init__(f"{place}: {problem}: {found}. {mend}")


class SourceError(NscoreError, ValueError):
    """A file of another system that cannot be read as its format.

    Attributes:
        path: the file.
        place: where in it, as its format says it: a JSON path, a line, a row and a column.
        found: what is wrong there.
    """

    def __init__(self, path: str, found: str, *, place: str = "", mend: str = "") -> None:
        self.path, self.place, self.found = path, place, found
        super().__init__(f"{path}{f', {place}' if place else ''}: {found.rstrip('.')}. {mend}".rstrip())


class LeakError(NscoreError):
    """A record that an explanation's author was shown would be scored."""


class CalibrationError(NscoreError):
    """A calibration would be fitted on the tokens it is judged on, or has nothing to be fitted on."""


class PoolError(NscoreError):
    """Sequence scores that cannot be merged into one score."""


class QueryError(NscoreError, ValueError):
    """A question in SQL that cannot be answered: it is no SQL, names what is not there, or would do more than read."""


class SimulatorError(NscoreError, ValueError):
    """Simulators that cannot be run as they were named."""


class BackendError(NscoreError):
    """A model server that cannot do what the run needs, or will not: a bad key, no such model, no logprobs."""


class LimitError(NscoreError, ValueError):
    """A request larger than a limit that it would have to keep: waiting would not help."""


class OutageError(NscoreError):
    """A server that has not answered for long; what was stored stays."""


class RunError(NscoreError):
    """A run directory that this run cannot go on with."""


class JournalError(RunError):
    """A run's journal that cannot be read or written."""


class ExecutorError(NscoreError):
    """Workers of shards that were lost again and again, or a cluster that cannot be reached."""


class StorageError(NscoreError):
    """A file that the disk does not take: it is full, read-only or broken."""


class ReplyError(NscoreError):
    """A reply that holds no answer; it ends as a status of the tokens that it was to be about.

    Attributes:
        status: that status.
        again: whether the same request, sent once more, may well be answered.
    """

    def __init__(self, status: str, found: str, *, again: bool = False) -> None:
        self.status, self.again = status, again
        super().__init__(found)


class SettingError(NscoreError, ValueError):
    """A setting in `nscore.toml` or the environment that is wrong."""


class UnknownNameError(NscoreError, LookupError):
    """A name that nobody registered; the message lists the names there are."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"no {kind} is called {name!r}.{hint} There are: {', '.join(names)}.")
