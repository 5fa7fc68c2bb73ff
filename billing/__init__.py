"""Billing: money and who owes it. The ground floor: imports no sibling app."""
