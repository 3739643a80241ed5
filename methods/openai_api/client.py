"""One question to a server that speaks OpenAI's protocol, with its key, its retries and its errors.

The key comes from the environment, goes into the header of requests and nowhere else: messages and answers that repeat
it are changed.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vgbench.core.errors import UserError, require_extra

LOOPBACK = ("localhost", "127.0.0.1", "::1")
NO_KEY = "none"  # the client library wants a text; a server without keys does not look at it
HIDDEN = "***"


@dataclass(frozen=True)
class Reply:
    """What a server said.

    Attributes:
        text: the words, empty where there are none.
        remark: why there are none ("refusal", "malformed", "content_filter"), or why they break off ("length").
        prompt_tokens, answer_tokens: as the server counts them, None if it does not.
    """

    text: str
    remark: str = ""
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class Client:
    """A connection that many threads may use.

    Args:
        address: of the server, e.g. ``http://localhost:8000/v1``.
        model: its name for the model.
        key_variable: environment variable with the key; None: the server wants none.
        retries: further tries after an error that may pass (no connection, time-out, 408, 409, 429, 5xx), with a pause
            that doubles; the pause that a server asks for (``Retry-After``) is kept.
        timeout: seconds for one try.

    Raises:
        UserError: if the extra or the key is missing, or the address holds a password.
    """

    def __init__(self, address: str, model: str, key_variable: str | None, retries: int, timeout: float) -> None:
        self._library = require_extra("openai", "api", "method=openai")
        self.address, self.model, self.retries = _checked(address), model, retries
        self.key_variable = key_variable
        self._key = _key(key_variable, self.address)
        self._client = self._library.OpenAI(
            base_url=self.address, api_key=self._key or NO_KEY, max_retries=retries, timeout=timeout
        )

    def ask(self, messages: list[dict[str, Any]], **options: Any) -> Reply:
        """One answer.

        An answer that cannot be read as OpenAI's protocol says is asked for again; if it stays so, the reply is empty
        with the remark "malformed".

        Raises:
            UserError: if the server is not there, refuses the key, does not know the model, or goes on failing.
        """
        for attempt in range(self.retries + 1):
            try:
                response = self._client.chat.completions.create(model=self.model, messages=messages, **options)
                return self._reply(response)
            except self._library.APIResponseValidationError:
                pass
            except self._library.APIError as error:
                raise self._problem(error) from None
            except (AttributeError, IndexError, KeyError, TypeError, ValueError):
                pass  # what came is JSON, or no JSON, of another form
            if attempt < self.retries:
                time.sleep(min(0.5 * 2**attempt, 8.0))
        return Reply("", "malformed")

    def _reply(self, response: Any) -> Reply:
        choice = response.choices[0]
        message, usage = choice.message, response.usage
        text, refusal = message.content, getattr(message, "refusal", None)
        if not isinstance(text, str) and text is not None:
            raise TypeError(f"content is a {type(text).__name__}")
        reason = choice.finish_reason if choice.finish_reason not in (None, "stop") else ""
        counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
        numbers = [count if isinstance(count, int) else None for count in counts]
        return Reply(self._hidden(text or refusal or ""), "refusal" if refusal else str(reason), *numbers)

    def _problem(self, error: Any) -> UserError:
        """One line that says what to do."""
        library = self._library
        if isinstance(error, library.APITimeoutError):
            return UserError(
                f"method.address={self.address}: no answer within method.timeout= seconds in {self.retries + 1} tries"
            )
        if isinstance(error, library.APIConnectionError):
            cause = " ".join(str(error.__cause__ or error).split())[:160]
            return UserError(
                f"method.address={self.address}: no server answers there ({self._hidden(cause)}); start it, or correct "
                "the address"
            )
        status = getattr(error, "status_code", None)
        if status in (401, 403):
            where = f"the key in {self.key_variable}" if self._key else "a request without a key (method.key_variable=)"
            return UserError(f"method.address={self.address}: the server refuses {where} (status {status})")
        said = self._hidden(" ".join(str(getattr(error, "message", error)).split()))[:200]
        if status == 404:
            return UserError(
                f"method.address={self.address}: nothing there for model {self.model!r} (status 404: {said}); correct "
                "method.model= or method.address= (it usually ends in /v1)"
            )
        if status == 429:
            return UserError(
                f"method.address={self.address}: too many requests, {self.retries + 1} tries (status 429: {said}); "
                "lower method.concurrency= and go on with resume=true"
            )
        return UserError(f"method.address={self.address}: status {status}: {said}")

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, HIDDEN) if self._key else text


def _checked(address: str) -> str:
    """
    Raises:
        UserError: unless it is an address of http or https without a password or a query in it.
    """
    try:
        parts = urlsplit(address)
        port_is_a_number = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_a_number = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_a_number:
        raise UserError(f"method.address={address[:60]}: not an address; write http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            "method.address: an address is written into records, so that no user, password or key may stand in it; "
            "keys come from the environment (method.key_variable=)"
        )
    return address.rstrip("/")


def _key(variable: str | None, address: str) -> str | None:
    """The key in the environment; None for a server on this machine that wants none.

    Raises:
        UserError: if it is not set.
    """
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value and urlsplit(address).hostname not in LOOPBACK:
        raise UserError(
            f"{variable} is not set: put the server's key into this environment variable, name another one with "
            "method.key_variable=, or say method.key_variable=null for a server without keys"
        )
    return value or None
