"""Run an objective's task in a given precision and put everything back as it was."""
