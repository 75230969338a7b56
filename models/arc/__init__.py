"""The grid-solving problem: tasks, encoding, networks and losses."""
