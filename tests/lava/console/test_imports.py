"""Customers from a file: every line is looked at first, and nobody is made twice."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing import connections, imports, sweep
from billing.models import AuditEntry, Connection, Customer, CustomerImport, Event, Membership
from tests.lava.console.shop import Shop

pytestmark = pytest.mark.django_db
Role = Membership.Role
NEW = "/console/imports/new"
GOOD = (
    "phone,email,name,reference_id,metadata.tier\n"
    "+14155557001,mara@tallgrass.example,Mara Lindqvist,t-1,gold\n"
    '+14155557002,ben@tallgrass.example,"Ben ""B"" Ode",t-2,\n'
    ",,,t-3,\n"
)


def choose(client: Client, text: str | bytes, name: str = "people.csv") -> Any:
    content = text if isinstance(text, bytes) else text.encode()
    return client.post(NEW, {"file": SimpleUploadedFile(name, content)})


def confirm(client: Client, page: str, **more: str) -> Any:
    """Press the button of the page that shows a file, as the browser would."""
    fields = re.findall(r'name="(text|filename|key)" value="([^"]*)"', page)
    sent = {name: html.unescape(value) for name, value in fields}
    return client.post(NEW, sent | {"step": "import"} | more)


def people(shop: Shop) -> list[str]:
    rows = Connection.objects.of(shop.sandbox.merchant).exclude(reference="").order_by("id")
    return list(rows.values_list("reference", flat=True))


def test_a_file_is_looked_at_then_imported_once_by_a_worker(ours: Shop) -> None:
    client, merchant = ours.client(Role.SUPPORT), ours.sandbox.merchant
    before = CustomerImport.objects.count()
    page = choose(client, GOOD).content.decode()
    for text in ("Mara Lindqvist", "+14155557002", "Ben &quot;B&quot; Ode", "3 new, 0 there",
                 "Import 3 customers"):  # fmt: skip
        assert text in page, text
    # Nothing is kept of it yet.
    assert people(ours) == [] and CustomerImport.objects.count() == before
    answers = [confirm(client, page) for _ in range(2)]
    job = CustomerImport.objects.get(filename="people.csv")
    where = f"/console/imports/{job.public_id}"
    assert [answer["Location"] for answer in answers] == [where, where]
    waiting = client.get(where).content.decode()
    assert "0 of 3" in waiting and "data-refresh" in waiting and people(ours) == []
    assert sweep.imports_under_way(merchant.now()) == [job.pk]
    for _ in range(2):
        imports.run(job.pk, now=merchant.now())
    # Pressed once more when all is done, it is that job still.
    assert confirm(client, page)["Location"] == where
    assert people(ours) == ["t-1", "t-2", "t-3"]
    mara = Connection.objects.of(merchant).get(reference="t-1")
    assert (mara.status, mara.metadata, str(mara.customer)) == (
        "active", {"tier": "gold"}, "Mara Lindqvist",
    )  # fmt: skip
    done = client.get(where).content.decode()
    assert "3 of 3" in done and "data-refresh" not in done
    job.refresh_from_db()
    assert (job.made, job.left, job.lines) == (3, 0, [])
    assert sweep.imports_under_way(merchant.now()) == []
    # As the API's: each is told to the merchant's backend.
    told = Event.objects.filter(name="connection.created", connection__reference__startswith="t-")
    assert told.count() == 3
    (entry,) = AuditEntry.objects.filter(action="customers.imported")
    assert (entry.after, entry.actor) == ({"lines": "3"}, "Support Northwind")


def test_two_presses_at_once_are_one_job(ours: Shop) -> None:
    merchant = ours.sandbox.merchant
    line = {"phone": "", "email": "", "name": "", "reference": "t-1", "metadata": {}}
    first, second = (
        imports.start(
            merchant, lines=[line], filename="a.csv", key="k", actor="ana", now=merchant.now()
        )
        for _ in range(2)
    )
    assert first == second and first.count == 1


def test_the_same_file_again_finds_everybody_there(ours: Shop) -> None:
    client = ours.client()
    page = choose(client, GOOD).content.decode()
    confirm(client, page)
    job = CustomerImport.objects.get(filename="people.csv")
    imports.run(job.pk, now=ours.sandbox.merchant.now())
    again = choose(client, GOOD + "+14155557009,,Late,t-9,\n").content.decode()
    assert "1 new, 3 there already" in again and "Import 1 customer<" in again
    assert "there is nothing to import" in choose(client, GOOD).content.decode()
    # One comes by themselves between the look and the worker.
    connections.create(ours.sandbox.merchant, phone="+14155557009", now=ours.sandbox.merchant.now())
    count = Customer.objects.count()
    second = confirm(client, again)
    assert second.status_code == 422 and b"Look again" in second.content
    assert Customer.objects.count() == count


def test_a_phone_taken_while_the_job_runs_is_left(
    ours: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = ours.sandbox.merchant
    client = ours.client()
    confirm(client, choose(client, GOOD).content.decode())
    job = CustomerImport.objects.get(filename="people.csv")
    connections.create(merchant, phone="+14155557002", now=merchant.now())
    # Behind the question who is there: the verb's own key refuses.
    monkeypatch.setattr(imports, "known", lambda merchant, lines: (set(), set()))
    done = imports.run(job.pk, now=merchant.now())
    assert (done.made, done.left, done.state) == (2, 1, "done")
    assert people(ours) == ["t-1", "t-3"]


def test_it_goes_on_where_it_stopped(ours: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    merchant, client = ours.sandbox.merchant, ours.client()
    confirm(client, choose(client, GOOD).content.decode())
    job = CustomerImport.objects.get(filename="people.csv")
    monkeypatch.setattr(imports, "SET", 1)
    made = connections.create

    def dies(*args: Any, **fields: Any) -> Connection:
        if fields["reference"] == "t-2":
            raise RuntimeError("the process is gone")
        return made(*args, **fields)

    monkeypatch.setattr(connections, "create", dies)
    with pytest.raises(RuntimeError):
        imports.run(job.pk, now=merchant.now())
    monkeypatch.setattr(connections, "create", made)
    assert people(ours) == ["t-1"]
    assert b"1 of 3" in client.get(f"/console/imports/{job.public_id}").content
    assert imports.run(job.pk, now=merchant.now(), most=1).made == 2
    assert imports.run(job.pk, now=merchant.now()).made == 3
    assert people(ours) == ["t-1", "t-2", "t-3"]


@pytest.mark.parametrize(
    ("line", "field", "why"),
    [
        ("4155557001,,Mara,", "phone", "with its country code"),
        (",mara@,Mara,", "email", "is not an e-mail address"),
        (",,Ma\x07ra,t-1", "name", "must not hold control characters"),
        (f",,{'x' * 161},t-1", "name", "1 to 160 characters"),
        (f",,Mara,{'x' * 256}", "reference_id", "1 to 255 characters"),
        (",,Mara,", "line", "Give a phone, an e-mail or a reference_id"),
        (",,Mara,t-1,more", "line", "has 5 fields, and there are 4 names"),
        ("+14155557099,,Mara,", "phone", "Line 2 has the same phone"),
        (",,Mara,t-9", "reference_id", "Line 2 has the same reference_id"),
    ],
)
def test_a_wrong_line_is_named_with_its_field_and_nothing_is_imported(
    ours: Shop, line: str, field: str, why: str
) -> None:
    client, count = ours.client(), CustomerImport.objects.count()
    text = f"phone,email,name,reference_id\n+14155557099,,First,t-9\n\n{line}\n"
    answer = choose(client, text)
    page = answer.content.decode()
    assert answer.status_code == 422 and "1 wrong" in page and "Nothing was imported" in page
    # The line as a text editor numbers it: the empty one counts.
    assert re.search(rf">4</td>.*<b>{field}</b>: [^<]*{re.escape(why)}", page), page
    assert 'value="import"' not in page
    sent = {"text": text, "filename": "x", "key": "k", "step": "import"}
    assert client.post(NEW, sent).status_code == 422
    assert CustomerImport.objects.count() == count


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Choose a CSV file"),
        (b"phone,email\n", "no line below"),
        (b"telephone,mail\n+14155557001,a@b.example\n", "No column has a name that is known"),
        (b"phone,phone\n+14155557001,\n", "two columns phone"),
        (b'phone,name\n"+1415,Mara\n', "This is no CSV file"),
        (b"phone\n\xff\xfe\n", "CSV in UTF-8"),
        (b"PK\x03\x04\0\0", "This is no CSV file"),
        (b"phone\n" + b"+14155557001\n" * 5001, "at most 5,000"),
        (b"x" * 1_000_001, "over 1 MB"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(ours: Shop, content: bytes, why: str) -> None:
    answer = choose(ours.client(), content)
    assert answer.status_code == 422
    assert why in html.unescape(answer.content.decode())


def test_our_own_export_and_a_spreadsheets_file_are_read(ours: Shop) -> None:
    client = ours.client()
    text = "".join(
        part.decode()
        for part in client.get("/console/exports/connections.csv").streaming_content  # type: ignore[attr-defined]
    )
    page = choose(client, text).content.decode()
    assert "0 new, 1 there already" in page and "Not imported: connection_id, status" in page
    fresh = text.replace("'+14155551001", "'+14155557001")
    assert "1 new, 0 there already" in choose(client, fresh).content.decode()
    # A byte order mark, semicolons, a line break in a cell.
    sheet = (
        '\ufeffPhone;E-Mail;First name;Last name\r\n+14155557001;m@x.example;Mara;"von\r\nLind"\r\n'
    )
    page = choose(client, sheet).content.decode()
    assert "Mara von Lind" in page and "1 new" in page


def test_a_file_of_another_business_finds_none_of_ours(ours: Shop, theirs: Shop) -> None:
    phone = theirs.sandbox.connection.customer.phone
    page = choose(ours.client(), f"phone\n{phone}\n").content.decode()
    assert "1 new, 0 there already" in page


def test_looking_at_many_lines_asks_no_more(ours: Shop) -> None:
    client = ours.client()

    def asked(count: int) -> int:
        text = "phone\n" + "".join(f"+1415666{number:04d}\n" for number in range(count))
        with CaptureQueriesContext(database) as found:
            assert choose(client, text).status_code == 200
        return len(found)

    assert asked(1000) == asked(2) <= 8
