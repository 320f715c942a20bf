"""The door for other processes on the same machine: a Unix socket, with tensors in its stream or in shared memory."""
