"""Pages that show what others wrote: which scripts may run on them."""

from __future__ import annotations

import base64
import hashlib
import re

MARK = "<!--policy-->"  # in a template's head
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def with_policy(template: str) -> str:
    """A template with a content security policy in place of :data:`MARK`: only the scripts that it has now may run, by
    their hashes, and nothing is loaded from anywhere (https://www.w3.org/TR/CSP3/).

    What others wrote is put in afterwards, as text; should markup of theirs ever get in, a browser runs none of it.
    """
    scripts = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in _SCRIPT.findall(template)
    )
    allowed = scripts or "'none'"
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )
    return template.replace(MARK, f'<meta http-equiv="Content-Security-Policy" content="{policy}">', 1)
