"""The exact posterior of a scene: the least subspace error that any estimator can reach."""
