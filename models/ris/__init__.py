"""The RIS covariance problem: scenes, truth, estimators, network and files."""
