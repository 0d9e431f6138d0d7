"""What a dataset is, and how it becomes batches on a device.

Also the parts that every other folder needs: the command line (`console`), tasks on Ray (`tasks`), files in local
folders and object stores (`storage`). May import none of the other folders of `lgd`."""
