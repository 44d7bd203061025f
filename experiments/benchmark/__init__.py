"""The benchmark: speed and memory against others and the limits of the machine."""
