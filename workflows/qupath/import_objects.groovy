// Import what `wsi-unet export results/ --to qupath --output exports/` wrote into the images of a
// QuPath project (0.4 or later): each export into the image of its slide, known by its file name.
//
// In QuPath's script editor, with the project open, it imports the folder `exports` beside the
// project. From a terminal, with any folder:
//
//     QuPath script import_objects.groovy --project=project.qpproj --args=/path/to/exports
//
// Exports that are incomplete, match no image or several, or have objects outside of the image are
// named and left out. Objects that were imported before are replaced.

import groovy.json.JsonSlurper
import java.util.zip.GZIPInputStream
import qupath.lib.common.ColorTools
import qupath.lib.io.PathIO
import qupath.lib.objects.classes.PathClass

import static qupath.lib.scripting.QP.*

/** Return what an export says about itself: its first line, which is the beginning of a JSON object. */
def readHead(File file) {
    def line = file.withInputStream { it ->
        new BufferedReader(new InputStreamReader(new GZIPInputStream(it), 'UTF-8')).readLine()
    }
    if (line == null || !line.startsWith('{"type":"FeatureCollection","wsi_unet":{'))
        return null
    return new JsonSlurper().parseText(line + ']}').wsi_unet
}

/** Return the exports of a folder: the files of each, in order, with what they say. */
def findExports(File folder) {
    def exports = new TreeMap<String, List>()
    for (file in folder.listFiles().sort { it.name }) {
        def head = file.name.endsWith('.geojson.gz') ? readHead(file) : null
        if (head == null)
            continue
        def name = file.name - '.geojson.gz'
        if (head.parts > 1)
            name = name.replaceAll(/-\d+$/, '')
        exports.computeIfAbsent(name, { key -> [] }) << [file: file, head: head]
    }
    return exports
}

/** Return the project's images of a slide: by its file name, or else by that without its suffix. */
def findImages(project, String slide) {
    def images = project.getImageList().findAll {
        it.getImageName() == slide || it.getImageName().startsWith(slide + ' - ')
    }
    if (!images.isEmpty())
        return images
    def strip = { String name -> name.replaceAll(/\.[^.]*$/, '') }
    return project.getImageList().findAll { strip(it.getImageName()) == strip(slide) }
}

/** Return why an export can't be imported, null if it can. */
def findFault(project, List parts) {
    def heads = parts.collect { it.head }
    if (heads.collect { it.part }.sort() != (1..heads[0].parts).toList())
        return "has ${parts.size()} of its ${heads[0].parts} files; export again"
    if (heads.collect { [it.parts, it.groups, it.origin] }.toSet().size() > 1)
        return 'has files of several exports; export again'
    def images = findImages(project, heads[0].groups[0].slide)
    if (images.size() != 1)
        return "${images.size()} images of the project are called ${heads[0].groups[0].slide}"
    return null
}

/** Give the classes of an export their colours, and add those that the project doesn't have. */
def setClasses(project, List classes) {
    def ours = classes.collect {
        def pathClass = PathClass.fromString(it.name)
        pathClass.setColor(ColorTools.packRGB(it.color[0], it.color[1], it.color[2]))
        return pathClass
    }
    def known = project.getPathClasses()
    project.setPathClasses(known + ours.findAll { !known.contains(it) })
}

/** Put objects into an image in place of those with the same identity; return the error, or null. */
def replaceObjects(imageData, List objects) {
    def server = imageData.getServer()
    def outside = objects.count {
        def roi = it.getROI()
        roi.getBoundsX() < 0 || roi.getBoundsY() < 0 ||
            roi.getBoundsX() + roi.getBoundsWidth() > server.getWidth() + 1 ||
            roi.getBoundsY() + roi.getBoundsHeight() > server.getHeight() + 1
    }
    if (outside > 0)
        return "${outside} objects lie outside of the image, so it isn't the slide that was segmented"
    def hierarchy = imageData.getHierarchy()
    def identities = objects.collect { it.getID() }.toSet()
    def there = hierarchy.getDetectionObjects() + hierarchy.getAnnotationObjects()
    def before = there.findAll { identities.contains(it.getID()) }
    if (!before.isEmpty())
        hierarchy.removeObjects(before, true)
    hierarchy.addObjects(objects)
    return null
}

/** Import an export into an image; return the error, or null. */
def importInto(project, entry, List parts) {
    def open = getCurrentImageData()
    def isOpen = open != null && project.getEntry(open) == entry
    def imageData = isOpen ? open : entry.readImageData()
    try {
        def objects = parts.collectMany { PathIO.readObjects(it.file.toPath()) }
        def expected = parts.collect { it.head.objects }.sum()
        if (objects.size() != expected)
            return "QuPath read ${objects.size()} of ${expected} objects"
        setClasses(project, parts[0].head.classes)
        def error = replaceObjects(imageData, objects)
        if (error == null) {
            entry.saveImageData(imageData)
            println "${entry.getImageName()}: ${objects.size()} objects"
        }
        return error
    } finally {
        if (!isOpen)
            imageData.getServer().close()
    }
}

def project = getProject()
if (project == null)
    throw new IllegalStateException('open a project first, or give one: --project=project.qpproj')
def given = binding.hasVariable('args') && args ? args[0] : buildFilePath(PROJECT_BASE_DIR, 'exports')
def folder = new File(given as String)
if (!folder.isDirectory())
    throw new IllegalArgumentException("${folder}: there is no such folder; give that of the exports")
def exports = findExports(folder)
def failed = 0
exports.each { name, parts ->
    def fault = findFault(project, parts)
    if (fault == null)
        fault = importInto(project, findImages(project, parts[0].head.groups[0].slide)[0], parts)
    if (fault != null) {
        println "left out ${name}: ${fault}"
        failed++
    }
}
project.syncChanges()
println "${exports.size() - failed} of ${exports.size()} exports imported from ${folder}"
