"""`python -m pyrokernel.kernel`: a spawned kernel; its birth is JSON on stdin. Runs in the kernel process."""

import json
import sys

from pyrokernel.again import taken
from pyrokernel.kernel.process import main
from pyrokernel.messages import KernelBirth

if __name__ == "__main__":
    main(KernelBirth.from_wire(taken(json.loads(sys.stdin.read()))), preload=True)
