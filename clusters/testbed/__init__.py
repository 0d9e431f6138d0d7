"""Local servers and clusters that tests and benchmarks use: an S3 server, Ray nodes that can be killed, and child
processes. No command that processes or trains uses them. Imports only `lgd.pipeline`."""
