"""Objects as QuPath reads them: GeoJSON packed by gzip, in files of a bounded size."""
