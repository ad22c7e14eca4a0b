"""The matrix: what each flow does when each of its dependencies is slow, hung or gone, and what proves it.

``code`` reads from the product's own source who calls what, so that nothing new escapes; ``cell`` has the promise and
the proof of each cell (``cells.toml``), ``page`` shows them. A cell without either is a finding of the tidy tests.
"""

from seawall.lab.matrix.cell import Cell, cells, problems
from seawall.lab.matrix.page import page, rows

__all__ = ["Cell", "cells", "page", "problems", "rows"]
