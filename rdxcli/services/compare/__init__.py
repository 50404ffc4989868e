"""``rdx compare``: options, estimators, scores, names, the record and the scoreboard."""
