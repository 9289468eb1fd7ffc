"""The rows of the table, by subject. Each module registers its experiments when it is imported; see measuring.py."""

SUBJECTS = ("calls", "maps", "fan_out", "bulk", "starting", "printing", "completing", "state", "network", "scaling")
