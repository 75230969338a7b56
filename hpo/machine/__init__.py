"""Facts of this host: worker slots, and the provenance of a result."""
