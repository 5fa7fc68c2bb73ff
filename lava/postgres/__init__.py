"""The embedded PostgreSQL: a database backend (`lava.postgres`) that starts its own cluster.

Used where no DATABASE_URL is set: on a developer's machine, in the tests, under `manage.py up`.
`base` is the backend, `cluster` the server it starts at the first connection.
"""
