"""The generated part of `polos`; the public names stand in the other folder."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
