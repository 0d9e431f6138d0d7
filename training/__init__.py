"""Batches -> checkpoints, scores, fused predictions: the networks, the loop, Ray Train."""
