"""Peers of the service in the cost of coordination: one task, one server, a process for each."""
