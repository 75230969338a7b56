"""PostgreSQL as the service uses it: connections, tables, Optuna's storage, records."""
