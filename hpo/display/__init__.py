"""What commands show on the terminal: one module a kind of thing.

Border: the hand of `cli`; formats what it is given and decides nothing. With `cli` the only writer.
"""
