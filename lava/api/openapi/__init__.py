"""The API's description: OpenAPI 3.1 at `/v1/openapi.json`, browsable at `/docs`.

Paths and methods are those of the code; `operations` says what each takes and gives, `schemas` the
shapes, `generate` joins them for drf-spectacular. A path that is not described fails the tests, and
so does an answer that is not as described.
"""
