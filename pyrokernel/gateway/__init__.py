"""The gateway: the one process of a machine that other machines talk to. Runs in a process of its own.

It holds the key of the host, and nothing else that is worth having: kernels, host and shared state listen on unix
sockets as on any machine. Whoever comes in has shown a certificate; `visitors` finds out who that is, what the
policy lets them do and which socket they want, and introduces them there. Then bytes are pumped, and not looked at. The
other way processes of this machine are let through to other gateways.

`newcomers` are those of whom nothing is known yet, `routes` says where they want to go, `decisions` what they may do
(`questions` are how it asks what may hang), and `pump` moves their bytes.

Start at `gateway` for the loop, at `visitors` for who gets in.
"""
