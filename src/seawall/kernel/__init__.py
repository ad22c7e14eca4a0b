"""Words that all rooms share: values, errors, limits and seams. Nothing in here does any I/O.

A room may import the kernel; the kernel imports no room. Values are frozen; seams are protocols, one per file.
"""
