"""What a city is, and what was measured there: places, edges, signals, and how they come in."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("citybrain")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0+unknown"
