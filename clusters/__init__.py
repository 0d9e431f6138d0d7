"""Where commands run: the embedded Ray cluster, jobs on running clusters, and files for Slurm, Kubernetes, AWS and
Docker. `testbed` has local servers and clusters for tests and benchmarks. Imports only `lgd.pipeline`."""
