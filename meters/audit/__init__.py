"""What must be true of usage and its prices, as questions that answer with no rows.

`RULES` stand beside those of `billing.audit` and are read by `manage.py audit` and by tests. Fees
are worked out anew from the stored price versions by code of this package alone: neither
`meters.pricing` nor the database's `meters_price` has a part in it.
"""

from __future__ import annotations

from meters.audit import fees, usage, volume

RULES = (*usage.RULES, *fees.RULES, *volume.RULES)

__all__ = ["RULES"]
