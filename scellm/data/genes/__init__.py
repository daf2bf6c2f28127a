"""Packaged gene tables, see README.md here."""
