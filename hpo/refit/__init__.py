"""Train a study's winner at full length over several seeds, and evaluate it."""
