"""Results as DICOM: labels as segmentations, objects as bulk annotations."""
