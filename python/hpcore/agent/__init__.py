"""The node agent: starts, watches and signals the node's workers; owns the node's shared memory."""
