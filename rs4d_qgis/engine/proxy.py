"""QGIS's network proxy, for the programs that a set-up starts."""

from __future__ import annotations

from urllib.parse import quote

from qgis.core import QgsApplication, QgsAuthMethodConfig, QgsSettings

_SCHEMES = {"HttpProxy": "http", "HttpCachingProxy": "http", "Socks5Proxy": "socks5"}


def proxy_words() -> str:
    """The proxy of QGIS's settings, for users: without name and password."""
    return _proxy("", "") or "the system's"


def proxy_variables() -> dict[str, str]:
    """The variables that tell pip of the proxy in QGIS's settings; none where QGIS uses the system's, as pip does.

    May ask the user for the master password, so it is called on the main thread.
    """
    url = _proxy(*_credentials())
    return {} if url is None else dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url)


def proxy_url(kind: str, host: str, port: str, user: str, password: str) -> str | None:
    """The proxy as one URL, None where QGIS's settings name none of its own."""
    scheme = _SCHEMES.get(kind)
    if scheme is None or not host:
        return None
    login = f"{quote(user, safe='')}{':' + quote(password, safe='') if password else ''}@" if user else ""
    return f"{scheme}://{login}{host}{':' + port if port else ''}"


def _proxy(user: str, password: str) -> str | None:
    settings = QgsSettings()
    if not settings.value("proxy/proxyEnabled", False, type=bool):
        return None
    kind, host, port = (_text(settings, f"proxy/{name}") for name in ("proxyType", "proxyHost", "proxyPort"))
    return proxy_url(kind, host, port, user, password)


def _credentials() -> tuple[str, str]:
    settings = QgsSettings()
    stored = _text(settings, "proxy/authcfg")
    if stored and settings.value("proxy/proxyEnabled", False, type=bool):
        config = QgsAuthMethodConfig()
        found = QgsApplication.authManager().loadAuthenticationConfig(stored, config, True)
        # PyQGIS gives the filled config back in some versions, and fills the given one in others.
        config = found[1] if isinstance(found, tuple) else config
        return config.config("username"), config.config("password")
    return _text(settings, "proxy/proxyUser"), _text(settings, "proxy/proxyPassword")


def _text(settings: QgsSettings, key: str) -> str:
    value = settings.value(key, "")
    return "" if value is None else str(value)
