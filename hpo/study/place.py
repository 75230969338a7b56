"""The place of a study's checkpoints: a folder, a URL of fsspec, or the study's own database.

Border: reads what a flag says, and refuses what could never work; `objects` and `hpo.database`
store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpo.errors import ConfigurationError

DATABASE = "database"
FLAG = "--checkpoint_dir"

_SECRETS: Mapping[str, str] = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or 'gcloud auth application-default login'",
}
_OTHER_SECRETS = "variables FSSPEC_{name}_..., or ~/.config/fsspec/conf.json"
# A folder of such a name would be made, and no other host would read it.
_HALF_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/(?!/)")
# What such a URL names is lost with its process, or cannot be written.
_UNFIT = {
    "memory": "keeps checkpoints in a process, with which they end",
    "http": "cannot be written",
    "https": "cannot be written",
    "data": "cannot be written",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of a study's checkpoints.

    Attributes:
        folder: The folder that was named; None for the one below HPO_HOME.
        copies: Where a worker copies them to from that folder: a URL or `DATABASE`; None if other
            hosts read the folder, or nothing.
    """

    folder: Path | None = None
    copies: str | None = None

    @classmethod
    def of(cls, given: str | Path | None) -> Place:
        """Read the value of `--checkpoint_dir`.

        Raises:
            ConfigurationError: It names no place that outlives a worker, or holds a password.
        """
        text = None if given is None else str(given)
        if not text:
            return cls()
        if text == DATABASE:
            return cls(copies=DATABASE)
        if isinstance(given, Path) or "://" not in text:
            if _HALF_URL.match(text):
                raise ConfigurationError(
                    f"'{text}' is no URL for want of a slash; write "
                    f"'{text.replace(':/', '://', 1)}', or './{text}' for a folder ({FLAG})"
                )
            if Path(text).is_file():
                raise ConfigurationError(f"'{text}' is a file; name a folder ({FLAG})")
            return cls(folder=Path(text))
        _refuse(text)
        return cls(copies=text.rstrip("/"))

    def folder_of(self, uid: str, *, home: Path) -> Path:
        """The local folder of a study's checkpoints, also where it was named for this study."""
        folder = (self.folder or home / "checkpoints").absolute()
        return folder if folder.name == uid else folder / uid

    @property
    def url(self) -> str | None:
        """The URL that it is; None for a folder and for the database."""
        return None if self.copies == DATABASE else self.copies

    def stored(self) -> str | None:
        """The place as a study's attributes name it."""
        return self.copies or (None if self.folder is None else str(self.folder.absolute()))


def _refuse(url: str) -> None:
    """Refuse a URL that cannot work, or that would show a password to whoever sees it."""
    scheme = url.partition("://")[0].lower()
    shown = without_secrets(url)
    secrets = _SECRETS.get(scheme, _OTHER_SECRETS.format(name=scheme.upper()))
    # Up to the last @, because a secret key of Amazon's may contain a /.
    userinfo = url.partition("://")[2].rpartition("@")[0]
    if ":" in userinfo or "?" in url or "#" in url:
        raise ConfigurationError(
            f"'{shown}' holds a password or settings, which logs and lists of processes would "
            f"show; write it without them, and give them to the workers by {secrets} ({FLAG})"
        )
    if "::" in url or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        raise ConfigurationError(
            f"'{shown}' is no plain URL; write one as s3://BUCKET/FOLDER ({FLAG})"
        )
    if scheme in _UNFIT:
        raise ConfigurationError(
            f"'{shown}' {_UNFIT[scheme]}; name a folder, a URL as s3://BUCKET/FOLDER, or "
            f"'{DATABASE}' ({FLAG})"
        )


def without_secrets(url: str) -> str:
    """The URL without whatever may be a password in it."""
    # The match runs to the last @, because a password may contain @ and /.
    text = re.sub(r"(?s)(://).*@", r"\1***@", url)
    return re.sub(r"(?s)[?#].*", "?***", text)
