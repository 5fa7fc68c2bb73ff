"""Who is in the story: two businesses, what they sell, their customers and what each of them does.

Data alone. Amounts are in the merchant's currency; days count from the story's first, which is day
0; phones and addresses are of the ranges kept for fiction.
"""

from __future__ import annotations

from dataclasses import dataclass

DAYS = 60
GOOD = "4242424242424242"
# Can be saved, and declines every charge from then on.
DECLINES_LATER = "4000000000000341"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """Something counted: `tiers` as (start, rate), `cost` what the provider asks for one unit
    (a minute, a request) or, for tokens, for a million in and a million out."""

    slug: str
    name: str
    unit: str
    tiers: tuple[tuple[str, str], ...]
    model: str
    cost: tuple[str, ...]
    rate_type: str = "fixed"
    tier_window: str = "cycle"
    base_cost_payer: str = "merchant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan with its bundle, as (name, cost, credit)."""

    name: str
    price: str
    credit: str
    rollover: str
    when_depleted: str
    bundle: tuple[str, str, str]
    threshold: str = "10"
    cap: str | None = None


@dataclass(frozen=True, slots=True)
class Habit:
    """How a customer uses a meter: requests a working day, and the size of a usual one (minutes,
    tokens; 1 for requests)."""

    meter: str
    a_day: float
    size: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Something one customer does beside using: on a day, at an hour of the merchant's zone.

    `act`: bundle (its name), card (its number), cancel, or credits (amount and reason, given by the
    merchant's owner).
    """

    day: int
    hour: float
    act: str
    what: str = ""


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer: from the day they join."""

    name: str
    email: str
    phone: str
    plan: str
    joins: int
    habits: tuple[Habit, ...]
    scenes: tuple[Scene, ...] = ()


@dataclass(frozen=True, slots=True)
class NewPrice:
    """A meter's next price version, from a day on."""

    day: int
    meter: str
    tiers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Business:
    """A merchant and all around it; `shown` is the customer whose connection `up` names."""

    name: str
    currency: str
    time_zone: str
    brand_color: str
    support_email: str
    meters: tuple[Meter, ...]
    plans: tuple[Plan, ...]
    customers: tuple[Customer, ...]
    origin: str
    shown_meter: str
    shown_plan: str
    shown: str
    # The meter of the forward token that `up` names, and the merchant's own prices of models.
    gateway_meter: str
    model_prices: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    prices: tuple[NewPrice, ...] = ()
    seed: str = ""


OWNER_NAME = "Ana Ruiz"
OWNER_EMAIL = "ana@northwind.example"

NORTHWIND = Business(
    name="Northwind Voice",
    currency="USD",
    time_zone="America/New_York",
    brand_color="#1f5fd0",
    support_email="help@northwind.example",
    origin="https://app.northwind.example",
    shown_meter="chat",
    shown_plan="Studio",
    shown="Jonas Feld",
    gateway_meter="chat",
    meters=(
        Meter(
            slug="transcription",
            name="Transcription minutes",
            unit="minutes",
            tiers=(("0", "0.0120"), ("1000", "0.0100"), ("5000", "0.0080"), ("20000", "0.0065")),
            model="nova-3",
            cost=("0.0043",),
        ),
        Meter(
            slug="chat",
            name="Chat tokens",
            unit="tokens_1m",
            tiers=(("0", "3"), ("10000000", "2")),
            model="gpt-4.1-mini",
            cost=("0.40", "1.60"),
        ),
    ),
    plans=(
        Plan(name="Free", price="0", credit="2", rollover="none", when_depleted="block",
             bundle=("Starter 5", "5", "5")),
        Plan(name="Studio", price="25", credit="30", rollover="full", when_depleted="overage",
             bundle=("Studio 10", "10", "10")),
        Plan(name="Scale", price="199", credit="240", rollover="full", when_depleted="overage",
             bundle=("Scale 50", "45", "50"), threshold="25", cap="300"),
    ),
    prices=(NewPrice(33, "chat", (("0", "2.8"), ("10000000", "1.9"))),),
    customers=(
        Customer("Mara Lindqvist", "mara@harbourpodcasts.example", "+14155550117", "Scale", 0,
                 (Habit("transcription", 11, 135), Habit("chat", 5, 260_000))),
        Customer("Jonas Feld", "jonas@lighthouse.example", "+14155550121", "Studio", 1,
                 (Habit("transcription", 1.0, 26), Habit("chat", 0.8, 60_000))),
        Customer("Priya Nair", "priya@tidewater.example", "+12065550148", "Studio", 3,
                 (Habit("transcription", 2.6, 38), Habit("chat", 1.5, 120_000)),
                 (Scene(38, 15.4, "credits", "5|Slow transcripts on Friday"),)),
        Customer("Aisha Bello", "aisha@juniperpost.example", "+12125550163", "Free", 3,
                 (Habit("chat", 1.6, 70_000),),
                 (Scene(22, 10.3, "bundle", "Starter 5"),)),
        Customer("Callum Reid", "callum@kestrelnotes.example", "+13125550135", "Studio", 5,
                 (Habit("transcription", 1.2, 30),),
                 (Scene(31, 17.2, "cancel"),)),
        Customer("Tom\u00e1s Rivera", "tomas@fennimore.example", "+17375550172", "Studio", 8,
                 (Habit("transcription", 2.2, 44), Habit("chat", 0.6, 90_000)),
                 (Scene(30, 11.1, "bundle", "Studio 10"),)),
        Customer("Noah Kim", "noah@campusradio.example", "+16175550106", "Free", 12,
                 (Habit("transcription", 0.5, 14),)),
        Customer("Henrik Solberg", "henrik@courtreporters.example", "+12025550191", "Scale", 19,
                 (Habit("transcription", 6.5, 92), Habit("chat", 1.2, 150_000)),
                 (Scene(52, 9.6, "bundle", "Scale 50"),)),
        Customer("Elena Sorokina", "elena@bluefjord.example", "+13105550158", "Studio", 26,
                 (Habit("transcription", 1.5, 36),),
                 (Scene(44, 14.8, "card", DECLINES_LATER),)),
        Customer("Luc\u00eda Ortega", "lucia@valledocs.example", "+15125550144", "Free", 33,
                 (Habit("chat", 0.7, 40_000),)),
        Customer("Grace Whitfield", "grace@whitfieldlegal.example", "+16465550129", "Studio", 40,
                 (Habit("transcription", 1.8, 41), Habit("chat", 1.0, 110_000)),
                 (Scene(58, 16.5, "cancel"),)),
        Customer("Dev Patel", "dev@signalroom.example", "+14085550183", "Free", 47,
                 (Habit("transcription", 0.8, 12),)),
        Customer("Oskar Blom", "oskar@blomadvokat.example", "+12065550196", "Studio", DAYS,
                 (Habit("transcription", 1.4, 30),)),
        Customer("In\u00eas Carvalho", "ines@radioatlantico.example", "+18575550114", "Studio", 55,
                 (Habit("transcription", 2.0, 33),)),
    ),
)  # fmt: skip

LUMEN = Business(
    name="Atelier Lumen",
    currency="EUR",
    time_zone="Europe/Berlin",
    brand_color="#8a3b12",
    support_email="hallo@lumen.example",
    origin="https://studio.lumen.example",
    shown_meter="renders",
    shown_plan="Pro",
    shown="Clara Vogt",
    gateway_meter="captions",
    model_prices=(("gemini-2.5-flash*", (("input", "0.26"), ("output", "2.15"))),
                  ("gpt-4.1-mini*", (("input", "0.35"), ("output", "1.40"))),
                  ("claude-sonnet-4-5*", (("input", "2.60"), ("output", "13")))),
    meters=(
        Meter(
            slug="renders",
            name="Product renders",
            unit="requests",
            tiers=(("0", "0.90"), ("100", "0.80"), ("400", "0.70")),
            model="flux-1.1-pro-ultra",
            cost=("0.31",),
        ),
        Meter(
            slug="captions",
            name="Captions",
            unit="tokens_1m",
            tiers=(("0", "25"),),
            model="gemini-2.5-flash",
            cost=("0.26", "2.15"),
            rate_type="percentage",
            tier_window="lifetime",
            base_cost_payer="wallet",
        ),
    ),
    plans=(
        Plan(name="Hobby", price="0", credit="4.50", rollover="none", when_depleted="block",
             bundle=("Ten renders", "9", "9")),
        Plan(name="Pro", price="29", credit="35", rollover="none", when_depleted="overage",
             bundle=("Pro 20", "18", "20")),
        Plan(name="Team", price="149", credit="190", rollover="full", when_depleted="overage",
             bundle=("Team 100", "85", "100"), threshold="25"),
    ),
    customers=(
        Customer("Clara Vogt", "clara@vogtmoebel.example", "+4917139200101", "Pro", 0,
                 (Habit("renders", 1.1, 1), Habit("captions", 0.8, 240_000))),
        Customer("Mathieu Laurent", "mathieu@maisonlaurent.example", "+33639980114", "Team", 1,
                 (Habit("renders", 9.5, 1), Habit("captions", 2.4, 300_000))),
        Customer("Sofia Rossi", "sofia@rossiceramica.example", "+4917139200123", "Pro", 4,
                 (Habit("renders", 2.2, 1),),
                 (Scene(27, 12.2, "bundle", "Pro 20"),)),
        Customer("Jan de Wit", "jan@dewitfietsen.example", "+4917139200137", "Hobby", 6,
                 (Habit("renders", 0.5, 1),),
                 (Scene(24, 9.3, "bundle", "Ten renders"),)),
        Customer("Katarzyna Nowak", "kasia@nowakglas.example", "+4917139200142", "Pro", 9,
                 (Habit("renders", 0.9, 1), Habit("captions", 0.5, 180_000)),
                 (Scene(35, 18.1, "cancel"),)),
        Customer("Peter Brandt", "peter@brandtlicht.example", "+4917139200155", "Team", 16,
                 (Habit("renders", 4.8, 1), Habit("captions", 1.6, 260_000)),
                 (Scene(41, 10.7, "credits", "15|Renders lost on 12 September"),)),
        Customer("Elif Aydin", "elif@aydintextil.example", "+4917139200168", "Hobby", 21,
                 (Habit("renders", 0.2, 1),)),
        Customer("Louise Petit", "louise@petitbijoux.example", "+33639980127", "Pro", 25,
                 (Habit("renders", 1.4, 1),),
                 (Scene(46, 13.5, "card", DECLINES_LATER),)),
        Customer("Marek Novotny", "marek@novotnyhraci.example", "+4917139200179", "Hobby", 38,
                 (Habit("renders", 0.3, 1),)),
        Customer("Anna Lind", "anna@lindkeramik.example", "+4917139200184", "Pro", 43,
                 (Habit("renders", 1.3, 1), Habit("captions", 0.7, 200_000))),
        Customer("Giulia Conti", "giulia@contivini.example", "+4917139200196", "Pro", 54,
                 (Habit("renders", 1.6, 1),)),
    ),
)  # fmt: skip

BUSINESSES = (NORTHWIND, LUMEN)
