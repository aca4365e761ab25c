"""The judge: submissions come in as files from anybody, grades and feedback go out."""

from lib.moved import forward

__getattr__ = forward(__name__)
