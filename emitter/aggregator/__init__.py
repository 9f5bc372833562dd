"""The receiving end: OTLP in, totals per service out. Imports nothing of the emitter but its errors.

report.py      the frozen nouns that cross between the rooms below
decode.py      OTLP bytes -> reports              (knows no database)
fold.py        the arithmetic of folding          (knows no bytes, no database)
store.py       reports -> SQLite -> totals        (knows no HTTP, no protobuf)
exposition.py  totals -> Prometheus text and JSON (knows no SQL)
server.py      the routes, and one worker thread  (knows no arithmetic)
"""

from emitter.aggregator.server import serving

__all__ = ["serving"]
