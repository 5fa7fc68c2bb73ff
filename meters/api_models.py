"""`GET /v1/models`: the models whose calls can be routed, with prices; the gateway answers the same
where it stands at the door (`meters.gateway.catalog`)."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.views import View
from meters import costs
from meters.gateway import catalog, keyring
from meters.gateway.models import ModelPrice, ProviderKey


class ModelsView(View):
    """`GET /v1/models`"""

    def get(self, request: Request) -> Response:
        keys = ProviderKey.objects.of(self.merchant).filter(revoked_at=None)
        prices = ModelPrice.objects.of(self.merchant).filter(valid_from__lte=self.now)
        found = catalog.listing(
            keyring.rows(self.merchant),
            keyed=set(keys.values_list("provider", flat=True)),
            overrides=[costs.override(vars(price)) for price in prices.order_by("pk")],
            now=self.now,
            provider=self.query.get("provider", ""),
        )
        return Response({"object": "list", "data": found})
