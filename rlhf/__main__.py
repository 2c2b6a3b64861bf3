"""`python -m rlhf` is the `rlhf` command: a pipeline starts its stages this way."""

import sys

from rlhf.cli import main

if __name__ == "__main__":
    sys.exit(main())
