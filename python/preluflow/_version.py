"""The version, read from the installed package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("preluflow")
except PackageNotFoundError:  # a source tree on PYTHONPATH
    __version__ = "0+unknown"
