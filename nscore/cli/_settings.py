"""A setting is a flag, else the environment (`NSCORE_BY`), else `nscore.toml`, else the default."""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path

from nscore.cli._names import names
from nscore.errors import SettingError

__all__ = ["apply_settings"]

SWITCHES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def apply_settings(parser: argparse.ArgumentParser, command: str) -> None:
    """Makes the environment and the table of the command in `./nscore.toml` the defaults of its flags."""
    shown = [a for a in parser._actions if a.help != argparse.SUPPRESS]  # noqa: SLF001  (the others are refused)
    flags = {a.dest: a for a in shown if a.option_strings and a.dest != "help"}
    for dest, value in _from_file(command).items():
        if dest not in flags:
            raise SettingError(
                f"nscore.toml, [{command}]: no setting is called {dest!r}; there are: {', '.join(flags)}"
            )
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
        raise SettingError(f"nscore.toml: {error}") from error
    if not isinstance(table, dict):
        raise SettingError(f"nscore.toml, {command}: found {table!r}, expected a table [{command}]")
    return {key.replace("-", "_"): value for key, value in table.items()}


def _default(parser: argparse.ArgumentParser, action: argparse.Action, given: object, name: str) -> None:
    """Sets a default as the flag itself would set it: from text, a list of names, or true and false."""
    value: object
    if action.nargs == 0:
        value, expected = SWITCHES.get(str(given).lower()), "true or false"
    elif action.choices is not None:
        value, expected = given if given in action.choices else None, f"one of {', '.join(action.choices)}"
    elif action.type is names:
        listed = isinstance(given, list) and all(isinstance(v, str) for v in given)
        text = ",".join(given) if listed else given  # type: ignore[arg-type]
        expected = "names separated by commas"
        value = names(text) if isinstance(text, str) and text.strip(", ") else None
    else:
        value, expected = _converted(action, given)
    if value is None:
        raise SettingError(f"{name}: found {given!r}, expected {expected}")
    action.required = False
    parser.set_defaults(**{action.dest: value})


def _converted(action: argparse.Action, given: object) -> tuple[object, str]:
    """What the flag makes of a text or a number; None where it can make nothing of it."""
    convert = action.type if callable(action.type) else str
    plain = {int: "a whole number", float: "a number", str: "text", Path: "text"}
    expected = next((words for kind, words in plain.items() if kind is convert), str(action.metavar))
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        return None, expected
    if not isinstance(given, str) and convert not in {int, float}:
        return None, expected
    try:
        return convert(str(given)), expected
    except ValueError:
        return None, expected
