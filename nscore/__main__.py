"""`python -m nscore` is the command `nscore`."""

import sys

from nscore.cli import main

if __name__ == "__main__":
    sys.exit(main())
