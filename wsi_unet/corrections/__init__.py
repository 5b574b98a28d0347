"""Corrections of objects that people make in other programs: reading, joining and storing them."""
