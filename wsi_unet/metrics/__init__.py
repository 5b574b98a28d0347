"""How well labels agree: counts that can be added up chunk by chunk, and the scores they give.

Nothing here reads files. Truth comes first in every matrix and pair: rows are truth, columns
prediction.
"""
