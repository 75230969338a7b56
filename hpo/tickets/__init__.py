"""Exactly N trials: budget, leases, and the ticket under which a trial is written."""
