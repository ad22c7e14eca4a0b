"""Seams: what one room promises another, one protocol per file, each with a conformance suite in tests/seam/."""
