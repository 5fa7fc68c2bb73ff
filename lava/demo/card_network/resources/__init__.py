"""Stripe's resources, one module a noun; each function answers one endpoint. Reached through
`routes` only."""
