"""A section of a document that a script writes between two markers; the rest of the document stays."""

import sys


def put_section(doc, text, begin, end):
    """Puts a section, markers included, in the place of the one that is there, or at the end."""
    old = doc.read_text() if doc.exists() else "# Figures\n"
    before, has_begin, rest = old.partition(begin)
    _, has_end, after = rest.partition(end)
    if has_begin and not has_end:
        sys.exit(f"{doc} has a begin and no end: put {end!r} where the section ends")
    doc.write_text(before + text + after if has_begin else f"{old.rstrip()}\n\n{text}\n")
