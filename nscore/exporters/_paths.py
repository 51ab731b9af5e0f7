"""Names of files from keys: whatever a layer is called, its file lies inside the folder that was asked for."""

from __future__ import annotations

import hashlib
import re

__all__ = ["safe_name"]

# What no file system and no shell takes for anything but a letter of a name.
_PLAIN = re.compile(rb"[A-Za-z0-9._=+-]")
LONGEST = 160


def safe_name(key: object) -> str:
    """A key as the name of one file or folder: what is plain stays, every other byte is written as %XX.

    Two keys have two names. None is empty, begins with a dot, or is longer than file systems allow: the end of a very long one is replaced
    by a digest.

    >>> safe_name("blocks.5.hook_mlp_out"), safe_name("../../x"), safe_name(11)
    ('blocks.5.hook_mlp_out', '%2E.%2F..%2Fx', '11')
    """
    data = str(key).encode("utf-8", "surrogatepass")
    letters = [bytes([byte]) for byte in data]
    spelled = [
        "%" + letter.hex().upper() if not _PLAIN.match(letter) and letter != b"_" else letter.decode()
        for letter in letters
    ]
    if spelled[:1] == ["."]:
        spelled[0] = "%2E"
    name = "".join(spelled)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}~{hashlib.sha256(data).hexdigest()[:32]}"
    return name or "%"
