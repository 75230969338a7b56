"""Checks of this machine and its database: is everything fit for a study."""
