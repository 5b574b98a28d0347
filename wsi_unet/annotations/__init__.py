"""What people draw on slides: polygons with class names, and drawing them into pixels."""
