"""Checks of this machine and its database before a study."""
