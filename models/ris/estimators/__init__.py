"""Classical estimators of covariance and positions."""
