"""Certificates of a mesh across machines: its own authority, made with the `cryptography` package.

    making      what stands in a certificate

Runs in the caller's process, for `pyrokernel certs`. To use an identity, `pyrokernel.wire.identity` suffices, which
needs the standard library only.
"""
