"""`python -m pyrokernel.gateway`: a gateway that was spawned, not forked. Runs in the gateway process."""

import json
import sys

from pyrokernel.gateway.process import main
from pyrokernel.messages import KernelBirth

if __name__ == "__main__":
    main(KernelBirth.from_wire(json.load(sys.stdin)))
