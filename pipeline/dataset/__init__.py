"""The dataset on disk: its description, the index of a stream's frames, and the code of optical flow.

May import `lgd.pipeline.console` and `lgd.pipeline.storage`."""
