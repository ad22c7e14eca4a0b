"""The pages that people see who have a link: plain HTML without a script, and nothing of anybody else's.

Buttons post to the page's own address. A browser takes the first button for what Enter means in a text field, so the
first one is one that does nothing: nobody approves by typing a name.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from html import escape
from typing import Final

from seawall.kernel.approval import COMMENT_CHARS_MAX, PERSON_CHARS_MAX
from seawall.kernel.seam.approval import Asked, State, Via

_STYLE: Final = (
    "body{font:1rem/1.5 system-ui,sans-serif;margin:3rem auto;max-width:34rem;padding:0 1rem}"
    "h1{font-size:1.3rem;overflow-wrap:anywhere}label{display:block;margin:1rem 0}"
    "input{display:block;width:100%;box-sizing:border-box;font:inherit;padding:.4rem}"
    "button{font:inherit;padding:.5rem 1.5rem;margin:0 1rem 0 0}"
)
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS: Final = (
    "Content-Type: text/html; charset=utf-8\r\n"
    "Cache-Control: no-store\r\n"
    f"Content-Security-Policy: default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "X-Frame-Options: DENY\r\n"
    "X-Robots-Tag: noindex, nofollow\r\n"
).encode()

_VIA: Final = {
    Via.LINK: "by their own link", Via.FORM: "by the name that was given with the link", Via.API: "by an operator",
}  # fmt: skip


def page(title: str, *paragraphs: str) -> bytes:
    """A page that only says something; all of it is plain text."""
    return _whole(title, "".join(f"<p>{escape(text)}</p>" for text in paragraphs))


def form(asked: Asked, person: str | None, *, trouble: str = "", name: str = "", comment: str = "") -> bytes:
    """The page that asks.

    Args:
        person: For whom the link was made; None: whoever has it gives his name.
        trouble: What was wrong with what was sent.
        name, comment: As they were sent.
    """
    who = (
        f'<label>Your name <input name="name" required maxlength="{PERSON_CHARS_MAX}" value="{escape(name)}"></label>'
        if person is None
        else f"<p>This link is for {escape(person)}.</p>"
    )
    said = f"<p><strong>{escape(trouble)}</strong></p>" if trouble else ""
    return _whole(
        asked.question,
        f"<p>Until {shown(asked.expires_at)}. Whoever decides first decides for all.</p>{said}"
        f'<form method="post"><button type="submit" disabled hidden></button>{who}'
        f'<label>Comment <input name="comment" maxlength="{COMMENT_CHARS_MAX}" value="{escape(comment)}"></label>'
        '<button name="answer" value="yes">Approve</button> <button name="answer" value="no">Decline</button></form>',
    )


def standing(asked: Asked) -> str:
    """How a request stands that isn't open, in a sentence."""
    verdict = asked.verdict
    if verdict is not None:
        word = "Approved" if verdict.approved else "Declined"
        at = datetime.fromtimestamp(verdict.at_us / 1_000_000, tz=UTC)
        return f"{word} by {verdict.by} ({_VIA[verdict.via]}) at {shown(at)}."
    if asked.state is State.EXPIRED:
        return f"Nobody decided by {shown(asked.expires_at)}."
    return "It isn't needed any more: the run that asked " + (
        f"was {asked.run_status}." if asked.run_status == "cancelled" else "has ended."
    )


def shown(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _whole(title: str, body: str) -> bytes:
    said = escape(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="robots" content="noindex">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{said}</title><style>{_STYLE}</style></head><body><h1>{said}</h1>{body}</body></html>\n"
    ).encode("utf-8", "replace")
