"""Build a transformer, then decide about one: the library behind the lessons.

The transformer's story is told by the files at the top. Read them in the order of the lessons: errors, device, corpus,
tokenizer, embedding, attention, transformer, training, generation, vision. Everything else has a room:

- `sources`: data and weights that packages carry, fetched and verified
- `kernels`: faster ways to compute what the story writes out
- `trainer`: what a run needs around the plain loop
- `weights`: other people's weights in our model, and ours in their formats
- `inference`: writing fast, and for many at once
- `view`: one look into a running model, as a page that computes it
- `decide`: counting, sizing and judging models
- `shop`: one company, its records and its customers
- `adapt`: a model taught one job, or made for one
- `exercises`, `lesson`: what a notebook asks, checks and shows

`lib.grading` judges what others hand in, and `lib.course` is the command line. A room imports only from those above it
in this list, and the story from none but `sources` and `kernels`; the import contracts in pyproject.toml hold it to
that.

Axis letters, the same in every shape comment and docstring:

    B  batch                     H   query heads
    T  query position            K   key/value heads
    S  key position              G   query heads per key/value head (G = H / K)
    D  model width (d_model)     Dh  width of one head
    V  vocabulary                F   feed-forward width (d_ff)
"""

import sys

from lib.moved import install

# jsonschema, which nbformat imports, loads this extra of jupyter-events wherever it is installed, and that builds 38
# grammars as it is imported: one to three seconds in every process of ours. Notebooks are checked just as well without.
sys.modules.setdefault("rfc3987_syntax", None)
install()
