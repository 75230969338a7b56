"""Format what commands show on the terminal; each module is named after a command.

Border: called by `cli`; formats its arguments and decides nothing. Only `cli` and this package
write to the terminal.
"""
