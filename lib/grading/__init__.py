"""The judge: submissions come in as files from anybody, grades and feedback go out."""
