"""Documentation pages whose scripts come from here, not from somebody else's server.

The scripts of Swagger UI and ReDoc are taken from the wheel `fastapi-offline`; of it nothing else is used.
"""

from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

_CSP: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    # Both write style elements; ReDoc searches in a worker it makes from text.
    "style-src 'self' 'unsafe-inline'; worker-src blob:; frame-ancestors 'none'; base-uri 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="docs/assets/favicon.png">{style}</head>
<body>{body}<script src="docs/assets/{script}"></script>{start}</body></html>
"""
_SWAGGER: Final = _PAGE.format(
    title="Tidegate",
    style='<link rel="stylesheet" href="docs/assets/swagger-ui.css">',
    body='<div id="page" data-document="/openapi.json"></div>',
    script="swagger-ui-bundle.js",
    start='<script src="docs/start.js"></script>',
)
_REDOC: Final = _PAGE.format(
    title="Tidegate",
    style="",
    body='<redoc spec-url="/openapi.json"></redoc>',
    script="redoc.standalone.js",
    start="",
)
_START: Final = """SwaggerUIBundle({
  url: document.getElementById("page").dataset.document,
  dom_id: "#page",
  layout: "BaseLayout",
  persistAuthorization: false,
});
"""


def add_docs(app: FastAPI) -> None:
    """Serve `/docs` and `/redoc`."""
    headers = {"Content-Security-Policy": _CSP}

    async def swagger(request: Request) -> Response:
        return HTMLResponse(_SWAGGER, headers=headers)

    async def redoc(request: Request) -> Response:
        return HTMLResponse(_REDOC, headers=headers)

    async def start(request: Request) -> Response:
        return Response(_START, media_type="text/javascript")

    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]), name="docs-assets")
    app.add_route("/docs", swagger, include_in_schema=False)
    app.add_route("/docs/start.js", start, include_in_schema=False)
    app.add_route("/redoc", redoc, include_in_schema=False)
