"""Settings from environment variables: home folder, storage, visible GPUs.

Border: the only module that reads environment variables; `VARIABLES` lists them all. Its imports
are within its functions: `hpo.start` uses it while a module of the working folder could still be
taken for one of Python's.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

# Sets are iterated in one order in every process, and `hash` of a text is one number.
HASH_SEED = "0"
VARIABLES = {
    "HPO_STORAGE": "the PostgreSQL database, as --storage takes it; keeps a password out of argv",
    "HPO_STORAGE_PASSWORD_FILE": "a file with the password of a storage URL that has none, as a "
    "container's secret",
    "HPO_HOME": "the folder of the embedded server, checkpoints and logs (default: hpo below "
    "XDG_DATA_HOME, else ~/.local/share/hpo)",
    "XDG_DATA_HOME": "the user's data folder, where HPO_HOME is not set",
    "RAY_ADDRESS": "the cluster of --launcher ray, which Ray itself reads (default: one that runs "
    "on this host, else a new one)",
    "CUDA_VISIBLE_DEVICES": "the GPUs that may be used; empty: none, train on the CPU",
}


def home() -> Path:
    """The folder of the embedded server, checkpoints and logs."""
    from pathlib import Path

    from hpo.embedded import server

    given = os.environ.get("HPO_HOME")
    return Path(given).absolute() if given else server.default_home(os.environ)


def named_storage(storage: str | None = None) -> str | None:
    """The given URL, else the one in HPO_STORAGE; None for the embedded server.

    Raises:
        ConfigurationError: HPO_STORAGE_PASSWORD_FILE cannot be read, or the URL cannot be used.
    """
    named = storage or os.environ.get("HPO_STORAGE") or None
    file = os.environ.get("HPO_STORAGE_PASSWORD_FILE")
    return named if named is None or not file else _with_password(named, file)


def _with_password(url: str, file: str) -> str:
    """The URL with the password that is the first line of a file, unless it has one itself."""
    from hpo.database.connection import parse_url
    from hpo.errors import ConfigurationError

    parsed = parse_url(url)
    if parsed.password is not None:
        return url
    try:
        with open(file, encoding="utf-8") as opened:  # noqa: PTH123
            password = opened.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ConfigurationError(
            f"cannot read '{file}': {why} (HPO_STORAGE_PASSWORD_FILE)"
        ) from error
    if not password:
        raise ConfigurationError(f"the first line of '{file}' is empty (HPO_STORAGE_PASSWORD_FILE)")
    return parsed.set(password=password).render_as_string(hide_password=False)


def storage_url(storage: str | None = None, *, home_folder: Path | None = None) -> str:
    """The URL of the named storage, else of the embedded server, which is started if needed.

    Raises:
        ConfigurationError: The URL cannot be used.
        PostgresError: The embedded server cannot be started.
    """
    named = named_storage(storage)
    if named is not None:
        from hpo.database.connection import parse_url

        return parse_url(named).render_as_string(hide_password=False)
    from hpo.embedded import server

    return server.start(home_folder or home()).url


def visible_gpus() -> str | None:
    """The value of CUDA_VISIBLE_DEVICES; None if it is not set."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def ray_address() -> str:
    """The address of a Ray cluster in RAY_ADDRESS; empty without one."""
    return os.environ.get("RAY_ADDRESS", "")


def is_hash_seeded() -> bool:
    """Return whether PYTHONHASHSEED has the one value that all processes have."""
    return os.environ.get("PYTHONHASHSEED") == HASH_SEED


def variables() -> dict[str, str]:
    """All environment variables, for processes that run objectives: with the fixed hash seed.

    Where this package was found in a folder of `sys.path`, as in a clone that is not installed, the
    children find it there, too.
    """
    found = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    given = found.get("PYTHONPATH", "").split(os.pathsep)
    try:
        is_on_path = root in [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100
    except FileNotFoundError:
        # The working folder was removed, which an entry '' stands for.
        is_on_path = root in sys.path
    is_installed = root.endswith("-packages")
    if is_on_path and not is_installed and root not in given:
        found["PYTHONPATH"] = os.pathsep.join([root, *filter(None, given)])
    return found
