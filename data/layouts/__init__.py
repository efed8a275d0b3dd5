"""Layouts of foreign files, one module each: how to know it, and how to read it."""
