"""Addresses that a page may carry."""

import base64
from urllib.parse import quote, urlsplit


def data_uri(png: bytes) -> str:
    """A PNG file inside the page itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def web_link(address: str | None) -> str | None:
    """The address with unsafe characters quoted if it is one of http or https; else None."""
    if address is None or urlsplit(address).scheme not in ("http", "https"):
        return None
    return quote(address, safe=":/?#@!&=+,;%~-._")
