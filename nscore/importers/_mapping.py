"""What a user says of a table's columns: which of them is which of nscore's, and what is the same in every row."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nscore.errors import SettingError

__all__ = ["Constant", "Said", "constants_of", "pairs_of"]

Constant = str | int | float | bool
Said = str | Mapping[str, Constant]


def pairs_of(option: str, said: Said) -> dict[str, str]:
    """Names by name, of `{"neuron": "feature"}` or `"neuron=feature,activation=act"`.

    Raises:
        SettingError: if it is neither.

    >>> pairs_of("columns", "neuron=feature, activation=act")
    {'neuron': 'feature', 'activation': 'act'}
    """
    if not isinstance(said, str):
        pairs = {str(name): str(value) for name, value in said.items()}
    else:
        parts = [part.partition("=") for part in said.split(",") if part.strip()]
        pairs = {name.strip(): value.strip() for name, _, value in parts}
        if len(pairs) < len(parts):
            raise SettingError(f"{option}: found {said!r}, in which a name stands twice")
    if not all(pairs.keys()) or not all(pairs.values()):
        raise SettingError(f"{option}: found {said!r}, expected NAME=VALUE pairs, separated by commas")
    return pairs


def constants_of(option: str, said: Said) -> dict[str, Constant]:
    """Values by name; what is written as a number is one.

    >>> constants_of("constants", "layer=5,model=gpt2")
    {'layer': 5, 'model': 'gpt2'}
    """
    if not isinstance(said, str):
        for name, value in said.items():
            if not isinstance(value, Constant):
                raise SettingError(
                    f"{option}: found {value!r} for {name!r}, expected a text, a number or a truth value"
                )
        return dict(said)
    return {name: _valued(value) for name, value in pairs_of(option, said).items()}


def _valued(text: str) -> Constant:
    if re.fullmatch("0|-?[1-9][0-9]{0,17}", text):
        return int(text)
    if re.fullmatch(r"-?[0-9]+\.[0-9]+(e-?[0-9]{1,2})?", text):
        return float(text)
    return text
