"""Annotations: the lists and folders that users have become one manifest, with a key, a label and a split per video.

One reader per format (class folders, CSV files, the lists of UCF101 and HMDB51); `read` detects the format. May import
`lgd.pipeline` and `lgd.preprocessing.video.files`."""
