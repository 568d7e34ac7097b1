"""In a checkout, `dualgraph.cli` is the top-level folder cli; where the package is installed, that folder lies here."""

import os

__path__ = [os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "cli")]
