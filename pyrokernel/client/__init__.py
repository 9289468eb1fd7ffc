"""What a user of the library holds. Runs in the caller's process (which may itself be a kernel).

A `Mesh` finds kernels by name, number, pattern or tag; a `Kernel` is a handle to one
instance; a `Group` sends the same thing to several; a `Cell` is an execution in
flight; a `Job` is many calls spread over a group; a `Reference` is a handle to an object
that stays in its kernel; `Shared` is the state that the whole mesh shares.

These objects hold no state that matters: the kernel owns the work, and a handle made
anew tomorrow, in another process, can pick up any cell by its id. They may be used
from any thread and after a fork. Nothing here knows a kernel, host or the state process
from inside.

Everything that waits for a kernel waits in `calls`; `links` and `ears` are its ways to
kernels and hosts, `state_link` is the way to the shared state. Of that `shared_map` is the
dict, with `live` containers, `arrays`, and `augmented` for `+=`; `transactions`, `watches`,
`locks`, `queues`, `past` and `transfer` are the rest. What ends by itself, the lease of a
reference (`holdings`) or of a lock (`leases`), the `keeper` renews.

Start at `mesh`, which has `connect`; `local` is in `launch`.
"""
