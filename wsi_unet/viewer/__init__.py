"""Showing slides and results in a browser: a server of tiles, and the page that asks for them."""
