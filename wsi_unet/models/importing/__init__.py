"""Importing other people's checkpoints, programs and modules as models.

A checkpoint is read safely, its family is recognised, and its weights are put into one of our
networks. A program or module is measured, and run as it is.
"""
