"""The commands of `lgd`: each is a function that declares its options and calls the module with the work."""
