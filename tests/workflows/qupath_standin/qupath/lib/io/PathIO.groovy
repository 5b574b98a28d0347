package qupath.lib.io

import groovy.json.JsonSlurper
import java.nio.file.Files
import java.nio.file.Path
import java.util.zip.GZIPInputStream

class PathIO {
    static List readObjects(Path path) {
        def document = Files.newInputStream(path).withStream { it ->
            new JsonSlurper().parse(new GZIPInputStream(it), 'UTF-8')
        }
        return document.features.collect { new StandIn(it) }
    }

    /** An object of which the script asks what QuPath's PathObject and ROI answer. */
    static class StandIn {
        private final Map feature
        StandIn(Map feature) { this.feature = feature }
        UUID getID() { UUID.fromString(feature.id as String) }
        boolean isDetection() { feature.properties.objectType == 'detection' }
        def getROI() { this }
        private List numbers(int axis) { feature.geometry.coordinates.flatten().collate(2).collect { it[axis] } }
        double getBoundsX() { numbers(0).min() }
        double getBoundsY() { numbers(1).min() }
        double getBoundsWidth() { numbers(0).max() - numbers(0).min() }
        double getBoundsHeight() { numbers(1).max() - numbers(1).min() }
    }
}
