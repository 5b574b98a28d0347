"""Results as files of other programs: tables, pictures, and the formats of viewers and archives."""
