"""People act here: the ``/v1`` API on the admin address, with its OpenAPI document, and the health of the whole.

``table`` says which endpoints there are; ``report`` reads, ``source`` changes; ``route`` joins them to an ordinary HTTP
server. The console is a role of its own: nothing that it does, and no load on it, can slow intake or workers.

``route.Console`` and ``setting.Settings`` are what others use. Nothing is imported here: whoever only reads settings
would pay for a whole HTTP server.
"""
