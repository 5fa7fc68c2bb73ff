"""The sums of usage beside those of the ledger, of one merchant. Asks, never writes.

Called by `lava.reconciling` beside `billing.checks`.
"""

from __future__ import annotations

from billing import checks
from billing.models import Merchant

_ENTRIES = """
SELECT COALESCE(sum(r.charged), 0), COALESCE(sum(e.total), 0),
       count(*) FILTER (WHERE r.charged <> COALESCE(e.total, 0)), count(*)
  FROM meters_usagerequest r
  LEFT JOIN (SELECT request_id, -sum(amount) AS total
               FROM billing_ledgerentry
              WHERE merchant_id = %(merchant)s AND kind = 'usage'
              GROUP BY request_id) e ON e.request_id = r.id
 WHERE r.merchant_id = %(merchant)s
"""
_ROLLUPS = """
WITH summed AS (
    SELECT meter_id, sum(charged) AS charged, sum(requests) AS requests
      FROM (SELECT meter_id, charged, requests FROM meters_merchantusage
             WHERE merchant_id = %(merchant)s
            UNION ALL
            SELECT meter_id, charged, requests FROM meters_usagedelta
             WHERE merchant_id = %(merchant)s) both_of_them
     GROUP BY meter_id),
raw AS (
    SELECT meter_id, sum(charged) AS charged, count(*) AS requests
      FROM meters_usagerequest WHERE merchant_id = %(merchant)s AND status = 'completed'
     GROUP BY meter_id)
SELECT COALESCE(sum(s.charged), 0), COALESCE(sum(r.charged), 0),
       count(*) FILTER (WHERE s.charged IS DISTINCT FROM r.charged
                           OR s.requests IS DISTINCT FROM r.requests),
       COALESCE(sum(r.requests), 0)
  FROM summed s FULL JOIN raw r USING (meter_id)
 WHERE COALESCE(s.requests, 0) <> 0 OR r.requests IS NOT NULL
"""


def of(merchant: Merchant) -> list[checks.Check]:
    """Each check with its two sums, one query each."""
    return [
        checks.run(merchant, "Each charged request has its entries", "Usage and ledger", _ENTRIES),
        checks.run(merchant, "The charts’ sums are the requests", "Sums and usage", _ROLLUPS),
    ]
