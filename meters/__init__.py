"""Meters: usage becomes money. Imports billing, never checkout."""
