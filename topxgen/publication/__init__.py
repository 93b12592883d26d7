"""Pairs as a data set that `datasets`, the Hub and MT tools read. Above the stages: it reads what they left (topxgen.runs)."""
