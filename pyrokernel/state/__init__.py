"""The state process: one durable mapping with revisions that a whole mesh shares. Runs in the state process.

One thread reads requests, decides, writes, and answers; so every write has its place in one order,
and nothing needs a lock. `engine` decides (revisions, conditions, leases, locks, queues, history),
knows no socket and no SQL, and is tested so. It keeps everything in a `pyrokernel.stores.Store`, which
`opening` opens: `sqlite` with `ahead` in front of it, or one that a plugin brings. `files` holds what is
too large for rows, `parked` who waits; `desk` moves bytes between the sockets and the engine, by the
methods of `service` (those of `stock` for stock clients); `backups` copies and restores, `process` is
the life of it all.

Values are never unpickled here: what a value is, its writer says beside it.

Start at `engine`; docs/design.md says why it is built so, docs/protocol.md what is said.
"""
