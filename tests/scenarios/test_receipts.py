"""Every payment and every refund has a receipt: a number without a gap, a page, a PDF, a mail."""

from __future__ import annotations

import re

import pytest
from django.conf import settings
from django.test import Client
from moneyed import Money

from billing import receipt_pdf, receipts, refunds
from billing.models import Connection, OutboxMessage, Payment, Refund
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db


def customer(shop: cn.Shop, *, name: str = "Mara") -> Connection:
    connection = factories.make_connection(shop.merchant, now=shop.now)
    connection.customer.first_name, connection.customer.email = name, "mara@tallgrass.example"
    connection.customer.save()
    return cn.subscribe(shop.plan, now=shop.now, connection=connection)


def path_of(paper: Payment | Refund) -> str:
    return receipts.address(paper).removeprefix(settings.LAVA_BASE_URL)


def test_a_payment_and_its_refund_have_page_pdf_and_mail(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = customer(shop)
    payment = Payment.objects.get(connection=connection)
    refund = refunds.refund(
        payment, amount=Money(5, "USD"), reason="x", actor="Ana", key="k", now=shop.now
    )
    numbers = [payment.receipt_number, refund.receipt_number]
    assert [int(number.rpartition("-")[2]) for number in numbers] == [3001, 3002]
    for paper, heading in ((payment, "$25.00 paid"), (refund, "$5.00 refunded")):
        page = Client().get(path_of(paper))
        html = page.content.decode()
        assert page.status_code == 200 and heading in html and paper.receipt_number in html
        assert f'href="{path_of(paper)}.pdf"' in html
        pdf = Client().get(f"{path_of(paper)}.pdf")
        assert pdf["Content-Type"] == "application/pdf"
        assert (
            pdf.content.startswith(b"%PDF-")
            and paper.receipt_number.encode() in pdf["Content-Disposition"].encode()
        )
        assert pdf.content == Client().get(f"{path_of(paper)}.pdf").content
        mail = OutboxMessage.objects.get(subject__contains=paper.receipt_number)
        assert (
            receipts.address(paper) in mail.body and f"{receipts.address(paper)}.pdf" in mail.body
        )
    # The payment's own receipt says what went back.
    assert re.search(
        r"Refunded [A-Z][a-z]+ \d+, \d{4}", Client().get(path_of(payment)).content.decode()
    )


def test_what_was_not_paid_has_no_receipt(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = customer(shop)
    cn.behave_as(card_network, connection, cn.DECLINES_LATER)
    shop.renew(connection)
    failed = Payment.objects.get(purpose="renewal")
    assert Client().get(path_of(failed)).status_code == 404
    assert Client().get(f"{path_of(failed)}.pdf").status_code == 404


def test_without_an_address_no_mail_is_owed_and_the_receipt_is_there(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    assert not OutboxMessage.objects.filter(kind="mail").exists()
    assert Client().get(path_of(Payment.objects.get(connection=connection))).status_code == 200


@pytest.mark.parametrize(
    "name", ["Łukasz Żółć", "Ağaç Ünlü", "名前", '"><svg onload=alert(1)>', "x" * 78, "\u202eevil"]
)
def test_any_name_makes_a_pdf(card_network: CardNetwork, name: str) -> None:
    shop = cn.Shop()
    connection = customer(shop, name=name)
    payment = Payment.objects.get(connection=connection)
    mail = OutboxMessage.objects.get(subject__startswith="Receipt")
    assert payment.receipt_number in mail.html and "<svg" not in mail.html
    organization = shop.merchant.organization
    organization.name, organization.brand_color = name, "#ff8800"
    organization.support_email = "help@northwind.example"
    organization.save()
    document = receipts.document(receipts.find(path_of(payment).rpartition("/")[2]))
    assert receipt_pdf.render(document).startswith(b"%PDF-")
    assert "<svg" not in Client().get(path_of(payment)).content.decode().replace("<svg xmlns", "")


def test_a_logo_is_on_it(card_network: CardNetwork) -> None:
    import struct
    import zlib

    from billing import merchants

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    pixels = zlib.compress(b"".join(b"\x00" + b"\x20\x80\xc0" * 8 for _ in range(8)))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    png += chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    shop = cn.Shop()
    connection = customer(shop)
    merchants.set_logo(shop.merchant.organization, png)
    payment = Payment.objects.select_related("merchant__organization").get(connection=connection)
    pdf = receipt_pdf.render(receipts.document(payment))
    assert b"/Subtype /Image" in pdf
    # One that a reader cannot read does not keep the receipt away.
    merchants.set_logo(shop.merchant.organization, b"\x89PNG\r\n\x1a\n" + b"broken")
    payment = Payment.objects.select_related("merchant__organization").get(connection=connection)
    assert receipt_pdf.render(receipts.document(payment)).startswith(b"%PDF-")
