"""optuna-dashboard on the service's storage, behind a check of every request."""
