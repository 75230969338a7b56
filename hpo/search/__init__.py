"""The search for configurations: samplers, pruners, narrowed spaces, given configurations."""
