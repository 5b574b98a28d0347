"""Results as files of other programs: tables, pictures, formats of viewers and archives."""
