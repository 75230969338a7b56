"""Train one trial; sees neither Optuna nor SQL."""
