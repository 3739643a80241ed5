"""Composing configuration; plug-ins."""
