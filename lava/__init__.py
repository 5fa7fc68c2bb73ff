"""Lava: the wiring. Imports everything, is imported by nobody; settings name it by string."""
