"""Files in local folders and object stores, retries of requests that fail for a while, and the local shard cache.

May import `lgd.pipeline.console`."""
