"""Gradient descent: an epoch, batches at once, the loop, tables in chunks, devices."""
