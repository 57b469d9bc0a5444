"""Page access: decides whether the page may be served at SLUICE_MONITOR_HOST with the login that the settings have."""

from workers import extras
from workers.connections.loopback import is_loopback
from workers.errors import ConfigurationError
from workers.settings import Settings, get_settings

_SECRET_LENGTH = 32


def check() -> None:
    """Check that only people whom the settings name can reach the page. The server and `doctor` ask this.

    Raises:
      ConfigurationError: Other machines could reach the page without a login, or the login admits no person.
    """
    settings = get_settings()
    if settings.monitor_login == "oidc":
        _check_oidc(settings)
    elif not has_password(settings) and not is_loopback(settings.monitor_host):
        raise ConfigurationError(
            f"SLUICE_MONITOR_HOST={settings.monitor_host} would let others in, and no password is set",
            repair="`python -m workers password` makes the line for .env that sets one (docs/access.md). "
            "Or leave it at 127.0.0.1, where only this machine reaches it",
        )


def has_password(settings: Settings) -> bool:
    """Whether the settings have a password for a role."""
    return bool(settings.monitor_password or settings.monitor_viewer_password)


def _check_oidc(settings: Settings) -> None:
    extras.require("oidc", "SLUICE_MONITOR_LOGIN=oidc")
    from streamlit import auth_util
    from streamlit.errors import StreamlitAuthError
    from streamlit.web.server.server_util import get_cookie_secret

    if not settings.monitor_operators and not settings.monitor_viewers:
        raise ConfigurationError(
            "SLUICE_MONITOR_LOGIN=oidc lets no person in",
            repair="name them in SLUICE_MONITOR_OPERATORS and SLUICE_MONITOR_VIEWERS",
        )
    try:
        auth_util.validate_auth_credentials("default")
    except StreamlitAuthError as error:
        message = " ".join(str(error).split())
        raise ConfigurationError(f"SLUICE_MONITOR_LOGIN=oidc: {message} docs/access.md has an example") from None
    if len(get_cookie_secret()) < _SECRET_LENGTH:
        raise ConfigurationError(
            f"cookie_secret in .streamlit/secrets.toml has fewer than {_SECRET_LENGTH} characters, so that it can be "
            "guessed, and any person be impersonated",
            repair="python -c 'import secrets; print(secrets.token_hex(32))' prints a good one",
        )
