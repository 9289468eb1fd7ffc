"""The words of `pyrokernel state`: its subcommands, and what each takes. Runs in the caller's process."""

from __future__ import annotations

from pyrokernel.front.parsing import Actions, Parser, add_action, add_common, begin_actions, count


def add_actions(parser: Parser) -> None:
    """Add the subcommands to the parser of `state`, which alone shows its help."""
    actions = begin_actions(parser)
    for made in (*_add_reading(actions), *_add_writing(actions), *_add_files(actions)):
        add_common(made)


def _add_json(parser: Parser, text: str = "answer in JSON") -> None:
    parser.add_argument("--json", action="store_true", help=text)


def _add_space(parser: Parser) -> None:
    parser.add_argument("--space", default="", metavar="NAME", help="namespace (default: the common one)")


def _add_reading(actions: Actions) -> list[Parser]:
    listing = add_action(
        actions,
        "ls",
        "state:ls",
        "list keys with type, size, summary, author, age and revision",
    )
    listing.add_argument("prefix", nargs="?", default="", metavar="PREFIX", help="only keys that begin so")
    listing.add_argument(
        "-n",
        dest="number",
        type=count,
        metavar="N",
        help="at most so many (default: 200 on a terminal, elsewhere all)",
    )
    get = add_action(actions, "get", "state:get", "print a value: text as it is, all else as Python writes it")
    get.add_argument("key", metavar="KEY", help="which")
    form = get.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON; an array as lists")
    form.add_argument("--raw", action="store_true", help="text or bytes to the last byte, without a newline behind")
    history = add_action(actions, "history", "state:history", "list the last writes to a key, newest first")
    history.add_argument("key", metavar="KEY", help="which")
    history.add_argument("-n", dest="number", type=count, default=100, metavar="N", help="so many (default: 100)")
    diff = add_action(actions, "diff", "state:diff", "show how a value differs between two revisions")
    diff.add_argument("key", metavar="KEY", help="which")
    diff.add_argument("old", nargs="?", type=count, metavar="OLD", help="revision (default: the one before NEW)")
    diff.add_argument("new", nargs="?", type=count, metavar="NEW", help="revision (default: what it is now)")
    watch = add_action(
        actions,
        "watch",
        "state:watch",
        "show writes as they come, until Ctrl-C",
        "None is missed from --since on, whatever restarts meanwhile; those that are forgotten by then are an error.",
    )
    watch.add_argument("prefix", nargs="?", default="", metavar="PREFIX", help="only of keys that begin so")
    watch.add_argument(
        "--since", type=count, metavar="REV", help="begin with what followed this revision (default: now)"
    )
    locks = add_action(actions, "locks", "state:locks", "list the locks that are held, and by whom")
    locks.add_argument("--break", dest="broken", metavar="NAME", help="take this one from whoever has it")
    for parser in (listing, history, watch, locks):
        _add_json(parser, "each write as a line of JSON" if parser is watch else "answer in JSON")
    for parser in (listing, get, history, diff, watch, locks):
        _add_space(parser)
    return [listing, get, history, diff, watch, locks]


def _add_writing(actions: Actions) -> list[Parser]:
    setting = add_action(actions, "set", "state:set_key", "set a key")
    setting.add_argument("key", metavar="KEY", help="which")
    setting.add_argument("value", metavar="VALUE", help="a Python literal, such as 3, [1, 2] or 'x'; all else is text")
    setting.add_argument("--json", action="store_true", help="VALUE is JSON")
    removing = add_action(actions, "rm", "state:rm", "delete keys, all of them or none")
    removing.add_argument("keys", nargs="+", metavar="KEY", help="which")
    undo = add_action(
        actions, "undo", "state:undo", "bring back what a key was before its last write; again, what it was before that"
    )
    undo.add_argument("key", metavar="KEY", help="which")
    for parser in (setting, removing, undo):
        _add_space(parser)
    return [setting, removing, undo]


def _add_files(actions: Actions) -> list[Parser]:
    export = add_action(
        actions, "export", "state_files:export", "write keys to a file, with their types, authors and times"
    )
    export.add_argument("file", metavar="FILE", help="where to; it appears when it is whole")
    export.add_argument("prefix", nargs="?", default="", metavar="PREFIX", help="only keys that begin so")
    importing = add_action(
        actions,
        "import",
        "state_files:import_file",
        "set the keys of a file that export wrote, all of them or none",
        "Whoever imports a file is the author of what it holds: pickled objects in it run code where they are loaded, "
        "so they are taken from a file that you --trust only.",
    )
    importing.add_argument("file", metavar="FILE", help="which")
    importing.add_argument("--replace", action="store_true", help="also keys that are there already")
    importing.add_argument("--trust", action="store_true", help="also pickled objects")
    for parser in (export, importing):
        _add_space(parser)
    backup = add_action(
        actions, "backup", "state_files:backup", "make a backup of all namespaces while they are in use; print where"
    )
    backup.add_argument("name", nargs="?", default="", metavar="NAME", help="how it is called (default: the time)")
    backups = add_action(actions, "backups", "state_files:backups", "list the backups, newest first")
    restore = add_action(
        actions,
        "restore",
        "state_files:restore_backup",
        "put a backup in place of the shared state, which is kept aside",
        "The process of the shared state is ended for that, and started again by the next use. It works without a "
        "mesh, too. On a terminal it asks first. Revisions go on beyond all that were given out before.",
    )
    restore.add_argument("backup", metavar="BACKUP", help="name or folder of a backup")
    restore.add_argument("--yes", action="store_true", help="do not ask")
    status = add_action(
        actions, "status", "state_files:status", "say where the shared state is kept, how much it is, and how safe"
    )
    for parser in (backups, status):
        _add_json(parser)
    return [export, importing, backup, backups, restore, status]
