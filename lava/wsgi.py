"""The WSGI application: Django behind granian."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lava.settings")

application = get_wsgi_application()
