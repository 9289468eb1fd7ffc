"""What lies between the processes: connections, and who may open them. Runs in every process.

The only room that imports Pyro5; its camelCase and its exceptions stop here. Callers
hand over plain data (`Message.to_wire()`) and get plain data, or an error of ours.

`trust` decides who a peer is and what may be decoded from it; `connection` carries messages; `endpoints` are where
processes of one machine listen (`proofs` is how the portable ones know each other, `sockets` what systems do
differently), `remote` the ways to other machines: with an `identity`, over `tls`, by `socks` where a proxy leads
there; `revoked` knows how new a list of what was revoked has to be, `silence` which machines are not heard of,
`refusals` what a failed handshake means. `greeting` is the first message of a connection, `introduction` whom it
is for; `exposing` marks what may be called, `admission` decides who may, `limits` how often, and `opcodes` reads
what observers send, who may send no pickles. `daemon` serves a kernel's or host's one exposed object; `proxy`
opens the way to one; `fanout` sends one request, encoded once, to many kernels and gathers replies under one
deadline; `direct` is for short ones that are answered in a moment, for which `alertness` stays awake; `codec`
packs Python objects as vectored pickle-5, `large` those with large bytes in them, `plain` those that anybody may
send, `values` those of the shared state, of which `mapped` has large ones in files. `segments` are memory that a
process shares with those it sends large data to, `arrivals` how it looks to them, `copying` how it gets there;
`memory` is what large messages are received into, and `spare` how all of it is kept for next time. `naming` is
access to the name server, `nameserver` the server itself: Pyro's own behind our daemon, with `registration`, who
may hold which name, `names_file`, where names are kept, and `patterns`, which clients may send.

Start at `daemon` for the way in, at `fanout` for the way out, and at
docs/protocol.md for what is said.
"""
