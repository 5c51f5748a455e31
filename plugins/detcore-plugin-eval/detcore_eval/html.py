"""Pages that need no other file and no network; the look of detcore's reports."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#1c1c1c;background:#fff}
table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:right}
td:first-child,th:first-child,td.name{text-align:left}
section{border-left:.4em solid #999;padding:.1em 1em;margin:1.2em 0;background:#f7f7f7}
section.error{border-color:#c62828}section.warning{border-color:#f0a000}section.note{border-color:#2878b8}
h3{margin:.4em 0}.pictures{display:flex;flex-wrap:wrap;gap:1em}figure{margin:.4em 0;max-width:23em}
figure img{max-width:100%}figcaption,li{font-size:.85em;overflow-wrap:anywhere}
"""
#: What a browser may load: pictures inside the page, its own style, and nothing else; no scripts.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, body: str, *, style: str = "") -> str:
    """A whole page.

    Args:
        title: Plain text.
        body: HTML; what comes from outside has to be escaped in it.
        style: More CSS.
    """
    head = (
        f"<meta charset='utf-8'><meta http-equiv='Content-Security-Policy' content=\"{_POLICY}\">"
        f"<meta name='viewport' content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style>"
    )
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{body}</body></html>\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts.

    Args:
        columns: Headings.
        rows: As many cells each.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def picture(image: UInt8[Tensor, "3 H W"], text: str, *, quality: int = 85) -> str:
    """An image inside the page.

    Args:
        image: RGB.
        text: What it shows, plain text.
        quality: Of the JPEG.
    """
    return f"<img alt='{escape(text, quote=True)}' src='{data_uri(image, quality=quality)}'>"


def data_uri(image: UInt8[Tensor, "3 H W"], *, quality: int = 85) -> str:
    """An image as an address that holds it.

    Args:
        image: RGB.
        quality: Of the JPEG.
    """
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def write(text: str, path: Path) -> None:
    """Writes a page; makes the folder where it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
