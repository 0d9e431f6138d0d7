"""Where it all runs: the embedded Ray cluster, jobs of running ones; files for Slurm, Kubernetes, AWS and Docker."""
