"""Start a process on a slot, hear from it, end it: the launcher interface and its launchers."""
