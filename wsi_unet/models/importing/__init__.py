"""Make models of other people's checkpoints, programs and modules.

A checkpoint is read safely, its family recognised, and its weights put into a network of ours. A
program or module is measured, and run as it is.
"""
