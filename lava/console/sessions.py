"""The console's sessions in the database, under a hash of the cookie: a dump signs nobody in.

The settings name this module as `SESSION_ENGINE`. Whoever else keeps a session's key keeps
`stored` of it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.sessions.backends import db
from django.contrib.sessions.base_session import AbstractBaseSession
from django.utils import timezone


def stored(session_key: str) -> str:
    """What the database has of a cookie's value: 160 bits of its SHA-256, in hex."""
    return hashlib.sha256(session_key.encode()).hexdigest()[:40]


class SessionStore(db.SessionStore):
    """Django's own, but for the key of the row."""

    def exists(self, session_key: str) -> bool:
        """As Django's."""
        return super().exists(stored(session_key))

    def delete(self, session_key: str | None = None) -> None:
        """As Django's."""
        if key := session_key or self.session_key:
            super().delete(stored(key))

    def create_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        """As Django's."""
        made: AbstractBaseSession = super().create_model_instance(data)
        made.session_key = stored(made.session_key)
        return made

    def _get_session_from_db(self) -> AbstractBaseSession | None:
        found: AbstractBaseSession | None = self.model.objects.filter(
            session_key=stored(str(self.session_key)), expire_date__gt=timezone.now()
        ).first()
        if found is None:
            self._session_key = None
        return found

    async def aexists(self, session_key: str) -> bool:
        """As Django's."""
        return await super().aexists(stored(session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        """As Django's."""
        if key := session_key or self.session_key:
            await super().adelete(stored(key))

    async def acreate_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        """As Django's."""
        made: AbstractBaseSession = await super().acreate_model_instance(data)
        made.session_key = stored(made.session_key)
        return made

    async def _aget_session_from_db(self) -> AbstractBaseSession | None:
        return await sync_to_async(self._get_session_from_db)()
