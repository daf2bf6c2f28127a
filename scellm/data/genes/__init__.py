"""Packaged gene tables (see README.md here) and `build`, the script that makes them."""
