"""`lgd doctor`: check the nodes of a cluster before real work runs on them.

The modules that nodes run (`rows`, `advice`, `child`, `machine`, `versions`, `compute`, `gpu`, `decoding`, `reading`,
`collective`) are sent to the nodes by value, because a node may have another `lgd` or none: outside functions they
import only the standard library, each other, and the modules of `lgd.pipeline` in `nodes.SENT`, which are sent as well.
`examine` runs them, `judge` compares the nodes, and `result` is what the command prints."""
