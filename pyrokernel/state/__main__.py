"""`python -m pyrokernel.state`: a state process that was spawned, not forked. Runs in the state process."""

import json
import sys

from pyrokernel.again import taken
from pyrokernel.messages import KernelBirth
from pyrokernel.state.process import main

if __name__ == "__main__":
    main(KernelBirth.from_wire(taken(json.load(sys.stdin))))
