"""A kernel from inside. Runs in the kernel process.

The main thread runs cells, so that signals and GUI or C libraries behave as in a
plain interpreter; when idle it reads the next request itself. Daemon threads answer
what must not wait for a cell: follow, interrupt, complete, inspect, variables.
Descriptors 1 and 2 are files that `capture` reads into the journal.

Plain Python without a socket, and the interesting logic: `interpreter` runs code and
`interrupts` stops it; `inputs` asks for it, where `attachments` knows of somebody to
answer; `cells` admits, journals and remembers, `layout` says how results are laid out;
`habits` (with `expanding`) and `debugging` are what commands become here; `capture` (with `streams`, `writer`, `spool`,
`drain` and `late`) collects output; `completion` (with `paths`) and `inspection` rest on
`reading`, which looks at objects without running them; `references` is what was lent to
clients, `operations` what they do with it, `restrictions` what a URL reaches, `publications`
what has a name of its own, `pins` what keys of the shared state keep alive. Thin: `requests`
says what is asked for, `service` is the object exposed to callers, `workloop` the main thread,
`process` puts them together.

Start at `process`, then `service`. Nothing here may import cmd2, rich or numpy.
"""
