"""An objective held against the contract that `objectives` states."""
