"""Many slides: finding them, manifests, the report about them, their plans and states."""
