"""The charge as one writes it first, to know what the one trip is worth. Served by the bench alone.

It fills the same tables by the same rules, so that the books are checked by the same audit; it
refuses to start anywhere but on a scratch cluster.
"""
