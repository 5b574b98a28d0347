package qupath.lib.objects.classes

class PathClass {
    private static final Map<String, PathClass> KNOWN = [:]
    final String name
    Integer color
    private PathClass(String name) { this.name = name }
    static PathClass fromString(String name) { KNOWN.computeIfAbsent(name) { new PathClass(it) } }
}
