"""The meter builder: every model of a price goes through its form, and comes back as it went."""

from __future__ import annotations

import re
from decimal import Decimal
from html import unescape

import pytest

from billing import money
from checkout import prices as words_of
from meters import prices, pricing
from meters.models import Meter, MeterPrice, UsageRequest
from meters.pricing import Tier
from tests.lava.console.shop import Shop
from tests.lava.console.test_processes import on
from tests.lava.console.test_wall import meter_form

pytestmark = pytest.mark.django_db
Fields = dict[str, str]


def tier(start: str, rate: str, flat: str = "0", kind: str = "") -> Tier:
    return Tier(Decimal(start), Decimal(rate), Decimal(flat), kind)


FLATS: Fields = {
    "kind": "tiers", "with_flats": "on", "tier-0-flat": "5", "tier-1-start": "1,000,000",
    "tier-1-rate": "2", "tier-1-flat": "",
}  # fmt: skip
VOLUME: Fields = {
    "kind": "tiers", "tier_mode": "volume", "tier-1-start": "1,000,000", "tier-1-rate": "2",
}  # fmt: skip
ALLOWANCE: Fields = {
    "with_allowance": "on", "free_allowance": "500,000", "tier_window": "cycle",
}  # fmt: skip
PACKAGES: Fields = {
    "with_packages": "on", "package_size": "1,000", "package_rounding": "down",
}  # fmt: skip
KINDS: Fields = {
    "kind": "kinds", "rate_input": "3", "rate_output": "15", "rate_cache_read": "0.3",
    "rate_cache_write": "3.75",
}  # fmt: skip
FOUR = [
    tier("0", "3", kind="input"), tier("0", "15", kind="output"),
    tier("0", "0.3", kind="cache_read"), tier("0", "3.75", kind="cache_write"),
]  # fmt: skip
# What is typed, the terms that are published, and how the meter's page says them.
MODELS: dict[str, tuple[Fields, prices.Terms, str]] = {
    "flat amounts": (
        FLATS,
        prices.Terms(tiers=[tier("0", "5", "5"), tier("1000000", "2")]),
        "$5.00 a million tokens, $2.00 after 1 million tokens; plus $5.00 with the first use; "
        "the count never starts again",
    ),
    "one rate with a flat amount": (
        {"with_flats": "on", "tier-0-flat": "0.50"},
        prices.Terms(tiers=[tier("0", "5", "0.5")]),
        "$5.00 a million tokens; plus $0.50 with the first use; the count never starts again",
    ),
    "allowance": (
        ALLOWANCE,
        prices.Terms(
            tiers=[tier("0", "5")], free_allowance=Decimal(500_000), tier_window="cycle"
        ),
        "$5.00 a million tokens; the first 500,000 tokens are free; "
        "the count starts again each billing period",
    ),
    "packages down": (
        PACKAGES,
        prices.Terms(
            tiers=[tier("0", "5")], package_size=Decimal(1000), package_rounding="down"
        ),
        "$5.00 a million tokens; sold in packages of 1,000 tokens; "
        "each is paid once it is used up; the count never starts again",
    ),
    "packages up": (
        PACKAGES | {"package_rounding": "up"},
        prices.Terms(tiers=[tier("0", "5")], package_size=Decimal(1000)),
        "$5.00 a million tokens; sold in packages of 1,000 tokens; "
        "a package you begin is paid whole; the count never starts again",
    ),
    "by volume": (
        VOLUME,
        prices.Terms(
            tiers=[tier("0", "5"), tier("1000000", "2")], tier_mode="volume", tier_window="cycle"
        ),
        "$5.00 a million tokens, $2.00 for all once past 1 million tokens; "
        "the count starts again each billing period; "
        "then what you paid above the price you reach comes back",
    ),
    "kinds": (
        KINDS,
        prices.Terms(tiers=FOUR),
        "input $3.00, output $15.00, cached input $0.30, input written to the cache $3.75 "
        "a million tokens",
    ),
    "kinds without a cache": (
        KINDS | {"rate_cache_read": "", "rate_cache_write": "", "token_basis": "output"},
        prices.Terms(tiers=FOUR[:2]),
        "input $3.00, output $15.00 a million tokens",
    ),
    "a share with an allowance": (
        {"kind": "percent", "unit": "requests", "tier-0-rate": "20", "with_allowance": "on",
         "free_allowance": "10"},
        prices.Terms(
            tiers=[tier("0", "20")], rate_type="percentage", unit="requests",
            free_allowance=Decimal(10),
        ),
        "20% of the provider’s price; the first 10 requests are free; "
        "the count never starts again",
    ),
    "all at once": (
        FLATS | ALLOWANCE | PACKAGES | {"base_cost_payer": "wallet"},
        prices.Terms(
            tiers=[tier("0", "5", "5"), tier("1000000", "2")], free_allowance=Decimal(500_000),
            package_size=Decimal(1000), package_rounding="down", tier_window="cycle",
            base_cost_payer="wallet",
        ),
        "$5.00 a million tokens, $2.00 after 1 million tokens; plus the provider’s price; "
        "the first 500,000 tokens are free and not counted; sold in packages of 1,000 tokens; "
        "each is paid once it is used up; plus $5.00 with the first use that is paid; "
        "the count starts again each billing period",
    ),
}  # fmt: skip


def posted(page: str) -> Fields:
    """What a browser would send of the meter's form as it stands on the page."""
    form = page.split('id="meter-form"')[1].split("</form>")[0]
    form = re.sub(r"<(template|noscript).*?</\1>", "", form, flags=re.S)
    found: Fields = {}
    for field in re.findall(r"<input[^>]*>", form):
        name = re.search(r' name="([^"]*)"', field)
        value = re.search(r' value="([^"]*)"', field)
        ticked = ("radio" not in field and "checkbox" not in field) or " checked" in field
        if name and ticked and " disabled" not in field:
            found[name[1]] = unescape(value[1]) if value else "on" if "checkbox" in field else ""
    return found


def made(shop: Shop, fields: Fields) -> Meter:
    answer = shop.client().post(on("meter-new"), meter_form(shop, shop.sandbox) | fields)
    assert answer.status_code == 302, re.findall(r'lv-error">([^<]+)', answer.content.decode())
    return Meter.objects.of(shop.sandbox.merchant).select_related("price").get(slug="words")


@pytest.mark.parametrize("model", MODELS)
def test_what_is_typed_is_published_shown_in_words_and_saved_again_unchanged(
    ours: Shop, model: str
) -> None:
    fields, terms, words = MODELS[model]
    meter, client = made(ours, fields), ours.client()
    assert meter.price is not None
    assert prices.of(meter.price) == terms
    assert words_of.tell(meter.price, "USD") == words
    where = on("meter", key=meter.public_id)
    page = client.get(where).content.decode()
    # In its history and in the preview beside the form.
    assert unescape(page).count(words[0].upper() + words[1:]) == 2
    assert client.post(where, posted(page)).status_code == 302
    assert MeterPrice.objects.filter(meter=meter).count() == 1


@pytest.mark.parametrize("model", MODELS)
def test_a_changed_rate_of_any_model_is_the_next_version_with_the_rest_kept(
    ours: Shop, model: str
) -> None:
    fields, terms, _ = MODELS[model]
    meter, client = made(ours, fields), ours.client()
    where = on("meter", key=meter.public_id)
    form = posted(client.get(where).content.decode())
    cell = "rate_input" if fields.get("kind") == "kinds" else "tier-0-rate"
    assert client.post(where, form | {cell: "7"}).status_code == 302
    latest = MeterPrice.objects.get(meter=meter, version=2)
    first, *rest = prices.of(latest).tiers
    assert first.rate == 7 and first.flat == terms.tiers[0].flat
    assert [*rest] == [*terms.tiers[1:]]
    assert latest.free_allowance == terms.free_allowance
    assert (latest.package_size, latest.package_rounding) == (
        terms.package_size, terms.package_rounding,
    )  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_a_price_of_any_model_made_by_the_api_is_unchanged_by_saving_it_here(
    ours: Shop, model: str
) -> None:
    _, terms, _ = MODELS[model]
    merchant = ours.sandbox.merchant
    # Kinds in another order than the form's, and a rounding of packages that there are none of.
    turned = prices.Terms(
        **{name: getattr(terms, name) for name in prices.Terms.__slots__}
        | {"tiers": terms.tiers[::-1] if terms.tiers[0].kind else terms.tiers}
        | ({"package_rounding": "down"} if not terms.package_size else {})
    )
    meter = prices.create_meter(
        merchant, slug="api", name="Api", terms=turned, actor="api", now=merchant.now()
    )
    client, where = ours.client(), on("meter", key=meter.public_id)
    form = posted(client.get(where).content.decode())
    assert client.post(where, form | {"name": "Renamed"}).status_code == 302
    meter.refresh_from_db()
    assert meter.name == "Renamed"
    assert MeterPrice.objects.filter(meter=meter).count() == 1


def test_an_option_that_is_unticked_is_taken_off_the_next_version(ours: Shop) -> None:
    meter, client = made(ours, FLATS | ALLOWANCE | PACKAGES), ours.client()
    where = on("meter", key=meter.public_id)
    form = posted(client.get(where).content.decode())
    for box in ("with_flats", "with_allowance", "with_packages"):
        del form[box]
    assert client.post(where, form).status_code == 302
    latest = MeterPrice.objects.get(meter=meter, version=2)
    assert (latest.tier_flats, latest.free_allowance, latest.package_size) == ([], 0, 0)


REFUSED: dict[str, tuple[Fields, str]] = {
    "no allowance": ({"with_allowance": "on"}, "Write a whole number of tokens from 1 up"),
    "part of a token": (
        {"with_allowance": "on", "free_allowance": "1.5"}, "or untick Free allowance",
    ),
    "no size": ({"with_packages": "on", "package_size": "0"}, "or untick Packages"),
    "another rounding": (
        PACKAGES | {"package_rounding": "sideways"}, "Use one of up, down",
    ),
    "no flat amount": ({"with_flats": "on"}, "Write the amount, such as 5.00, or untick"),
    "a flat amount in words": (
        {"with_flats": "on", "tier-0-flat": "five"}, "without a sign or letters",
    ),
    "by volume with flat amounts": (
        VOLUME | {"with_flats": "on", "tier-0-flat": "5"}, "all of a cycle have no flat amounts",
    ),
    "by volume with a rate that rises": (
        VOLUME | {"tier-1-rate": "9"}, "a rate is no higher than that of the tier before it",
    ),
    "packages of a share": (
        PACKAGES | {"kind": "percent"}, "A share of cost has no packages. Untick it",
    ),
    "no rate of output": (KINDS | {"rate_output": ""}, "Write what a million costs"),
    "a rate in words": (KINDS | {"rate_cache_read": "-1"}, "without a sign or letters"),
    "kinds of minutes": (KINDS | {"unit": "minutes"}, "Only tokens have kinds. Choose Tokens"),
    "kinds with packages": (KINDS | PACKAGES, "Rates by kind of token have no packages"),
    "kinds with an allowance": (KINDS | ALLOWANCE, "Rates by kind of token have no allowance"),
    "kinds with flat amounts": (
        KINDS | {"with_flats": "on"}, "Rates by kind of token have no flat amounts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_price_that_cannot_be_is_refused_at_its_field_and_kept_as_typed(
    ours: Shop, case: str
) -> None:
    fields, words = REFUSED[case]
    count = Meter.objects.count()
    answer = ours.client().post(on("meter-new"), meter_form(ours, ours.sandbox) | fields)
    page = answer.content.decode()
    assert answer.status_code == 422 and Meter.objects.count() == count
    assert any(words in text for text in re.findall(r'lv-error"[^>]*>([^<]+)', page))
    kept = posted(page)
    for name, value in fields.items():
        if value and value not in ("sideways",):
            assert kept.get(name) == value, name


def test_the_calculator_prices_flats_allowance_and_packages_as_they_are_charged(ours: Shop) -> None:
    fields = FLATS | ALLOWANCE | PACKAGES | {"tier-0-rate": "4"}
    form = meter_form(ours, ours.sandbox) | fields | {"calculator_quantity": "2,500,999"}
    told = ours.client().post(on("meter-calculate"), form).json()
    # 2,000,999 past the allowance are 2,000 packages used up: a million at 4, one at 2, 5 once.
    assert Decimal(told["fee"]) == Decimal("11")
    assert [(part["tier"], Decimal(part["amount"])) for part in told["slices"]] == [
        (0, 5), (0, 4), (1, 2),
    ]  # fmt: skip
    assert "2,000 packages of 1,000 tokens are paid" in told["html"]
    meter, client = made(ours, fields), ours.client()
    prices.attach(meter, ours.sandbox.plan)
    ours.sandbox.meter = meter
    charged = [ours.sandbox.use(f"part-{place}", 1_250_000 + place * 999) for place in (0, 1)]
    assert sum(row.fee for row in charged) == Decimal("11")
    detail = client.get(on("request", key=charged[0].public_id)).content.decode()
    assert "Tier 1, flat amount" in detail and "once" in detail


@pytest.mark.parametrize(
    ("unit", "quantity", "fee", "first"),
    [
        ("tokens_1m", "2,500,000", "5", "$12.50"),
        ("minutes", "1,500,000", "3000000", "$7,500,000.00"),
        ("requests", "1,000,001", "2000002", "$5,000,005.00"),
    ],
)
def test_the_calculator_prices_all_of_a_month_by_its_volume(
    ours: Shop, unit: str, quantity: str, fee: str, first: str
) -> None:
    form = meter_form(ours, ours.sandbox) | VOLUME
    form |= {"unit": unit, "calculator_quantity": quantity}
    told = ours.client().post(on("meter-calculate"), form).json()
    assert Decimal(told["fee"]) == Decimal(fee)
    assert [part["tier"] for part in told["slices"]] == [1]
    assert f"{first} is charged as it is used" in told["html"]
    below = ours.client().post(on("meter-calculate"), form | {"calculator_quantity": "10"}).json()
    assert [part["tier"] for part in below["slices"]] == [0]
    assert "comes back" not in below["html"].replace("reach comes back", "")


def test_the_calculator_prices_each_kind_of_token_as_it_is_charged(ours: Shop) -> None:
    form = meter_form(ours, ours.sandbox) | KINDS | {
        "calculator_quantity": "1,100,000", "calculator_output": "100,000",
        "calculator_cache_read": "600,000", "calculator_cache_write": "200,000",
    }  # fmt: skip
    told = ours.client().post(on("meter-calculate"), form).json()
    assert Decimal(told["fee"]) == Decimal("3.03")
    assert "Cached input" in told["html"]
    meter = made(ours, KINDS)
    prices.attach(meter, ours.sandbox.plan)
    ours.sandbox.meter = meter
    row = ours.sandbox.use(
        "kinds", 1_000_000, output_tokens=100_000, cache_read_tokens=600_000,
        cache_write_tokens=200_000,
    )  # fmt: skip
    assert row.fee == Decimal("3.03")
    detail = ours.client().get(on("request", key=row.public_id)).content.decode()
    assert "Input written to the cache" in detail and "Tier 1" not in detail
    person = on("connection", key=ours.sandbox.connection.public_id)
    assert "tier 4 of 4" not in ours.client().get(person).content.decode()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"calculator_output": "2,000,000"}, "part of the month"),
        ({"calculator_cache_read": "1,000,000"}, "part of the month"),
        ({"calculator_cache_read": "some"}, "figures as numbers"),
        ({"rate_input": ""}, "Give input and output a rate"),
    ],
)
def test_a_month_that_cannot_be_says_what_to_write(ours: Shop, asked: Fields, words: str) -> None:
    form = meter_form(ours, ours.sandbox) | KINDS | {"calculator_quantity": "1,000,000"} | asked
    told = ours.client().post(on("meter-calculate"), form).json()
    assert told["fee"] is None and words in told["problem"]


def test_minutes_and_requests_have_packages_and_an_allowance_in_the_calculator(ours: Shop) -> None:
    form = meter_form(ours, ours.sandbox) | {
        "unit": "minutes", "tier-0-rate": "0.1", "with_packages": "on", "package_size": "10",
        "package_rounding": "up", "with_allowance": "on", "free_allowance": "5",
        "calculator_quantity": "26",
    }  # fmt: skip
    client = ours.client()
    # 21 past the allowance are 3 packages of 10 begun; 21 requests the same.
    minutes = client.post(on("meter-calculate"), form).json()
    assert Decimal(minutes["fee"]) == 3 and "3 packages of 10 minutes" in minutes["html"]
    requests = client.post(on("meter-calculate"), form | {"unit": "requests"}).json()
    assert Decimal(requests["fee"]) == 3 and "3 packages of 10 requests" in requests["html"]


def test_what_if_tries_every_model_on_what_was_used(ours: Shop) -> None:
    where = on("meter-what-if", key=ours.sandbox.meter.public_id)
    for model, (fields, terms, words) in MODELS.items():
        if terms.unit == "requests":
            continue
        answer = ours.client().post(where, meter_form(ours, ours.sandbox) | fields)
        page = unescape(answer.content.decode())
        assert answer.status_code == 200, model
        assert f"The draft asks {words}; today it is" in page, model
        expected = money.display(again(ours, terms), "USD")
        assert f'title="{expected}"' in page.split("Revenue from usage")[1][:200], model


def again(shop: Shop, terms: prices.Terms) -> Decimal:
    """What the meter's requests come to at other terms, request by request, in Python."""
    total = before = Decimal(0)
    used = UsageRequest.objects.filter(meter=shop.sandbox.meter).order_by("id")
    assert used
    for row in used:
        spent = pricing.Usage(
            input_tokens=row.input_tokens, output_tokens=row.output_tokens,
            cache_read_tokens=row.cache_read_tokens or 0,
            cache_write_tokens=row.cache_write_tokens or 0,
        )  # fmt: skip
        fee = pricing.price(terms.price, spent, before=before)
        total += fee.amount
        if terms.base_cost_payer == "wallet":
            total += row.provider_cost or 0
        before += fee.quantity
    return total


def test_what_if_compares_kinds_and_what_stands_beside_the_rates(ours: Shop) -> None:
    meter, client = made(ours, KINDS), ours.client()
    prices.attach(meter, ours.sandbox.plan)
    ours.sandbox.meter = meter
    ours.sandbox.use("kinds", 1_000_000, cache_read_tokens=1_000_000)
    where = on("meter-what-if", key=meter.public_id)
    form = meter_form(ours, ours.sandbox) | KINDS
    page = client.post(where, form | {"rate_cache_read": "0.6"}).content.decode()
    row = page.split("<td>Cached input</td>")[1].split("</tr>")[0]
    assert "$0.3000" in row and "$0.6000" in row and "+100.0 %" in row
    page = client.post(where, meter_form(ours, ours.sandbox) | ALLOWANCE).content.decode()
    assert "The draft asks" in page and "<td>Cached input</td>" not in page


def test_the_list_says_what_a_price_has_beside_its_rate(ours: Shop) -> None:
    made(ours, ALLOWANCE | PACKAGES)
    page = ours.client().get(on("meters")).content.decode()
    assert "$5.00 a million tokens; the first 500,000 tokens are free and not counted" in page


def test_every_kind_that_can_be_priced_has_a_field(ours: Shop) -> None:
    page = ours.client().get(on("meter-new")).content.decode()
    for kind in pricing.KINDS:
        assert f'name="rate_{kind}"' in page
