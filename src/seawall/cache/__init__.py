"""What may be forgotten at any moment: rate limits shared with other collectors through Redis, and what an address says
about its country.

Nothing here is needed to accept an event. Each question has an answer without the server or the file behind it, and
gets that answer at once while a breaker says that asking is of no use. The packages that it takes are optional too.
"""
