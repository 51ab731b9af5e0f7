"""What every test counts on, however the tests were started."""

from __future__ import annotations

import gc
import signal

# What takes long comes first: where several processes share the tests, none is left with it at the end.
LONG = ["tests/executors/", "tests/test_readme.py", "tests/holding/", "tests/test_pages.py", "tests/engine/"]

# A shell that starts them in the background has them, and all that they start, pass over Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: next((i for i, long in enumerate(LONG) if item.nodeid.startswith(long)), len(LONG)))


def pytest_collection_finish():
    gc.collect()
    gc.freeze()
