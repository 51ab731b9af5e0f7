"""A setting is a flag, else the environment (`NSCORE_BY`), else `nscore.toml`, else the default."""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path

from nscore.errors import NscoreError

__all__ = ["apply_settings"]


def apply_settings(parser: argparse.ArgumentParser, command: str) -> None:
    """Makes the environment and the table of the command in `./nscore.toml` the defaults of its flags."""
    flags = {a.dest: a for a in parser._actions if a.option_strings and a.dest != "help"}  # noqa: SLF001
    for dest, value in _from_file(command).items():
        if dest not in flags:
            raise _wrong(f"nscore.toml, [{command}]: no setting is called {dest!r}; there are: {', '.join(flags)}")
        _default(parser, flags[dest], value, f"nscore.toml, [{command}] {dest}")
    for dest, action in flags.items():
        name = f"NSCORE_{dest.upper()}"
        if name in os.environ:
            _default(parser, action, os.environ[name], name)


def _from_file(command: str) -> dict[str, object]:
    file = Path("nscore.toml")
    if not file.is_file():
        return {}
    try:
        table = tomllib.loads(file.read_text("utf-8")).get(command, {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(f"nscore.toml: {error}") from error
    return {key.replace("-", "_"): value for key, value in table.items()}


def _default(parser: argparse.ArgumentParser, action: argparse.Action, value: object, name: str) -> None:
    if action.nargs == 0:
        value = value if isinstance(value, bool) else str(value).lower() in {"1", "true", "yes", "on"}
    elif callable(action.type) and not isinstance(value, list):
        value = action.type(str(value))
    if action.choices is not None and value not in action.choices:
        raise _wrong(f"{name}: found {value!r}, expected one of {', '.join(map(str, action.choices))}")
    action.required = False
    parser.set_defaults(**{action.dest: value})


def _wrong(message: str) -> NscoreError:
    return NscoreError(message)
