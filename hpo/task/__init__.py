"""Run an objective's task in a given precision, and restore its state afterwards."""
