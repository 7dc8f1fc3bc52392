"""Addresses that a page may carry."""

import base64
from urllib.parse import quote, urlsplit


def data_uri(png: bytes) -> str:
    """Return the address of a PNG file that holds it whole, so that a page carries its pictures."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def web_link(address: str | None) -> str | None:
    """Return an address of http or https, or a path from the page's own host, with unsafe characters quoted.

    None for any other. A path starts with one slash; with two it would name a host.
    """
    if address is None:
        return None
    is_path = address.startswith("/") and address[1:2] not in ("/", "\\")
    if not is_path and urlsplit(address).scheme not in ("http", "https"):
        return None
    return quote(address, safe=":/?#@!&=+,;%~-._")
