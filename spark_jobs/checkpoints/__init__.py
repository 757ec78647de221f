"""The checkpoints of the queries: their files, their lock, and messages that are missing after them."""
