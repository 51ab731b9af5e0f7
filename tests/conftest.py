"""What every test counts on, however the tests were started."""

from __future__ import annotations

import signal

# A shell that starts them in the background has them, and all that they start, pass over Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
