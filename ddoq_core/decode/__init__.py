"""Centroids to pictures: priors, how they sample and how a small one is trained."""
