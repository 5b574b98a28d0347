"""What networks depend on, measured: of any network, and of a model against its spec."""
