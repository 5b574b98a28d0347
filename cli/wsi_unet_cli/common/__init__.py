"""Code that the commands share: options, output, errors, progress, interruption."""
