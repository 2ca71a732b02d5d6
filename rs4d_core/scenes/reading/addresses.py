"""Scenes at an address: how GDAL names them, how it fetches them, and what of an address may be told.

Only the parts of a file that are looked at travel, in ranges. Passwords, and the signatures that cloud stores put into
addresses, are for opening a scene: no message and no result shows them.
"""

import os
import re
from collections.abc import Iterable

_SERVICES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
# What stands in front of names in those file systems, at their beginning and not inside of others'.
_SERVICE = re.compile(r"(?<![\w/])/vsi(?:curl/(?=https?://)|(s3|gs|az)/)", re.I)
_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
# File systems of GDAL that reach over a network; they also stand inside others, as in /vsizip//vsicurl/...
_REMOTE = re.compile(
    r"/vsi(curl|s3|gs|azure|az|adls|oss|swift|webhdfs|hdfs)(_streaming)?[/?]|(https?|ftp|s3|gs|az|oss|swift)://", re.I
)
# An address inside a text: scheme, user and password, place, query.
_IN_TEXT = re.compile(r"""([a-zA-Z][a-zA-Z0-9+.-]*://)([^\s/?#"'<>]*@)?([^\s?#"'<>]*)([?#][^\s"'<>]*)?""")

# A server that does not answer is given up, one that is slow is not, and one that is busy is asked again. Nobody lists
# the folder of a remote file or asks for files beside it, since either may take longer than reading the scene.
_NETWORK = {
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    # The head of a Cloud Optimized GeoTIFF in one request.
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
}
_ALONE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}


def gdal_name(name: str) -> str:
    """What GDAL calls a scene: http(s)://, s3://, gs:// and az:// as names in its file systems, all else as it is."""
    scheme = _ADDRESS.match(name)
    if scheme is None or scheme[1].lower() not in _SERVICES:
        return name
    return _SERVICES[scheme[1].lower()] + name[scheme.end() :]


def address(text: str) -> str:
    """A name of GDAL's, or a text with such names, with addresses in their place: the way back from `gdal_name`."""
    return _SERVICE.sub(lambda found: f"{found[1].lower()}://" if found[1] else "", text)


def is_remote(name: str) -> bool:
    """Whether opening this name asks another machine."""
    return _REMOTE.search(name) is not None


def network_options(names: Iterable[str]) -> dict[str, str]:
    """GDAL's configuration for opening and reading these files together; what the environment says goes first.

    Empty where all are local.
    """
    remote = [is_remote(name) for name in names]
    if not any(remote):
        return {}
    # Beside a local file may lie its mask or its place, so it is not taken for alone because of a remote one.
    options = {**_NETWORK, **(_ALONE if all(remote) else {})}
    return {name: value for name, value in options.items() if name not in os.environ}


def shown(name: str) -> str:
    """The name of a scene as it may be shown and recorded: without user, password and query, where it is an address."""
    if "/vsicurl?" in name:
        # GDAL's own way of giving headers and the like: the address is one of its parameters, encoded.
        return "/vsicurl?..."
    scheme = _ADDRESS.search(name)
    if scheme is None:
        return name
    place, slash, path = re.split(r"[?#]", name[scheme.end() :], maxsplit=1)[0].partition("/")
    return name[: scheme.end()] + place.rpartition("@")[2] + slash + path


def without_secrets(text: str) -> str:
    """A text, such as an error of GDAL, whose addresses have lost user, password and query."""
    return _IN_TEXT.sub(r"\1\3", address(text))
