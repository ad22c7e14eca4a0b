"""Keeps what the platform knows, in PostgreSQL. All SQL is here, as named statements in ``query/*.sql``.

``pool`` owns connections, deadlines and the translation of driver errors; ``embedded`` starts a real PostgreSQL from a
wheel; the other modules are one noun each, with the statements of that noun.
"""
