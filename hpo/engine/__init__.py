"""Train one trial, independently of Optuna and SQL."""
