"""The command line as people meet it: errors of one line, progress, options, and the printing of results.

May import only `lgd` itself (its version) and the other modules of this folder."""
