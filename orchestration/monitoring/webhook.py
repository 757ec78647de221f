"""Posting a text to a webhook, in the form that Slack takes, and in bounded time.

The address is a secret: whoever has it can post. No text from here has any of it.
"""

from __future__ import annotations

import html

_LARGEST_ANSWER = 64_000


def post(address: str, text: str, seconds: float) -> str | None:
    """Post `{"text": …}`; returns why that failed, None when the other side has taken it. Takes `seconds` at most."""
    # Loaded by the first post: most homes have no webhook, and loading the definitions must not take long.
    import requests
    import urllib3

    from producer.http import Allowance, BoundedAdapter

    allowance = Allowance(seconds, _LARGEST_ANSWER)
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, BoundedAdapter(allowance))
            # Slack takes & < > for markup of its own.
            content = {"text": html.escape(text, quote=False)}
            with session.post(address, json=content, timeout=seconds, allow_redirects=False, stream=True) as answer:
                status = answer.status_code
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        # The text of such an error quotes the address.
        return f"the webhook does not answer ({type(error).__name__})"
    return None if 200 <= status < 300 else f"the webhook answers {status}"
