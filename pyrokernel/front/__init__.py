"""What the `pyrokernel` command does, one module per subcommand. Runs in the caller's process.

    serve      start a host and its kernels, or join the one that runs (`inits` tells of init files); `joining` has
               it join other machines, `over_ssh` start there, `tunnel` reach what cannot be dialled
    ps         what the kernels of the mesh do
    run        send code, show its output as it comes, answer with an exit code
               (`source` reads it, `answers` answers input(), `waiting` says what it waits for)
    ship       code as modules, now and at every save; `unship`
    call       a command of the kernels, with a command line of its own
    commands   which there are (`stub` writes them for type checkers)
    plugins    what is loaded and what failed (`newplugin` writes a package, `subcommands` adds those of plugins)
    cells      what runs, waits and ended last
    logs       replay and follow what kernels printed, also the dead (`lives` lists when each lived)
    refs       references to objects in kernels, and their end
    control    interrupt, restart, stop
    state      the shared state: read, written, followed, undone (`state_words` has its subcommands, `state_files` its
               exports and backups)
    certs      certificates: made, renewed, revoked, shown (`certs_words` has its subcommands)
    policy     who may what, by the policy of this machine
    audit      who did what, when, and how it ended
    nameserver a name server by itself (`nameserver_places` says where it is, `nameserver_files` has its backups,
               `nameserver_status` looks at one, `nameserver_forget` removes the names of a host that is gone)
    shell      hand over to the interactive shell
    demo       the main job on real input, and what survives a kill (`progress` shows how far it is)
    doctor     what is configured, reachable, wrong; how to mend it (`machine` has its local checks, `identities`
               those of certificates)

`parsing` reads command lines, `configured` settings, `environment` what of the surroundings a restricted shell
keeps; `exits` names the exit codes, `reach` finds the mesh, `terminal` and `writer` write; `pyrokernel.texts`
has the words they share with the shell.

Each subcommand is `main(args) -> int`, and raises what it cannot mend: `pyrokernel.cli`
owns the parser and turns errors into one line and an exit code.

These modules are front ends like any other: they use `client` as a user would, ask the
host by its exposed object, and hold no state of their own.
"""
