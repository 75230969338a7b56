"""Start, read and stop processes on slots: the launcher interface and its launchers."""
