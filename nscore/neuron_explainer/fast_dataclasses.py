"""The base of the original's dataclasses, and their JSON: `dumps` writes it, `loads` reads it."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

import msgspec

from nscore.errors import SourceError
from nscore.neuron_explainer._files import made, plain

__all__ = ["FastDataclass", "dumps", "loads", "register_dataclass"]

Class = TypeVar("Class", bound=type)

FORMER = {"ScoredExplanationOrBaseline": "ScoredExplanation"}
_BY_NAME: dict[str, type] = {}


@dataclass
class FastDataclass:
    """A dataclass that knows its own name, so that it is known again in a file."""

    dataclass_name: str = field(init=False, default="", repr=False)

    def __post_init__(self) -> None:
        self.dataclass_name = type(self).__name__


def register_dataclass(cls: Class) -> Class:
    """Makes a dataclass known to `loads`."""
    if not is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is no dataclass")
    _BY_NAME[cls.__name__] = cls
    return cls


def dumps(obj: object) -> bytes:
    """A dataclass, or anything made of them, as JSON; NaN becomes null, as the original writes it.

    >>> from nscore.neuron_explainer import ActivationRecord
    >>> dumps(ActivationRecord(["a", " b"], [0.0, 1.5]))
    b'{"dataclass_name":"ActivationRecord","tokens":["a"," b"],"activations":[0.0,1.5]}'
    """
    return msgspec.json.encode(obj, enc_hook=lambda array: array.tolist())  # arrays and numbers of numpy


def loads(s: str | bytes, backwards_compatible: bool = True) -> Any:  # noqa: ANN401, FBT001, FBT002  (the original's)
    """The dataclass that a JSON text holds, by its `dataclass_name` or else by its fields; other JSON as it is.

    Raises:
        SourceError: if it is no JSON, or a field holds something else; without `backwards_compatible` also if a
            `dataclass_name` is not known.

    >>> from nscore.neuron_explainer import ActivationRecord
    >>> loads(dumps(ActivationRecord(["a"], [2.0])))
    ActivationRecord(tokens=['a'], activations=[2.0])
    """
    return _made(plain(s, "the text"), lenient=backwards_compatible)


def _made(content: object, *, lenient: bool) -> object:
    if isinstance(content, list):
        return [_made(each, lenient=lenient) for each in content]
    if not isinstance(content, dict):
        return content
    name = content.get("dataclass_name")
    kind = _BY_NAME.get(FORMER.get(str(name), str(name))) if name is not None else _by_fields(set(content))
    if kind is not None:
        return made(content, kind, "the text")
    if name is not None and not lenient:
        raise SourceError(
            "the text", f"no dataclass is called {name!r}", mend=f"There are {', '.join(sorted(_BY_NAME))}."
        )
    return {k: _made(v, lenient=lenient) for k, v in content.items() if k != "dataclass_name"}


def _by_fields(names: set[str]) -> type | None:
    """The class that has all these fields, and no others that must be there."""
    for kind in _BY_NAME.values():
        given = [f for f in fields(kind) if f.init]
        needed = {f.name for f in given if f.default is MISSING and f.default_factory is MISSING}
        if needed <= names <= {f.name for f in given}:
            return kind
    return None
