/*
 * Detect mitoses in the open image with SegMitos and bring them back as annotations.
 *
 * Set COMMAND to the installed program. Where the image is calibrated in QuPath, its scale is given
 * as --mpp, which fills in only where the file itself has none; a scale that contradicts the file
 * is said in the log.
 * If an annotation of class "Region*" is there, the work is limited to all such annotations.
 */
import qupath.lib.io.GsonTools
import qupath.lib.regions.RegionRequest

def COMMAND = "segmitos"                       // or the full path of the program
def OUT = buildFilePath(PROJECT_BASE_DIR, "segmitos")

def server = getCurrentServer()
def uris = server.getURIs()
if (uris.isEmpty() || uris[0].getScheme() != "file") {
    print "The image is not a file on this machine: " + uris
    return
}
def path = new File(uris[0]).getAbsolutePath()
def name = GeneralTools.getNameWithoutExtension(getProjectEntry().getImageName())
def folder = buildFilePath(OUT, getProjectEntry().getID())
mkdirs(folder)

def command = [COMMAND, "detect", path, "-o", folder]
def scale = server.getPixelCalibration()
if (scale.hasPixelSizeMicrons())
    command += ["--mpp", String.format(Locale.ROOT, "%.6f", scale.getAveragedPixelSizeMicrons())]

def regions = getAnnotationObjects().findAll { it.getPathClass() == getPathClass("Region*") }
if (!regions.isEmpty()) {
    def file = new File(folder, "regions.geojson")
    exportObjectsToGeoJson(regions, file.getAbsolutePath(), "FEATURE_COLLECTION")
    command += ["--roi", file.getAbsolutePath()]
}
print "running " + command.join(" ")
def process = new ProcessBuilder(command.collect { it.toString() }).redirectErrorStream(true).start()
process.inputStream.eachLine { print it }
if (process.waitFor() != 0) {
    print "SegMitos ended with exit code " + process.exitValue() + "; its message is above"
    return
}
def found = new File(folder).listFiles().findAll { new File(it, "detections.geojson").isFile() }
if (found.isEmpty()) {
    print "no result in " + folder
    return
}
removeObjects(getAnnotationObjects().findAll { it.getPathClass() == getPathClass("Mitotic figure") }, true)
importObjectsFromFile(new File(found[0], "detections.geojson").getAbsolutePath())
fireHierarchyUpdate()
print "report: " + new File(found[0], "report.html").getAbsolutePath()
