"""The forms of prompts that scripts name: nscore takes the names, and itself sends what the server takes."""

from __future__ import annotations

from enum import Enum

__all__ = ["PromptFormat", "Role"]


class Role(str, Enum):  # noqa: UP042  (the original's)
    """Who speaks in a conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class PromptFormat(str, Enum):  # noqa: UP042
    """How the original writes a prompt. `HARMONY_V4` and `CHAT_MESSAGES` are an older and a later name of conversations."""

    NONE = "none"
    INSTRUCTION_FOLLOWING = "instruction_following"
    HARMONY_V4 = "harmony_v4"
    CHAT_MESSAGES = "chat_messages"

    @classmethod
    def from_string(cls, s: str) -> PromptFormat:
        """The form of that name; a `ValueError` where there is none."""
        return cls(s)
