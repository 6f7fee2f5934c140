"""Sagas beside bare workflows of DBOS, which they stand on: the same three steps over the same database."""
