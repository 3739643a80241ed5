"""Files by name on the Hugging Face Hub: ``hf://ORG/NAME[@REVISION][/FILE]``, ``hf://datasets/ORG/NAME[@REVISION]``.

Fetched by ``huggingface_hub`` into its own cache; a token comes from its environment variable (``HF_TOKEN``) or its own
login, never from a configuration. ``HF_HUB_OFFLINE=1`` takes what is in the cache.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError, require_extra

PREFIX = "hf://"
ADDRESS = re.compile(
    r"hf://(?P<datasets>datasets/)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[^/].*))?"
)


@dataclass(frozen=True)
class Address:
    """A repository on the Hub.

    Attributes:
        repo: "org/name".
        kind: "model" or "dataset".
        revision: branch, tag or commit; None: the newest.
        file: one file in it; None: all that is needed.
    """

    repo: str
    kind: str = "model"
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """
        Raises:
            UserError: if it is no address of the Hub.
        """
        match = ADDRESS.fullmatch(text)
        if match is None:
            raise UserError(f"{text}: no address on the Hub; write hf://ORG/NAME, hf://ORG/NAME@REVISION/FILE or so")
        kind = "dataset" if match["datasets"] else "model"
        return cls(match["repo"], kind, match["revision"], match["file"])


def is_address(place: object) -> bool:
    """Whether a path names a repository on the Hub."""
    return str(place).startswith(PREFIX)


def local_path(place: str | Path) -> Path:
    """A path as it is (``~`` filled in), or what a Hub address names, fetched: a file, or the folder of a repository.

    Raises:
        UserError: if the address is none, nothing answers, or access is refused.
    """
    if not is_address(place):
        return Path(place).expanduser()
    address = Address.parse(str(place))
    options = {"repo_type": address.kind, "revision": address.revision}
    if address.file:
        return Path(_ask("hf_hub_download", address, filename=address.file, **options))
    return Path(_ask("snapshot_download", address, **options))


def dataset_root(place: str | Path, cache: Path) -> Path:
    """``data_root``: a folder as it is, or the folder above a repository of the Hub, where layouts look for its name.

    Raises:
        UserError: as :func:`local_path`.
    """
    if not is_address(place):
        return Path(place).expanduser()
    address = Address.parse(str(place))
    organisation, name = address.repo.split("/")
    root = cache / "hub" / organisation / (address.revision or "newest")
    _ask("snapshot_download", address, repo_type=address.kind, revision=address.revision, local_dir=root / name)
    return root


def hub() -> Any:
    """The package ``huggingface_hub``.

    Raises:
        UserError: if it is missing; the message names the extra.
    """
    return require_extra("huggingface_hub", "hub", PREFIX)


def _ask(function: str, address: Address, **options: Any) -> str:
    package = hub()
    try:
        return getattr(package, function)(address.repo, **options)
    except package.errors.GatedRepoError:
        raise UserError(f"{PREFIX}{address.repo}: access must be asked for on its page; then set HF_TOKEN") from None
    except package.errors.RepositoryNotFoundError:
        raise UserError(
            f"{PREFIX}{address.repo}: no such {address.kind} on the Hub, or a private one (set HF_TOKEN)"
        ) from None
    except package.errors.RevisionNotFoundError:
        raise UserError(f"{PREFIX}{address.repo}: has no revision {address.revision}") from None
    except package.errors.LocalEntryNotFoundError as error:
        raise UserError(f"{PREFIX}{address.repo}: not in the cache, and no answer ({_short(error)})") from None
    except package.errors.EntryNotFoundError:
        raise UserError(f"{PREFIX}{address.repo}: has no file {address.file}") from None
    except (package.errors.HfHubHTTPError, package.errors.HFValidationError, OSError, ValueError) as error:
        raise UserError(f"{PREFIX}{address.repo}: the Hub says {_short(error)}") from None


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
