package qupath.lib.scripting

import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import qupath.lib.objects.classes.PathClass

/** A project of the images that a JSON file lists, into which it writes what they hold when synced. */
class QP {
    static final String PROJECT_BASE_DIR = '{%PROJECT}'
    private static final StandInProject PROJECT = new StandInProject(new File(System.getenv('STAND_IN_PROJECT')))
    static StandInProject getProject() { PROJECT }
    static def getCurrentImageData() { null }
    static String buildFilePath(String... parts) {
        parts.join(File.separator).replace(PROJECT_BASE_DIR, PROJECT.file.parent)
    }
}

class StandInProject {
    final File file
    final List<StandInImage> images
    List<PathClass> pathClasses = [PathClass.fromString('Tumor')]
    StandInProject(File file) {
        this.file = file
        images = new JsonSlurper().parse(file).collect { new StandInImage(it) }
    }
    List<StandInImage> getImageList() { images.asImmutable() }
    void syncChanges() {
        def colours = pathClasses.collectEntries { [it.name, it.color] }
        def held = images.collectEntries { image -> [image.imageName, image.saved.collectEntries { [it.ID, it.isDetection()] }] }
        file.text = JsonOutput.toJson([classes: colours, images: held])
    }
}

/** An entry, its image data, its server and its hierarchy in one. */
class StandInImage {
    final String imageName
    final int width, height
    List saved = [], held = []
    StandInImage(Map facts) { imageName = facts.name; width = facts.width; height = facts.height }
    def readImageData() { held = saved.collect(); this }
    void saveImageData(StandInImage data) { saved = data.held }
    def getServer() { this }
    def getHierarchy() { this }
    void close() { }
    List getDetectionObjects() { held.findAll { it.isDetection() }.asImmutable() }
    List getAnnotationObjects() { held.findAll { !it.isDetection() }.asImmutable() }
    void removeObjects(Collection objects, boolean keepChildren) { held -= objects }
    void addObjects(Collection objects) {
        assert (held*.ID).intersect(objects*.ID).isEmpty()
        held = held + objects
    }
}
