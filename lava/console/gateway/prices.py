"""What models cost the merchant: their own prices over the price library, and which one counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path

from billing import errors
from lava.console import access, moments, trail, typed
from lava.console.rates import symbol
from meters import costs
from meters.gateway import catalog, keyring, providers
from meters.models import ModelPrice, ProviderKey

HERE = "/console/gateway/prices"
SHOWN = 20
# Fields of the form with what each rate is per.
RATES = {
    "input": ("Input", "a million tokens"),
    "output": ("Output", "a million tokens"),
    "cache_read": ("Cached input", "a million tokens"),
    "cache_write": ("Written to the cache", "a million tokens"),
    "image": ("Image", "each"),
    "second": ("Recording", "a second"),
    "character": ("Speech", "a character"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A model with the library's rates (dollars), the merchant's, and which of them counts."""

    model: str
    library: tuple[str, str]
    own: costs.Override | None
    counts: str

    @property
    def mine(self) -> tuple[str, str]:
        """The merchant's rates of input and output; empty where they are not set."""
        rates = self.own.rates if self.own else {}
        return _shown(rates.get("input_rate")), _shown(rates.get("output_rate"))


@access.requires("meters.view_modelprice")
def page(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/gateway/prices`: a provider's models and whose price counts; POST sets one."""
    if request.method == "POST":
        return set_price(request)
    return _page(request, typed.Form())


@access.requires("meters.change_modelprice")
def set_price(request: access.ConsoleRequest) -> HttpResponse:
    """Set one's own price of a model from an instant on."""
    merchant = request.merchant
    form = typed.Form.read(request.POST.dict())
    found = {name: form.optional(name) for name in RATES}
    rates = {name: rate for name, rate in found.items() if rate is not None}
    day = moments.read_day(form.text("day"))
    if form.text("day") and day is None:
        form.problems["day"] = "Choose a day."
    if not rates and not form.problems:
        form.problems["input"] = "Give at least one rate."
    if not form.problems:
        try:
            with transaction.atomic():
                made = keyring.set_price(
                    merchant,
                    provider=form.text("provider"),
                    model=form.text("model"),
                    rates=rates,
                    actor=str(request.user),
                    now=merchant.now(),
                    valid_from=moments.bounds(day, merchant.time_zone)[0] if day else None,
                )
                trail.record(
                    request,
                    "model_price.set",
                    made,
                    after={name: typed.plain(rate) for name, rate in rates.items()}
                    | {"from": moments.full(made.valid_from, merchant.time_zone)},
                )
        except errors.LavaError as error:
            error.param = {"valid_from": "day", "rates": "input"}.get(
                error.param or "", error.param
            )
            form.refuse(error)
        else:
            messages.success(request, f"Your price of {made.model} is set.")
            where = "" if made.provider == "*" else f"?provider={made.provider}"
            return redirect(HERE + where)
    return _page(request, form, status=422)


@access.requires("meters.change_modelprice")
def remove(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Say what counts then, and take a price away."""
    row = ModelPrice.objects.of(request.merchant).by_public_id(key)
    if request.method == "POST":
        with transaction.atomic():
            trail.record(request, "model_price.removed", row, before=_facts(row))
            keyring.remove_price(row)
        messages.success(request, f"Your price of {row.model} is taken away.")
        return redirect(HERE)
    return render(
        request,
        "console/gateway/price_remove.html",
        {
            "tab": "prices",
            "row": row,
            "rates": _rates(row),
            "symbol": symbol(request.merchant.currency),
        },
    )


def lines(
    row: providers.Provider,
    own: list[costs.Override],
    *,
    text: str,
    now: datetime,
    library_counts: bool,
) -> list[Line]:
    """The models of a provider whose name holds some text: those the library knows, then those
    only the merchant prices."""
    known = {model: rates for model, *rates in catalog.models(row.prices, now.date().isoformat())}
    names = list(known)
    names += [
        price.model
        for price in own
        if price.provider in ("*", row.slug)
        and not any(sign in price.model for sign in "*?")
        and price.model not in known
    ]
    found = []
    for name in dict.fromkeys(names):
        if text.lower() not in name.lower():
            continue
        chosen = costs.chosen(row.slug, name, own, now)
        library = known.get(name)
        has_rate = library is not None and any(rate is not None for rate in library)
        counts = "own" if chosen else "library" if has_rate and library_counts else "none"
        found.append(
            Line(
                model=name,
                library=(_shown(library[0]), _shown(library[1])) if library else ("", ""),
                own=chosen,
                counts=counts,
            )
        )
    return sorted(found, key=lambda line: (line.own is None, line.model))


def _page(request: access.ConsoleRequest, form: typed.Form, *, status: int = 200) -> HttpResponse:
    merchant = request.merchant
    now = merchant.now()
    rows = keyring.rows(merchant)
    by_slug = {row.slug: row for row in rows}
    keyed = set(
        ProviderKey.objects.of(merchant).filter(revoked_at=None).values_list("provider", flat=True)
    )
    own = list(ModelPrice.objects.of(merchant).order_by("provider", "model", "-valid_from"))
    overrides = [costs.override(vars(price)) for price in own]
    asked = request.GET.get("provider", "") or form.text("provider")
    chosen = by_slug.get(asked) or next(
        (row for row in rows if row.slug in keyed and row.prices), by_slug["openai"]
    )
    text = request.GET.get("q", "").strip()[:120]
    library_counts = costs.dollars_in(merchant.currency) is not None
    found = lines(chosen, overrides, text=text, now=now, library_counts=library_counts)
    return render(
        request,
        "console/gateway/prices.html",
        {
            "tab": "prices",
            "own": [_own(price, by_slug, own, now) for price in own],
            "provider": chosen,
            "providers": [(row.slug, row.name, row.slug in keyed) for row in rows],
            "lines": found[:SHOWN],
            "left_out": max(len(found) - SHOWN, 0),
            "text": text,
            "library_counts": library_counts,
            "currency": merchant.currency,
            "symbol": symbol(merchant.currency),
            "form": form,
            "rates": [(name, label, per) for name, (label, per) in RATES.items()],
            "zone": merchant.time_zone,
        },
        status=status,
    )


def _shown(rate: str | Decimal | None) -> str:
    """A rate with at least two decimals; empty for none."""
    return "" if rate is None else typed.plain(Decimal(rate), places=2)


def _own(
    price: ModelPrice, by_slug: dict[str, providers.Provider], all_: list[ModelPrice], now: datetime
) -> dict[str, Any]:
    """A price of the merchant's as the list shows it."""
    later = any(
        other.pk != price.pk
        and (other.provider, other.model) == (price.provider, price.model)
        and price.valid_from < other.valid_from <= now
        for other in all_
    )
    state = "later" if price.valid_from > now else "over" if later else "now"
    provider = by_slug.get(price.provider)
    name = (
        "Any provider" if price.provider == "*" else provider.name if provider else price.provider
    )
    return {"row": price, "provider": name, "rates": _rates(price), "state": state}


def _rates(price: ModelPrice) -> list[tuple[str, str, str]]:
    found = []
    for name, (label, per) in RATES.items():
        rate: Decimal | None = getattr(price, f"{name}_rate")
        if rate is not None:
            found.append((label, typed.plain(rate, places=2), per))
    return found


def _facts(price: ModelPrice) -> dict[str, str]:
    return {label.lower(): rate for label, rate, _ in _rates(price)}


urls: list[URLPattern] = [
    path("gateway/prices", page, name="gateway-prices"),
    path("gateway/prices/<str:key>/remove", remove, name="gateway-price-remove"),
]
