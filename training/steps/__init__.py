"""One training step: forward and backward pass, normalization groups, optimizer, and how the device computes them.

Imports neither Ray nor DALI, so that `lgd.benchmarks.gpu` also measures a GPU on machines without them."""
