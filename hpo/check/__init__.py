"""Check an objective against the contract that `objectives` defines."""
