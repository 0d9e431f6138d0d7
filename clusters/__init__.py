"""Where it all runs: the embedded Ray cluster now; running clusters, Kubernetes and Slurm beside it."""
