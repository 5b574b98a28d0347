"""Scores of how well labels agree, from counts that can be added up chunk by chunk.

Nothing here reads files. Truth comes before prediction: in matrices, rows are truth and columns
prediction.
"""
