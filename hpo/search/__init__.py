"""What is tried next: samplers, pruners, narrowed spaces, given configurations."""
