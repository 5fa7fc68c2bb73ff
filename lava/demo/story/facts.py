"""The logins of the story: told at its first run, and the same at every later one.

A password and a secret key cannot be read back from the database, so they are kept in one file,
readable by its owner alone. Where the file was lost, or is of another database, new ones are made.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from billing.models import Connection, Merchant, User
from lava.demo.story import cast, stage


class Kept:
    """The file of what cannot be read back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            found = {}
        self.told: dict[str, Any] = found if isinstance(found, dict) else {}

    def password(self) -> tuple[User, str]:
        """The owner and their password."""
        known = User.objects.filter(email=cast.OWNER_EMAIL).first()
        kept = self.told.get("password")
        if known is not None and kept and self.told.get("user") == known.pk:
            return known, kept
        password = secrets.token_urlsafe(12)
        if known is None:
            known = stage.owner(password)
        else:
            known.set_password(password)
            known.save(update_fields=["password"])
        self.told |= {"user": known.pk, "password": password}
        self._write()
        return known, password

    def key(self, merchant: Merchant, who: User) -> str:
        """The secret key of a merchant's sandbox."""
        kept = self.told.setdefault("keys", {})
        key = stage.key_of(merchant, kept.get(merchant.public_id, ""), who)
        if kept.get(merchant.public_id) != key:
            kept[merchant.public_id] = key
            self._write()
        return key

    def token(self, merchant: Merchant) -> str:
        """The forward token that a merchant was given before; empty before the first."""
        kept: str = self.told.get("tokens", {}).get(merchant.public_id, "")
        return kept

    def keep_token(self, merchant: Merchant, text: str) -> None:
        """Keep a merchant's forward token."""
        if self.token(merchant) != text:
            self.told.setdefault("tokens", {})[merchant.public_id] = text
            self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(self.told, indent=2) + "\n")
        fresh.rename(self.path)


def shown(set_up: stage.Stage) -> Connection:
    """The customer whose connection `up` names."""
    phones = {person.name: person.phone for person in set_up.business.customers}
    found: Connection = Connection.objects.of(set_up.merchant).get(
        customer__phone=phones[set_up.business.shown], status=Connection.Status.ACTIVE
    )
    return found


def of(set_up: stage.Stage, *, key: str) -> dict[str, str]:
    """What a merchant's backend starts from."""
    return {
        "name": set_up.merchant.name,
        "secret_key": key,
        "meter_slug": set_up.business.shown_meter,
        "subscription_config_id": set_up.plans[set_up.business.shown_plan].public_id,
        "connection_id": shown(set_up).public_id,
    }
