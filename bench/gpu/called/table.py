"""All calls, in the order in which they are timed."""

from bench.gpu.called import cells, codes, labels, solves, swept


# the cells of ours first, then what POT takes for them; what may take long stands last
CALLS = [*cells.SOLVES, *cells.POTS, *codes.CODES, *solves.SOLVES, *swept.SWEPT, *labels.LABELS]
