"""The benchmark: speed and memory against other libraries and the machine's own limit."""
