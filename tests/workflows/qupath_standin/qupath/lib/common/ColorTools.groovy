package qupath.lib.common

class ColorTools {
    static int packRGB(int red, int green, int blue) { (0xFF << 24) | (red << 16) | (green << 8) | blue }
}
