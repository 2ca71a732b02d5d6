"""A web service of maps on this machine: XYZ tiles and WMS, of one raster file."""

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse
from uuid import uuid4

from osgeo import gdal
from qgis.PyQt.QtCore import QBuffer, QIODevice
from qgis.PyQt.QtGui import QImage

HALF_WORLD = 20037508.342789244
TILE_PX = 256

_CAPABILITIES = """<?xml version="1.0" encoding="UTF-8"?>
<WMS_Capabilities version="1.3.0" xmlns="http://www.opengis.net/wms" xmlns:xlink="http://www.w3.org/1999/xlink">
  <Service><Name>WMS</Name><Title>test</Title><OnlineResource xlink:href="{url}"/></Service>
  <Capability>
    <Request>
      <GetCapabilities><Format>text/xml</Format><DCPType><HTTP><Get><OnlineResource xlink:href="{url}"/></Get></HTTP>
      </DCPType></GetCapabilities>
      <GetMap><Format>image/png</Format><DCPType><HTTP><Get><OnlineResource xlink:href="{url}"/></Get></HTTP>
      </DCPType></GetMap>
    </Request>
    <Layer><Title>root</Title><CRS>EPSG:3857</CRS>
      <Layer queryable="0"><Name>scene</Name><Title>scene</Title><CRS>EPSG:3857</CRS>
        <BoundingBox CRS="EPSG:3857" minx="{0}" miny="{1}" maxx="{2}" maxy="{3}"/>
      </Layer>
    </Layer>
  </Capability>
</WMS_Capabilities>
"""


class MapServer:
    """Serves a raster of 8-bit red, green and blue in EPSG:3857. Where that has no pixel, its pictures are transparent.

    Attributes:
        url: of the server.
        asked: the tiles and maps that were asked for, as paths below `url`.
        refused: tiles (z, x, y) that it answers with an error.
        delay_s: how long it takes for a picture.
    """

    def __init__(self, raster: Path) -> None:
        self.asked: list[str] = []
        self.refused: set[tuple[int, int, int]] = set()
        self.delay_s = 0.0
        self._raster = raster
        self._lock = threading.Lock()
        dataset = gdal.Open(str(raster))
        west, pixel, _, north, _, _ = dataset.GetGeoTransform()
        self._bounds = (west, north - dataset.RasterYSize * pixel, west + dataset.RasterXSize * pixel, north)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server._answer(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # A port may come again, and QGIS keeps on disk what it got from an address, also for a later process.
        self._root = f"/{uuid4().hex}"
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{self._root}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def xyz_uri(self) -> str:
        """Of an XYZ layer, for the provider `wms`."""
        return f"type=xyz&url={self.url}/%7Bz%7D/%7Bx%7D/%7By%7D.png&zmax=19&zmin=0"

    @property
    def wms_uri(self) -> str:
        """Of a WMS layer, for the provider `wms`."""
        return f"contextualWMSLegend=0&crs=EPSG:3857&format=image/png&layers=scene&styles&url={self.url}/wms?"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.removeprefix(self._root)
        address = urlparse(path)
        query = {name.upper(): values[0] for name, values in parse_qs(address.query).items()}
        if query.get("REQUEST") == "GetCapabilities":
            return self._send(handler, "text/xml", _CAPABILITIES.format(*self._bounds, url=f"{self.url}/wms?").encode())
        self.asked.append(path)
        time.sleep(self.delay_s)
        if query.get("REQUEST") == "GetMap":
            west, south, east, north = map(float, query["BBOX"].split(","))
            width, height = int(query["WIDTH"]), int(query["HEIGHT"])
        else:
            z, x, y = (int(part) for part in address.path.removesuffix(".png").strip("/").split("/"))
            if (z, x, y) in self.refused:
                return handler.send_error(403)
            side = 2 * HALF_WORLD / 2**z
            west, north = x * side - HALF_WORLD, HALF_WORLD - y * side
            east, south = west + side, north - side
            width = height = TILE_PX
        return self._send(handler, "image/png", self._picture(west, south, east, north, width, height))

    def _picture(self, west: float, south: float, east: float, north: float, width: int, height: int) -> bytes:
        with self._lock:
            part = gdal.Warp(
                "",
                str(self._raster),
                format="MEM",
                outputBounds=(west, south, east, north),
                width=width,
                height=height,
                resampleAlg="near",
                dstAlpha=True,
            )
            pixels = part.ReadRaster(buf_pixel_space=4, buf_line_space=4 * width, buf_band_space=1)
        buffer = QBuffer()
        buffer.open(QIODevice.OpenModeFlag.WriteOnly)
        QImage(pixels, width, height, QImage.Format.Format_RGBA8888).save(buffer, "PNG")
        return bytes(buffer.data())

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, kind: str, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        with suppress(ConnectionError):  # the client has given up
            handler.wfile.write(body)
