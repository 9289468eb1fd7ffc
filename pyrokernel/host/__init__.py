"""The supervisor of one machine. Runs in the host process, once per mesh and machine.

It starts kernels (forked from a warm template, or spawned), the gateway where other machines are to come in
and, at its first use, the process of the shared state. It knows of every death at once and says why, restarts
by policy, keeps the names at the name server true, and adopts the living processes of a predecessor that died.
It never runs user code, and no call passes through it: when it is gone, kernels and clients go on.

`policy` decides without touching anything; the supervisor acts. `roles` names, as
strings, the entry points that the host can start: the one reference to a sibling room. `recorder`
writes down who ran what, from the journals of the kernels.

Start at `process`, then `policy`.
"""
