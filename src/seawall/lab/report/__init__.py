"""From the folders that runs of experiments left (lab/record.py) to a page for people and a file for programs.

``shelf`` reads the folders, ``figure`` makes numbers of what was measured, ``original`` knows the incidents as they
happened, ``word`` says figures in words, ``panel`` chooses what is drawn together and ``plot`` draws it. ``page``,
``part`` and ``graph`` write the HTML through ``markup``, which escapes; ``summary`` makes the table and the JSON.
`write` is what the command line calls. Nothing here runs anything, or asks anybody.
"""

from seawall.lab.report.write import HTML, JSON, Report, write

__all__ = ["HTML", "JSON", "Report", "write"]
