"""The WSGI application: Django behind granian, with a short way in for the charge."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lava.settings")

django = get_wsgi_application()

from lava.api.door import Door  # noqa: E402

application = Door(django)
