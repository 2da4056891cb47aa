"""OpenEUPE: efficient universal perception encoders.

Everything is an Encoder. A stage turns teachers into students. A recipe is a chain of stages.
"""

from importlib.metadata import version

from openeupe.encoders import Encoder, Tokens, create
from openeupe.errors import InputError
from openeupe.loading import load

__version__ = version("openeupe")
__all__ = ["Encoder", "InputError", "Tokens", "__version__", "create", "load"]
