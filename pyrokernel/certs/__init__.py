"""Certificates of a mesh across machines: its own authority, made with the `cryptography` package.

    authority   its directory: issue, renew, revoke
    making      what stands in a certificate
    crl         lists of what was revoked
    index       what was issued
    bundles     identity directories, and their environment for stock tools
    facts       what can be said of a certificate
    files       written whole, private, by one command at a time

Runs in the caller's process, for `pyrokernel certs`; `bundles`, `crl` and `files` also in hosts, gateways and name
servers, which take up what was revoked. To use an identity, `pyrokernel.wire.identity` suffices, which needs the
standard library only.
"""
