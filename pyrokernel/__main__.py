"""`python -m pyrokernel`: the same as the `pyrokernel` command. Runs in the caller's process."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from pyrokernel.cli import main

    sys.exit(main())
