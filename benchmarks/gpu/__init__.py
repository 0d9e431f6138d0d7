"""The figures of a GPU: `command` runs the parts in child processes, `parts` lists them, `rows` are the figures beside
their bounds and goals. Two modules can also be run alone, for more settings: `flow_batches` and `loader_settings`."""
