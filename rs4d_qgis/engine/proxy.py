"""QGIS's network proxy, for the programs that a set-up starts."""

from __future__ import annotations

from urllib.parse import quote

from qgis.core import QgsApplication, QgsAuthMethodConfig, QgsSettings

_SCHEMES = {"HttpProxy": "http", "HttpCachingProxy": "http", "Socks5Proxy": "socks5"}


def proxy_variables() -> dict[str, str]:
    """The variables that tell pip of the proxy in QGIS's settings; none where QGIS uses the system's, as pip does.

    May ask the user for the master password, so it is called on the main thread.
    """
    settings = QgsSettings()
    if not settings.value("proxy/proxyEnabled", False, type=bool):
        return {}
    url = proxy_url(
        str(settings.value("proxy/proxyType", "")),
        str(settings.value("proxy/proxyHost", "")),
        str(settings.value("proxy/proxyPort", "")),
        *_credentials(settings),
    )
    return {} if url is None else dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url)


def proxy_url(kind: str, host: str, port: str, user: str, password: str) -> str | None:
    """The proxy as one URL, None where QGIS's settings name none of its own."""
    scheme = _SCHEMES.get(kind)
    if scheme is None or not host:
        return None
    login = f"{quote(user, safe='')}{':' + quote(password, safe='') if password else ''}@" if user else ""
    return f"{scheme}://{login}{host}{':' + port if port else ''}"


def _credentials(settings: QgsSettings) -> tuple[str, str]:
    stored = str(settings.value("proxy/authcfg", "") or "")
    if stored:
        config = QgsAuthMethodConfig()
        if QgsApplication.authManager().loadAuthenticationConfig(stored, config, True):
            return config.config("username"), config.config("password")
    return str(settings.value("proxy/proxyUser", "") or ""), str(settings.value("proxy/proxyPassword", "") or "")
