"""What a merchant does in the console, by the words on its pages."""

from __future__ import annotations

import json
from typing import Any

from tests.product import Product

SHOP = """
import json
from tests import factories
merchant = factories.make_merchant()
plan = factories.make_plan(merchant, **{terms!r})
bundle = factories.make_bundle(plan)
factories.make_meter(merchant, plan)
print(json.dumps({{"key": factories.make_key(merchant), "plan": plan.public_id,
                   "bundle": bundle.public_id}}))
"""


def shop_by_code(product: Product, **terms: str) -> Any:
    """A merchant with a plan, a meter, a bundle and a key, made without the console."""
    made = product.manage("shell", "-v", "0", "-c", SHOP.format(terms=terms))
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout.strip().splitlines()[-1])
