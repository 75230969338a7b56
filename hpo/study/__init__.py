"""A study: its configuration, creation and joining, outcomes, tables, copy and deletion."""
