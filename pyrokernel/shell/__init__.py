"""The interactive front end. Runs in the shell process, at a terminal.

A cmd2 application: commands are words, everything else is Python and goes to the
current group. Multi-line blocks, TAB on the kernel's live names (also while a cell
runs), Ctrl-C that interrupts the cell and not the shell, equal replies folded into
one. It holds no state: leave it, and the kernels go on; `pyrokernel shell` comes back.

The only room that imports cmd2, and with it rich and prompt_toolkit, which take a
third of a second to load: nothing that a kernel or a script imports may lead here.

Start at the application class, then the parser that tells Python from commands.
"""
