"""Customers a browser test begins with."""

from __future__ import annotations

from billing.models import Connection
from checkout.models import CheckoutSession
from tests import card_network as cn
from tests import factories
from tests.checkout.visitor import Visitor, last_code

PHONE = "+14155550142"


def known(shop: cn.Shop, phone: str = PHONE) -> Connection:
    """Somebody on the plan, with a card, a name and an address."""
    connection = factories.make_connection(shop.merchant, phone=phone, now=shop.now)
    customer = connection.customer
    customer.first_name, customer.last_name = "Mara", "Lindqvist"
    customer.email = "mara@tallgrass.example"
    customer.save()
    return cn.subscribe(shop.plan, now=shop.now, connection=connection)


def confirmed(session: CheckoutSession) -> CheckoutSession:
    """The session with its phone confirmed, as if in another tab."""
    visitor = Visitor(session)
    if session.connection_is_given:
        assert visitor.post("phone").status_code == 303
        visitor.post("code", code=last_code(session.merchant, session.buyer.customer.phone))
    else:
        visitor.confirm_phone(PHONE)
    session.refresh_from_db()
    assert session.state == "verified"
    return session
