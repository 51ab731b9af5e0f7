"""The sets of examples that scripts name: nscore takes the names, and shows examples of its own."""

from __future__ import annotations

from enum import Enum

__all__ = ["FewShotExampleSet"]


class FewShotExampleSet(Enum):
    """The original's sets of examples; `NEWER` and `COLANGV2` are an older and a later name of one."""

    ORIGINAL = "original"
    NEWER = "newer"
    COLANGV2 = "colangv2"
    TEST = "test"

    @classmethod
    def from_string(cls, s: str) -> FewShotExampleSet:
        """The set of that name; a `ValueError` where there is none."""
        return cls(s)
