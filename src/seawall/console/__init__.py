"""People act here: the ``/v1`` API on the admin address, with its OpenAPI document, and the health of the whole.

``table`` says which endpoints there are; ``report`` reads, ``source`` changes; ``route`` joins them to an ordinary HTTP
server. The console is a role of its own: nothing that it does, and no load on it, can slow intake or workers.
"""

from seawall.console.route import Console, Health
from seawall.console.setting import Settings

__all__ = ["Console", "Health", "Settings"]
