"""A kernel from inside. Runs in the kernel process.

The main thread runs cells, so that signals and GUI or C libraries behave as in a
plain interpreter; when idle it reads the next request itself. Daemon threads answer
what must not wait for a cell: follow, interrupt, complete, inspect, variables.
Descriptors 1 and 2 are files that `capture` reads into the journal.

`interpreter`, `capture`, `completion` and `inspection` are plain Python without a
socket and hold the interesting logic; `service` is the thin object exposed to
callers; `process` puts them together.

Start at `process`, then `service`. Nothing here may import cmd2, rich or numpy.
"""
