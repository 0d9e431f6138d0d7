"""Annotations: the lists and folders that users have become one manifest, with a key, a label and a split per video.

One reader per format, such as class folders, CSV files, the lists of UCF101 and JSON files; `formats` recognizes the
format by the content. May import `lgd.pipeline` and `lgd.preprocessing.video.files`."""
